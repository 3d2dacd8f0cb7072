"""Exported models as models that are ready to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from d2tune.errors import PackageError
from d2tune.export.formats import FORMATS, check_installed
from d2tune.export.models import MODELS
from d2tune.export.networks import Network, OnnxModel, OpenVinoModel, TorchScriptModel
from d2tune.modeling.loaded import LoadedModel
from d2tune.packages.manifest import COPY_HINT
from d2tune.packages.read import Package


class ExportEntry(BaseModel):
    """The entry ``export`` of ``package.json``.

    Attributes:
        gives: What the network gives.
        inputs: Names of its inputs in order.
        outputs: Names of its outputs in order.
        pads_by_mirroring: Whether images are padded to a fixed size by mirroring them.
        opset: Version of ONNX's operators; None for formats without ONNX.
        versions: Versions of the libraries that made the file.
        check: What the check measured; None while it is made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gives: Literal["instances", "labels", "segments"]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    pads_by_mirroring: bool
    opset: int | None = None
    versions: dict[str, str]
    check: dict[str, JsonValue] | None = None


def load_exported(package: Package) -> LoadedModel:
    """The model of a package that was exported.

    Raises:
        PackageError: The file cannot be loaded, or the format is not known.
        MachineError: The library of the format is missing.
    """
    weights, path = package.manifest.weights, package.weights
    if weights.format not in FORMATS:
        expected = ", ".join(FORMATS)
        raise PackageError("the format of the model is unknown", file=path, found=weights.format, expected=expected)
    check_installed(FORMATS[weights.format])
    try:
        entry = ExportEntry.model_validate(package.manifest.export)
    except ValidationError as error:
        place = ".".join(("export", *map(str, error.errors()[0]["loc"])))
        raise PackageError("the entry is invalid", file=package.folder, place=place, hint=COPY_HINT) from None
    cfg = package.config()
    cfg.freeze()
    model = MODELS[entry.gives](
        _network(weights.format, path, entry), cfg, sizes=weights.sizes or (), pads_by_mirroring=entry.pads_by_mirroring
    )
    return package.loaded(model, cfg)


def _network(name: Any, path: Path, entry: ExportEntry) -> Network:
    if name == "onnx":
        return OnnxModel(path)
    if name == "torchscript":
        return TorchScriptModel(path, entry.inputs, entry.outputs)
    return OpenVinoModel(path, entry.outputs)
