"""The licenses of what is in a handover, and of the libraries that run it."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageMetadata, PackageNotFoundError
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_LICENSE_FILE = re.compile(r"(?i)^(licen[sc]e|copying|notice|authors)[^/]*$")
_PREFIX = re.compile(r"(?i)^license :: (osi approved :: )?")
_UNKNOWN = "not stated"
_LONGEST = 100
"""Most letters of a license's name; metadata can hold the whole text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """An installed library.

    Attributes:
        name: Its name.
        version: Its version.
        license: Its license, by its metadata.
        texts: The files with the texts of its licenses.
    """

    name: str
    version: str
    license: str
    texts: tuple[Path, ...]


def libraries(roots: Iterable[str]) -> list[Library]:
    """The installed libraries that others need, by name, those included.

    Args:
        roots: Names of the others. Requirements of their extras do not count.
    """
    needed: dict[str, Library] = {}
    waiting: list[str] = [canonicalize_name(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        try:
            installed = importlib.metadata.distribution(name)
        except PackageNotFoundError:
            continue
        needed[name] = _library(installed)
        waiting += _requirements(installed)
    return [needed[name] for name in sorted(needed)]


def write_texts(folder: Path, needed: Iterable[Library]) -> dict[str, list[str]]:
    """Copy the texts of licenses; returns their names relative to the folder, by library."""
    written: dict[str, list[str]] = {}
    for library in needed:
        for number, source in enumerate(library.texts):
            own = folder / canonicalize_name(library.name)
            own.mkdir(parents=True, exist_ok=True)
            path = own / (source.name if number == 0 else f"{number}-{source.name}")
            path.write_bytes(source.read_bytes())
            written.setdefault(library.name, []).append(path.relative_to(folder).as_posix())
    return written


def _library(installed: Distribution) -> Library:
    about = installed.metadata  # parsed anew at each access
    texts = []
    for entry in installed.files or ():
        if _LICENSE_FILE.match(entry.name) and ".dist-info/" in entry.as_posix():
            path = Path(str(installed.locate_file(entry)))
            texts += [path] if path.is_file() else []
    return Library(name=str(about["Name"]), version=str(about["Version"]), license=_license(about), texts=tuple(texts))


def _license(about: PackageMetadata) -> str:
    """The expression, the first line of the free text, or the classifiers."""
    expression, text, classifiers = (
        about.get_all(name, []) for name in ("License-Expression", "License", "Classifier")
    )
    free = "".join(text).strip().partition("\n")[0]
    classes = [_PREFIX.sub("", line) for line in classifiers if line.startswith("License ::")]
    stated = "".join(expression) or (free if len(free) <= _LONGEST else "") or ", ".join(classes)
    return stated if stated and stated.upper() != "UNKNOWN" else _UNKNOWN


def _requirements(installed: Distribution) -> list[str]:
    names: list[str] = []
    for line in installed.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.append(canonicalize_name(requirement.name))
    return names
