"""Weights: where they come from, how they are read without running anything in them, and what of them fits."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from d2tune import files
from d2tune.errors import WeightsError
from d2tune.modeling import torchvision_rcnn
from d2tune.modeling.reading import first_not_finite, read_file
from d2tune.text import counted, reason_of

logger = logging.getLogger(__name__)

ZOO_URL = "https://dl.fbaipublicfiles.com/detectron2/"
"""What ``detectron2://`` stands for; ``D2TUNE_ZOO_URL`` names a mirror."""

TIMEOUT_S = 20.0

StateDict = dict[str, Tensor]


class UnreachableWeightsError(WeightsError):
    """The weights may exist, but the network does not lead to them."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights on this machine.

    Attributes:
        source: What the project names: a URL, ``detectron2://...`` or a path.
        path: Where the file is.
        sha256: Of its bytes.
    """

    source: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class LoadedRow:
    """A component of the model, such as its backbone: tensors loaded, tensors in all, and why the rest was not."""

    component: str
    loaded: int
    total: int
    why: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What of a weights file went into the model.

    Attributes:
        rows: One for each component of the model, in its own order.
        unused: Tensors of the file that do not fit into the model.
    """

    rows: tuple[LoadedRow, ...]
    unused: int

    @property
    def loaded(self) -> int:
        """Tensors loaded."""
        return sum(row.loaded for row in self.rows)

    @property
    def total(self) -> int:
        """Tensors the model has."""
        return sum(row.total for row in self.rows)


def find(source: str, *, sha256: str | None = None) -> WeightsFile:
    """The file of ``source`` on this machine; it is downloaded once, and its hash is checked on every use.

    Args:
        source: ``detectron2://...``, ``http(s)://...`` or a path.
        sha256: The hash the file must have.

    Raises:
        WeightsError: There is no such file, it cannot be downloaded, or its hash differs.
    """
    if "://" not in source:
        path = Path(source)
        if not path.is_file():
            raise WeightsError(
                "the weights are a folder" if path.is_dir() else "the weights file does not exist",
                file=path,
                hint="Give a file, a URL, 'auto' or 'scratch'.",
            )
        file = WeightsFile(source, path, files.sha256_file(path))
    else:
        file = _from_cache_or_web(source)
    if sha256 is not None and file.sha256 != sha256:
        raise WeightsError(
            "the weights are not the expected ones", file=file.path, found=f"sha256 {file.sha256}", expected=sha256
        )
    return file


def read_unchanged(file: WeightsFile) -> StateDict:
    """The tensors of a file that was found earlier, possibly by another process.

    Raises:
        WeightsError: The file is missing, or its hash is no longer the same.
    """
    if not file.path.is_file() or files.sha256_file(file.path) != file.sha256:
        raise WeightsError("the weights file has changed since training began", file=file.path)
    return read_state_dict(file.path)


def published_source(library: str, name: str) -> str | None:
    """Where ``torchvision`` or ``timm`` keeps pretrained weights of its network ``name``; None where it has none."""
    if library == "torchvision":
        import torchvision

        try:
            return str(torchvision.models.get_model_weights(name).DEFAULT.url)
        except ValueError:
            return None
    import timm

    pretrained = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if pretrained is None:
        return None
    if pretrained.url:
        return str(pretrained.url)
    hub = pretrained.hf_hub_id
    return f"https://huggingface.co/{hub}/resolve/main/model.safetensors" if hub else None


def _real_url(source: str) -> str:
    if source.startswith("detectron2://"):
        base = os.environ.get("D2TUNE_ZOO_URL", ZOO_URL).rstrip("/")
        return f"{base}/{source.removeprefix('detectron2://')}"
    if not source.startswith(("https://", "http://")):
        raise WeightsError(f"cannot fetch {source!r}", expected="detectron2://, https://, http:// or a file")
    return source


def _from_cache_or_web(source: str) -> WeightsFile:
    url = _real_url(source)
    address = urlsplit(url)
    host, digest = address.hostname or "unknown", hashlib.sha256(url.encode()).hexdigest()
    path = files.cache_folder() / "weights" / host / digest[:12] / Path(address.path).name
    note = path.with_name(path.name + ".json")
    if path.is_file():
        if _noted_sha256(note) in (None, files.sha256_file(path)):
            return _noted(source, url, path, note)
        logger.warning("%s has changed since it was downloaded; downloading it again", path)
    _download(url, path)
    return _noted(source, url, path, note)


def _noted_sha256(note: Path) -> str | None:
    """The hash that was noted with the download; None for a file that a person has put there."""
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _noted(source: str, url: str, path: Path, note: Path) -> WeightsFile:
    digest = files.sha256_file(path)
    _check_name(url, path, digest)
    files.write_json(note, {"url": url, "sha256": digest, "bytes": path.stat().st_size})
    return WeightsFile(source, path, digest)


def _download(url: str, path: Path) -> None:
    """Download a file; it appears whole or not at all.

    Raises:
        WeightsError: The server does not have it, the connection breaks off, or it cannot be written.
        UnreachableWeightsError: The server cannot be reached.
    """
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError, HTTPError, RequestException

    logger.warning("downloading %s", url)
    download = HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 20, timeout=TIMEOUT_S)
    try:
        with files.atomic_write(path) as stream:
            download(url, stream, None)
    except HTTPError as error:
        reason = "an error" if error.response is None else f"{error.response.status_code} {error.response.reason}"
        raise WeightsError(f"the server answers {reason}", file=url) from error
    except ChunkedEncodingError as error:
        raise WeightsError(f"the download broke off: {_cause(error)}", file=url) from error
    except RequestException as error:
        raise UnreachableWeightsError(
            f"cannot be reached: {_cause(error)}",
            file=url,
            hint=f"Download it elsewhere and put it at {path}, or name the file.",
        ) from error
    except OSError as error:
        raise WeightsError(f"cannot be written: {error}", file=path) from error


def _cause(error: BaseException) -> BaseException:
    """The first error of a chain, such as "Connection refused"; the last names objects of the HTTP library."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _check_name(url: str, path: Path, digest: str) -> None:
    """Torchvision's file names end in the first digits of their SHA-256, as in ``mobilenet_v2-7ebf99e0.pth``.

    Raises:
        WeightsError: The file has another hash; it is removed.
    """
    hit = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if hit and not digest.startswith(hit.group(1)):
        path.unlink()
        raise WeightsError("the download is damaged", file=url, found=f"sha256 {digest[:16]}", expected=hit.group(1))


