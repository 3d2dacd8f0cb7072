"""The licenses of what a model was trained from, as far as they are known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.packages.manifest import NAME
from d2tune.packages.measured import Described

_ZOO = ("detectron2://", "https://dl.fbaipublicfiles.com/detectron2/")
_TORCHVISION = "https://download.pytorch.org/models/"
_HUB = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/")
_LONGEST_CHAIN = 20


@dataclass(frozen=True, slots=True)
class SourceLicense:
    """A source of weights.

    Attributes:
        name: What it is.
        license: Its license, or what is known of it.
        identifier: The license as Hugging Face names it; None where it is not known.
        base_model: Its name on Hugging Face; None where it is not there.
    """

    name: str
    license: str
    identifier: str | None = None
    base_model: str | None = None


def license_of(source: str) -> SourceLicense:
    """The license of a file of weights.

    Args:
        source: Where it is from: ``detectron2://...``, a URL or a path.
    """
    if source.startswith(_ZOO):
        return SourceLicense(source, "CC BY-SA 3.0, as all weights of the model zoo of Detectron2", "cc-by-sa-3.0")
    if source.startswith(_TORCHVISION):
        terms = "not stated; the code of torchvision is under BSD-3-Clause, and terms of its training data may apply"
        return SourceLicense(source, terms)
    hub = _HUB.match(source)
    if hub is not None:
        return SourceLicense(source, f"stated on https://huggingface.co/{hub[1]}", base_model=hub[1])
    return SourceLicense(source, "that of its publisher, which is not known here")


def sources_of(training: Mapping[str, Any]) -> list[SourceLicense]:
    """The sources of the weights that a model was trained from, the nearest first; empty for one from scratch.

    Args:
        training: The entry ``training`` of a package.
    """
    chain = training.get("pretrained_chain")
    names = [training.get("pretrained"), *(chain if isinstance(chain, list) else ())]
    return [license_of(name) for name in names if isinstance(name, str)]


def license_rows(model: Described) -> list[dict[str, str]]:
    """From the weights to the result: what it is, and its license."""
    sources = sources_of(model.training)
    rows = [{"what": f"Weights that it started from: {one.name}", "license": one.license} for one in sources]
    if not rows:
        rows = [{"what": "Weights that it started from", "license": "none: it was trained from scratch"}]
    rows.append(
        {"what": "Training images and their annotations", "license": "that of their owners, which is not known here"}
    )
    rows.append({"what": "d2tune and Detectron2, which it runs with", "license": "Apache-2.0"})
    known = next((one for one in sources if one.identifier), None)
    result = (
        "CC BY-SA 3.0: those who share weights made from CC BY-SA 3.0 weights name the source and share alike"
        if known is not None
        else "for those who trained it to state, within the licenses above"
    )
    return [*rows, {"what": "These weights", "license": result}]


def license_of_training(training: Mapping[str, Any]) -> str:
    """`license_of_weights` of the entry ``training`` of a package."""
    names = [one.name for one in sources_of(training)]
    return license_of_weights(names[0] if names else None, names[1:])


def license_of_weights(source: str | None, earlier: Iterable[str] = ()) -> str:
    """The license of the weights that a model was trained from, in a sentence, as far as their source says.

    Args:
        source: The source as packages have it; None where the model was trained from scratch.
        earlier: What that source itself was trained from, the nearest first.
    """
    if source is None:
        return "The model was trained from scratch: its weights are the work of those who trained it."
    for one in (source, *earlier):
        if one.startswith(_ZOO):
            through = "" if one == source else f" through {source}"
            return f"It started from {one}{through}, weights of Detectron2's model zoo: CC BY-SA 3.0."
    return f"It started from {source}, whose license is that of its publisher and is not known here."


def earlier_sources(source: str | None) -> list[str]:
    """What a checkpoint of another run, or a package, was itself trained from; empty for other files.

    Args:
        source: The path of a file of weights.

    Returns:
        Its own source, the source of that, and so on.
    """
    chain: list[str] = []
    for own in _followed(source):
        if own in chain or len(chain) == _LONGEST_CHAIN:
            break
        chain.append(own)
    return chain


def _followed(source: str | None) -> Iterator[str]:
    while source is not None and "://" not in source:
        path = Path(source)
        record, package = (
            _section(path.parent.parent / "record.json", "weights"),
            _section(path.parent / NAME, "training"),
        )
        recorded = record.get("chain") or package.get("pretrained_chain") or []
        source = record.get("source") or package.get("pretrained")
        if not isinstance(source, str):
            return
        yield source
        if isinstance(recorded, list) and recorded:
            yield from (one for one in recorded if isinstance(one, str))
            return


def _section(file: Path, key: str) -> Mapping[str, Any]:
    try:
        section = json.loads(file.read_bytes())[key]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return section if isinstance(section, dict) else {}
