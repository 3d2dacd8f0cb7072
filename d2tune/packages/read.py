"""Reading a package: every file is checked before it is used, and nothing in it is run or unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor, nn

from d2tune import files
from d2tune.errors import PackageError
from d2tune.modeling.config import read_config
from d2tune.modeling.loaded import DEFAULT_THRESHOLD, LoadedModel, ModelDescription
from d2tune.modeling.ready import ready_model
from d2tune.packages.manifest import CONFIG, COPY_HINT, PROJECT, Manifest, read_manifest
from d2tune.project import Project, load_project


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package whose files are those that were written.

    Attributes:
        folder: Its folder.
        manifest: Its description.
        project: The project of its model.
    """

    folder: Path
    manifest: Manifest
    project: Project

    @property
    def weights(self) -> Path:
        """The file of the weights, or of the exported model."""
        return self.folder / self.manifest.weights.file

    def config(self) -> CfgNode:
        """Read Detectron2's config."""
        return read_config(self.folder / CONFIG)

    def record(self) -> dict[str, Any]:
        """What the record of a run has too; see `run_schema.Record`."""
        manifest = self.manifest
        given = manifest.model_dump(mode="json", include={"project", "preset", "task", "data", "input", "versions"})
        lists = {"classes": list(manifest.classes), "thing_ids": list(manifest.thing_ids)}
        return given | lists | {"machine": {"precision": manifest.inference.precision}}

    def description(self) -> ModelDescription:
        """What is known of the model without loading it."""
        return ModelDescription(source=self.folder, project=self.project, record=self.record())

    def loaded(self, model: Any, cfg: CfgNode) -> LoadedModel:
        """The model of this package with everything that is known of it.

        Args:
            model: A module, or a callable with the inputs and outputs of a Detectron2 model.
            cfg: The config.
        """
        listed, thresholds = self.manifest.files, self.manifest.thresholds
        return LoadedModel(
            source=self.folder,
            project=self.project,
            record=self.record(),
            cfg=cfg,
            model=model,
            thresholds={
                name: thresholds[name].value if name in thresholds else DEFAULT_THRESHOLD
                for name in self.manifest.classes
            },
            weights=self.weights,
            weights_sha256=listed[self.manifest.weights.file].sha256,
            config_sha256=listed[CONFIG].sha256,
            project_sha256=listed[PROJECT].sha256,
            files=(self.folder / "package.json", *(self.folder / name for name in listed)),
        )


def read_package(folder: str | Path, *, with_weights: bool = True) -> Package:
    """Read the description of a package and check its files.

    Args:
        folder: The package.
        with_weights: Whether the files of the weights are checked too; others are always.

    Raises:
        PackageError: It is not a package, was written by a later version, or a file is missing or was changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    small = {PROJECT, CONFIG}
    for name in manifest.files:
        if with_weights or name in small:
            _check_file(folder / name, manifest)
    return Package(folder=folder, manifest=manifest, project=load_project(folder / PROJECT).project)


def load_package(package: Package) -> LoadedModel:
    """Build the model of a package of safetensors and load its weights.

    Raises:
        PackageError: The weights are those of another model, or cannot be read.
    """
    cfg, path = package.config(), package.weights

    def load(model: nn.Module) -> None:
        put_tensors(model, read_tensors(path), path)

    model = ready_model(cfg, recorded=package.manifest.inference.precision, load=load)
    return package.loaded(model, cfg)


def _check_file(path: Path, manifest: Manifest) -> None:
    entry = manifest.files[path.name]
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise PackageError("a file of the package is a folder", file=path, hint=COPY_HINT)
        if size != entry.bytes:
            message, bytes_now = "the file was changed after it was written", f"{size:,} bytes"
            raise PackageError(message, file=path, found=bytes_now, expected=f"{entry.bytes:,}", hint=COPY_HINT)
        digest = files.sha256_file(path)
    except FileNotFoundError:
        raise PackageError("a file of the package is missing", file=path, hint=COPY_HINT) from None
    except OSError as error:
        raise PackageError(f"cannot be read: {error.strerror or error}", file=path) from None
    if digest != entry.sha256:
        raise PackageError(
            "the file was changed after it was written",
            file=path,
            found=f"SHA-256 {digest[:12]}",
            expected=entry.sha256[:12],
            hint=COPY_HINT,
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors by name.

    Raises:
        PackageError: It cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PackageError(f"the weights cannot be read: {error}", file=path, hint=COPY_HINT) from None


def put_tensors(model: nn.Module, given: Mapping[str, Tensor], path: Path) -> None:
    """Copy all tensors of a file into a model.

    Args:
        model: The model.
        given: Its tensors by name.
        path: The file, for messages.

    Raises:
        PackageError: Names, shapes or types are not those of the model.
    """
    wanted = model.state_dict()
    for name in sorted(wanted.keys() - given.keys()):
        raise PackageError("the weights lack a tensor of the model", file=path, place=name)
    for name in sorted(given.keys() - wanted.keys()):
        raise PackageError("the weights have a tensor that the model lacks", file=path, place=name)
    for name, value in wanted.items():
        if (value.shape, value.dtype) != (given[name].shape, given[name].dtype):
            raise PackageError(
                "the tensor is not that of the model",
                file=path,
                place=name,
                found=_described(given[name]),
                expected=_described(value),
            )
    for name, value in wanted.items():
        value.copy_(given[name])


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