_HARMLESS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads Detectron2's ``.pkl`` files, which hold arrays and text; refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which weights do not need")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_pickle(file: Path) -> Any:
    """What a ``.pkl`` holds.

    Raises:
        OSError: It cannot be read.
        UnpicklingError: It refers to something that weights do not need, or is not a pickle.
    """
    with file.open("rb") as stream:
        try:
            return _ArrayUnpickler(stream, encoding="latin1").load()
        except OSError:
            raise
        except Exception as error:
            if isinstance(error, pickle.UnpicklingError) and "it refers to" in str(error):
                raise
            # the unpickler's own words are such as "Memo value not found at index 0"
            raise pickle.UnpicklingError("it is damaged, or is not a pickle") from error


def read_state_dict(file: Path) -> StateDict:
    """The tensors of a weights file by name, with wrappers such as ``model`` and ``state_dict`` taken off.

    Raises:
        WeightsError: The file is damaged, or has something other than tensors.
    """
    try:
        if file.suffix == ".pkl":
            raw = _read_pickle(file)
        elif file.suffix == ".safetensors":
            from safetensors.torch import load_file

            raw = load_file(file)
        else:
            raw = read_file(file)
    except Exception as error:
        reason = reason_of(error)
        raise WeightsError(
            f"cannot be read as weights: {reason}",
            file=file,
            expected="a state dict (.pth, .safetensors) or Detectron2's .pkl",
        ) from error
    for wrapper in ("model", "state_dict", "model_state_dict", "model_state"):
        if isinstance(raw, Mapping) and isinstance(raw.get(wrapper), Mapping):
            raw = raw[wrapper]
    tensors = _tensors(raw) if isinstance(raw, Mapping) else {}
    if not tensors:
        raise WeightsError("has no tensors", file=file, expected="a state dict")
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def _tensors(raw: Mapping[Any, Any]) -> StateDict:
    tensors: StateDict = {}
    for key, value in raw.items():
        if isinstance(value, Tensor):
            tensors[str(key)] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            tensors[str(key)] = torch.from_numpy(np.ascontiguousarray(value))
    return tensors


Family = Literal["detectron2", "backbone"]


def family(state: Mapping[str, Tensor]) -> Family:
    """Whether the tensors are a whole Detectron2 model's or a backbone's alone."""
    return "detectron2" if any(key.startswith("backbone.") for key in state) else "backbone"


def is_rgb_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are named as torchvision and timm name a ResNet's."""
    return family(state) == "backbone" and any(key.startswith("layer1.") for key in state)


def fit(model: nn.Module, state: StateDict, *, file: Path) -> LoadReport:
    """Load what fits by name and shape; the rest stays as initialized.

    Raises:
        WeightsError: Less than half of the backbone fits, so the weights are those of another architecture.
    """
    target = model.state_dict()
    if torchvision_rcnn.is_published(state):
        torchvision_rcnn.check_network(model, file=file)
        state = torchvision_rcnn.renamed(state)
    renamed = _current_names(state) if family(state) == "detectron2" else _backbone_names(state, target)
    wanted = [key for key in target if key.startswith("backbone.bottom_up.")]
    return load_fitting(model, renamed, trunk=wanted, trunk_name="backbone", sample=next(iter(state)), file=file)


def check_names(names: Mapping[str, str], expected: Iterable[str], *, file: Path, network: str, hint: str) -> None:
    """Refuse a published file that has a tensor which the model does not have, or that lacks one.

    Shapes are not compared: those of the classes are other ones for other classes.

    Args:
        names: The name in the model of each tensor of the file by its name there.
        expected: Names of the model.
        file: The file.
        network: The network that the names are those of.
        hint: What to do.

    Raises:
        WeightsError: A name is left over or missing.
    """
    wanted = {name for name in expected if not name.endswith(_COUNTER)}
    left = sorted(name for name, own in names.items() if own not in wanted and not own.endswith(_COUNTER))
    missing = sorted(wanted - set(names.values()))
    if left or missing:
        what = f"{counted(len(left), 'name')} left over" if left else f"{counted(len(missing), 'name')} missing"
        raise WeightsError(
            f"the file is not that of {network} as it was published",
            file=file,
            found=f"{what}, such as {(left or missing)[0]}",
            expected=f"the {len(wanted)} tensors of the preset",
            hint=hint,
        )


def load_fitting(
    model: nn.Module,
    given: StateDict,
    *,
    trunk: Sequence[str],
    trunk_name: str,
    sample: str,
    file: Path,
    component_of: Callable[[str], str] | None = None,
    remarks: Mapping[str, str] = MappingProxyType({}),
) -> LoadReport:
    """Load those tensors of ``given`` whose name and shape are in the model.

    Args:
        model: The model.
        given: Tensors by their names in the model.
        trunk: Names of the tensors of which at least half must fit.
        trunk_name: What these are, for the message.
        sample: A name of the file, for the message.
        file: The file.
        component_of: The component of the model that a name is reported under; None takes Detectron2's.
        remarks: What to add to the report of a component.

    Raises:
        WeightsError: Less than half of the trunk fits, so the weights are those of another architecture; or some of
            them are not finite.
    """
    target = model.state_dict()
    fitting = {key: value for key, value in given.items() if key in target and target[key].shape == value.shape}
    wanted = [key for key in trunk if not _bookkeeping(key)]
    hits = sum(key in fitting for key in wanted)
    if hits < len(wanted) / 2:
        raise WeightsError(
            "these are the weights of another architecture",
            file=file,
            found=f"{hits} of the {trunk_name}'s {len(wanted)} tensors (the file has {sample!r}, ...)",
            expected=f"names and shapes such as {wanted[0]!r} {tuple(target[wanted[0]].shape)}",
            hint="Choose the preset, backbone or encoder that they were made for.",
        )
    not_finite = first_not_finite(fitting)
    if not_finite is not None:
        raise WeightsError(
            "the weights hold NaN or infinite numbers", file=file, place=not_finite, hint="Use another file."
        )
    versioned = OrderedDict(fitting)
    versioned._metadata = target._metadata  # type: ignore[attr-defined]  # the names are already the current ones
    model.load_state_dict(versioned, strict=False)
    unused = sum(1 for key in given if key not in fitting and not _bookkeeping(key))
    return LoadReport(_rows(target, given, fitting, component_of or _component, remarks), unused)


def _current_names(state: StateDict) -> StateDict:
    """Names of PointRend's first released weights, as its heads are called today."""
    old_and_new = (
        ("roi_heads.mask_point_head.", "roi_heads.mask_head.point_head."),
        ("roi_heads.mask_coarse_head.", "roi_heads.mask_head.coarse_head."),
        (".coarse_mask_fc", ".fc"),
    )
    renamed: StateDict = {}
    for key, value in state.items():
        for old, new in old_and_new:
            key = key.replace(old, new)
        renamed[key] = value
    return renamed


_COUNTER = "num_batches_tracked"
"""The end of the names of counters that only training reads."""


def _bookkeeping(key: str) -> bool:
    return key.endswith((_COUNTER, ".running_mean", ".running_var")) or "anchor_generator" in key


def _rows(
    target: StateDict,
    given: StateDict,
    fitting: StateDict,
    component_of: Callable[[str], str],
    remarks: Mapping[str, str],
) -> tuple[LoadedRow, ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key in target:
        if not _bookkeeping(key):
            groups[component_of(key)].append(key)
    rows = []
    for component, keys in groups.items():
        absent = [key for key in keys if key not in given]
        reshaped = [key for key in keys if key in given and key not in fitting]
        why = [remarks[component]] if component in remarks else []
        if reshaped:
            first = reshaped[0]
            shapes = f"{list(given[first].shape)} in the file, {list(target[first].shape)} here"
            why.append(f"{len(reshaped)} of another shape ({shapes})")
        if absent:
            why.append(f"{len(absent)} not in the file")
        rows.append(LoadedRow(component, len(keys) - len(absent) - len(reshaped), len(keys), "; ".join(why)))
    return tuple(rows)


def _component(key: str) -> str:
    if key.startswith("backbone.bottom_up."):
        return "backbone"
    if key.startswith("backbone."):
        return "FPN"
    names = key.split(".")
    return ".".join(names[:2]) if names[0] == "roi_heads" else names[0]


def _backbone_names(state: StateDict, target: StateDict) -> StateDict:
    """Names of torchvision's, timm's and Detectron2's own backbone files, as they are called in the model."""
    body = [key for key in target if key.startswith("backbone.bottom_up.body.")]
    if body:
        return stage_names(state, body, prefix="backbone.bottom_up.body.")
    if is_rgb_resnet(state):
        return {f"backbone.bottom_up.{_detectron2_resnet_name(key)}": value for key, value in state.items()}
    return {f"backbone.bottom_up.{key}": value for key, value in state.items()}


def stage_names(state: StateDict, wanted: Iterable[str], *, prefix: str) -> StateDict:
    """The tensors under the names that the stages of a network have in a model; others keep their own.

    Args:
        state: Tensors of the whole network as torchvision and timm name them.
        wanted: The names in the model; a stage's is ``layers_1`` where the whole network says ``layers.1``.
        prefix: What the wanted names begin with.
    """
    renamed: StateDict = {}
    for key in wanted:
        plain = key.removeprefix(prefix)
        options = (plain, re.sub(r"^(features|trunk_output|stages|blocks|layers|stem)_", r"\1.", plain))
        for option in options:
            if option in state:
                renamed[key] = state[option]
    taken = {id(value) for value in renamed.values()}
    renamed.update({key: value for key, value in state.items() if id(value) not in taken})
    return renamed


def _detectron2_resnet_name(key: str) -> str:
    """``layer1.0.bn1.weight`` of torchvision and timm is ``res2.0.conv1.norm.weight`` in Detectron2."""
    key = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", key)
    key = re.sub(r"^layer(\d)\.", lambda hit: f"res{int(hit.group(1)) + 1}.", key)
    key = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", key)
    return key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
