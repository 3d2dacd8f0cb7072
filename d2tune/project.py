"""What a ``projects/*.yaml`` may say: typed, with its defaults visible, and unknown keys refused.

A project names a task, its data, its classes, a model preset, weights and a schedule. Everything that
follows from those (number of classes, ids, mask format, dataset names) is derived elsewhere and cannot
be said here.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from d2tune.errors import ProjectError, nearest

PRESETS_FOLDER = Path(__file__).resolve().parent / "modeling" / "presets"
"""The Detectron2 configs that ``model.preset`` names, without their folder and their ``.yaml``."""


Sample = Literal["balloon", "chipset", "face", "carvana", "ships", "steel", "crops", "membrane", "cells", "street"]
"""Labelled image sets that can be rendered."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LabelImages(_Section):
    """Images, of any number of channels, beside label images (``data.format: label_images``).

    An image is a photo, a ``.npy`` or ``.npz`` array, a TIFF with any number of pages and bands, or a folder of such
    files whose channels are stacked.

    Attributes:
        images: Folder of the images within a part.
        labels: Folder of the label images within a part; they have the images' names and any ending.
        values: Class name by label value; null leaves those pixels out. Empty: values are places in the classes.
        stack: Where images are folders of files: name patterns in the order of their channels; empty takes all
            files in natural order.
        channels: Places of the channels to use; empty takes all.
        nodata: Value of channels that hold no data, beside NaN.
    """

    images: str = "images"
    labels: str = "labels"
    values: dict[int, str | None] = Field(default_factory=dict)
    stack: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    nodata: float | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        """Keys that JSON made text of are numbers again."""
        if not isinstance(value, dict):
            return value
        return {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in value.items()}

    @field_validator("stack", "channels", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class Data(_Section):
    """Where the images and their annotations lie.

    Attributes:
        root: Folder of the data; a relative path starts at the project file's folder.
        train: Folder or file of the training part, relative to ``root``; or a list of its images, a ``.txt`` file
            as ``d2tune split`` writes it.
        val: Likewise for the validation part, or a fraction of ``train`` to set aside (0.2 is a fifth).
        annotations: Folder or file that lists take their images from, relative to ``root``.
        images: Folder that holds the images where they lie apart from the annotations.
        format: Annotation format; ``auto`` recognizes it from the content.
        label_images: How images and label images are read where ``format`` is ``label_images``.
        csv_preset: Dialect of a run-length CSV: carvana, airbus or severstal.
        background: Class of the pixels that no shape covers; null leaves them out of training and scores. For label
            maps of semantic and panoptic tasks.
        class_name: Class of shapes that carry none (VIA).
        class_attribute: VIA region attribute that holds the class.
        rename: New names by the label drawn; null leaves the label out.
        skip_bad: Train without the files that have errors instead of stopping.
        predictions: Whether shapes that Labelme files flag as predictions, and nobody has corrected, are trained on.
        sample: Sample that is rendered where ``root`` is missing, a name that ``d2tune sample`` takes.
        sample_images: How many images that sample has.
        split_seed: Seed of the split where ``val`` is a fraction.
    """

    root: Path
    train: str = "train"
    val: str | Annotated[float, Field(gt=0, lt=1)] = "val"
    annotations: str = "."
    images: str | None = None
    format: Literal["auto", "labelme", "via", "coco", "voc", "masks", "rle", "label_images"] = "auto"
    label_images: LabelImages = LabelImages()
    csv_preset: Literal["carvana", "airbus", "severstal"] | None = None
    background: str | None = None
    class_name: str | None = None
    class_attribute: str | None = None
    rename: dict[str, str | None] = Field(default_factory=dict)
    skip_bad: bool = False
    predictions: Literal["keep", "drop"] = "keep"
    sample: Sample | None = None
    sample_images: int = Field(default=80, ge=2)
    split_seed: int = 0

    @field_validator("root", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) else value


class Model(_Section):
    """The network.

    Attributes:
        preset: A file of ``d2tune/modeling/presets``, without its folder and its ``.yaml``.
        backbone: Instead of the preset's own: ``torchvision/NAME`` or ``timm/NAME`` with strides 4 to 32.
        norm: Whether the backbone's norms learn: ``frozen``, ``trainable``, or ``auto`` (frozen where
            the backbone's weights are pretrained; in a bridge preset they learn).
        encoder: Encoder of a bridge preset (unet, deeplab_v3_plus, ...) instead of the preset's own: a name of
            segmentation-models-pytorch such as ``resnet34``, ``mobilenet_v2`` or ``tu-convnext_tiny``.
        loss: Loss of a bridge preset by weight: ``cross_entropy``, ``dice``, ``focal``, ``lovasz``.
        class_weights: Weights of the classes in the loss: ``none``, ``balanced`` (from the pixels of the training
            part), or one number for each class.
        output_stride: Of a bridge preset that has one: 8 or 16.
        padding: Of the original U-Net: ``same``, or ``valid`` as in the paper.
    """

    preset: str = "pointrend_r50_fpn"
    backbone: str | None = None
    norm: Literal["auto", "frozen", "trainable"] = "auto"
    encoder: str | None = None
    loss: dict[Literal["cross_entropy", "dice", "focal", "lovasz"], Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict
    )
    class_weights: Literal["none", "balanced"] | tuple[Annotated[float, Field(ge=0)], ...] = "none"
    output_stride: Literal[8, 16] | None = None
    padding: Literal["same", "valid"] = "same"

    @field_validator("class_weights", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("class_weights")
    @classmethod
    def _counts_something(cls, value: object) -> object:
        if isinstance(value, tuple) and not any(value):
            raise ValueError("at least one class must have a weight above 0")
        return value

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        if value not in preset_names():
            raise ValueError(
                f"no preset {value!r}; did you mean {nearest(value, preset_names())!r}? "
                f"There are: {', '.join(preset_names())}"
            )
        return value

    @field_validator("backbone")
    @classmethod
    def _known_library(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("torchvision/", "timm/")):
            raise ValueError(f"{value!r} must begin with 'torchvision/' or 'timm/', as in 'torchvision/resnet18'")
        return value


class Train(_Section):
    """The schedule.

    Attributes:
        epochs: Passes over the training images; exclusive with ``iterations``.
        iterations: Optimizer steps; exclusive with ``epochs``.
        batch_size: Images per step over all GPUs.
        learning_rate: Peak learning rate; ``auto`` takes the preset's, scaled to the batch size.
        image_size: Short side in pixels at which images are evaluated; training varies around it. ``original`` leaves
            images as they are, for semantic tasks.
        patch_size: Side in pixels of the squares that a semantic task is trained on; null takes whole images.
        patch_balance: Share of the patches that are drawn around a pixel of a class that is drawn first, each class as
            often as any other; the rest lie anywhere.
        augment: ``photo`` flips training images left to right and varies their colors; ``overhead`` flips and turns
            them every way, for images without an up and down.
        scale_jitter: Training draws the short side between these multiples of ``image_size``.
        precision: ``auto`` takes bfloat16 where it is faster on this machine, else float32.
        eval_every: Iterations between evaluations; ``auto`` makes about five of them, 0 only the last one.
        workers: Processes that load images; ``auto`` depends on the cores.
        seed: Seed of everything that is drawn.
    """

    epochs: Annotated[float, Field(gt=0)] | None = None
    iterations: Annotated[int, Field(gt=0)] | None = None
    batch_size: int = Field(default=4, ge=1)
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    image_size: Literal["original"] | Annotated[int, Field(ge=32, le=4096)] = 640
    patch_size: Annotated[int, Field(ge=32, le=4096)] | None = None
    patch_balance: float = Field(default=0.5, ge=0, le=1)
    augment: Literal["photo", "overhead"] = "photo"
    scale_jitter: tuple[float, float] = (0.6, 1.2)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    eval_every: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("scale_jitter", mode="before")
    @classmethod
    def _pair(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        if self.epochs is not None and self.iterations is not None:
            raise ValueError("epochs and iterations are both set; keep one of them")
        low, high = self.scale_jitter
        if not 0.1 <= low <= high <= 4:
            raise ValueError(
                f"scale_jitter must be two factors between 0.1 and 4, the smaller first; found {low}, {high}"
            )
        return self


class Project(_Section):
    """One task a person can run.

    Attributes:
        name: Names the run folder; the project file's name unless given.
        task: ``instance``: one mask per object; ``semantic``: one class per pixel; ``panoptic``: both, objects of
            the things and regions of the stuff.
        data: Where the images and annotations lie.
        classes: Class names in the order of their ids; empty takes the labels found in the training part.
        things: Instead of ``classes``: those whose objects are told apart. Their ids come before those of the stuff.
        stuff: Instead of ``classes``: those that are regions, such as sky and road.
        model: The network.
        weights: ``auto``, ``scratch``, ``detectron2://...``, ``https://...`` or a file (relative to the
            project file's folder).
        weights_sha256: Expected SHA-256 of the file behind ``weights``.
        train: The schedule.
        tracking: ``none``, or ``wandb`` for a Weights & Biases dashboard; TensorBoard files are always written.
        detectron2: Raw Detectron2 keys, dotted or nested, set last.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    task: Literal["instance", "semantic", "panoptic"] = "instance"
    data: Data
    classes: tuple[str, ...] = ()
    things: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    model: Model = Model()
    weights: str = "auto"
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    train: Train = Train()
    tracking: Literal["none", "wandb"] = "none"
    detectron2: dict[str, Any] = Field(default_factory=dict)

    @field_validator("detectron2")
    @classmethod
    def _dotted(cls, value: dict[str, Any]) -> dict[str, Any]:
        return flatten(value)

    @field_validator("classes", "things", "stuff", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is named twice")
        return value

    @model_validator(mode="after")
    def _fits_task(self) -> Project:
        named = self.class_names
        both = sorted(set(self.things) & set(self.stuff))
        background = self.data.background
        if self.classes and (self.things or self.stuff):
            raise ValueError("classes stands beside things or stuff; keep one of them")
        if both:
            raise ValueError(f"{both[0]!r} is in things and in stuff")
        if self.task == "panoptic" and not (self.things and self.stuff):
            raise ValueError("a panoptic task needs things and stuff")
        if self.task == "instance" and self.stuff:
            raise ValueError("stuff is for semantic and panoptic tasks; an instance task has things alone")
        if background is not None and self.task == "instance":
            raise ValueError("data.background is for semantic and panoptic tasks")
        if background is not None and not named:
            raise ValueError("data.background needs the classes to be named")
        if background is not None and background not in (self.stuff or named):
            raise ValueError(f"data.background is {background!r}, which is not among {', '.join(self.stuff or named)}")
        if self.data.format == "label_images" and self.task != "semantic":
            raise ValueError("data.format: label_images is for semantic tasks: label images tell no objects apart")
        semantic_only = {"image_size": "original", "augment": "overhead"}
        said = [f"{key}: {value}" for key, value in semantic_only.items() if getattr(self.train, key) == value]
        said += [] if self.train.patch_size is None else ["patch_size"]
        if self.task != "semantic" and said:
            raise ValueError(f"train.{said[0]} is for semantic tasks")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """All class names in the order of their ids: ``classes``, or the things and then the stuff."""
        return self.classes or (*self.things, *self.stuff)

    def to_yaml(self) -> str:
        """The project with every default written out; ``load_project`` reads it back to an equal object."""
        plain = self.model_dump(mode="json")
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A project as read, with where it came from and which profile was merged.

    Attributes:
        project: The typed project, its relative paths made absolute.
        file: The project file.
        profile: The profile merged into it, or None.
    """

    project: Project
    file: Path
    profile: str | None

    def with_detectron2(self, raw: Mapping[str, Any]) -> LoadedProject:
        """The same project with raw Detectron2 keys laid over its ``detectron2`` section."""
        merged = self.project.detectron2 | dict(raw)
        return replace(self, project=self.project.model_copy(update={"detectron2": merged}))


@lru_cache
def preset_files() -> Mapping[str, Path]:
    """The file of each preset, by the name that ``model.preset`` takes, in the order of the names."""
    files = (path for path in PRESETS_FOLDER.rglob("*.yaml") if not path.stem.startswith("_"))
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def preset_names() -> list[str]:
    """Names that ``model.preset`` may take."""
    return list(preset_files())


def load_project(
    path: str | Path,
    *,
    profile: str | None = None,
    hardware: Literal["gpu", "cpu"] = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> LoadedProject:
    """Read a project file, merge the profile for the hardware, and check every key.

    Args:
        path: A ``projects/*.yaml``.
        profile: Name of a profile to merge; None takes the one named as ``hardware``, where the file has it.
        hardware: What the machine has.
        overrides: Dotted project keys and their values, ``{"train.iterations": 500}``, merged last.

    Raises:
        ProjectError: The file is missing or no YAML, or a key or value in it cannot be meant.
    """
    file = Path(path)
    raw = _read_yaml(file)
    raw = {key: _numbers(value) if key in _NUMERIC else value for key, value in raw.items()}
    profiles = _numbers(raw.pop("profiles", None) or {})
    if not isinstance(profiles, dict) or not all(isinstance(value, dict) for value in profiles.values()):
        raise ProjectError("profiles must map names to sections", file=file, place="profiles")
    for name, section in profiles.items():
        _refuse_unknown(section, Project, file, f"profiles.{name}")
    chosen = _choose_profile(profiles, profile, hardware, file)
    merged = _merge(raw, profiles[chosen]) if chosen else raw
    for key, value in (overrides or {}).items():
        _set_dotted(merged, key, value)
    merged.setdefault("name", file.stem)
    _refuse_unknown(merged, Project, file, "")
    try:
        project = Project.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, file) from None
    return LoadedProject(_absolute(project, file.resolve().parent), file, chosen)


def parse_overrides(tokens: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split trailing command-line words into project keys and raw Detectron2 keys.

    ``train.iterations=500`` is a project key, ``SOLVER.BASE_LR=0.001`` a Detectron2 key, and so is the pair
    of words ``SOLVER.BASE_LR 0.001``.

    Returns:
        Project overrides and Detectron2 overrides, each by dotted key, values read as YAML.

    Raises:
        ProjectError: A word is neither ``key=value`` nor the first of a pair.
    """
    project: dict[str, Any] = {}
    detectron2: dict[str, Any] = {}
    words = list(tokens)
    while words:
        word = words.pop(0)
        if "=" in word:
            key, text = word.split("=", 1)
        elif words and not word.startswith("-"):
            key, text = word, words.pop(0)
        else:
            raise ProjectError(
                f"{word!r} is no override", expected="key=value", hint="For example train.iterations=500."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            value = _number(value)
        (detectron2 if key[:1].isupper() else project)[key] = value
    return project, detectron2


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


_NUMERIC = ("train", "detectron2")
"""Sections whose texts that read as numbers are meant as numbers."""


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    return _number(value) if isinstance(value, str) and value[:1].isdigit() else value


def _number(text: str) -> str | float:
    """YAML 1.1 reads ``1e-3`` as text; a person means a number."""
    try:
        return float(text)
    except ValueError:
        return text


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = file.parent if file.parent.is_dir() else Path()
        there = sorted(path.name for path in folder.glob("*.yaml"))
        like = nearest(file.name, there)
        raise ProjectError(
            "no such project file", file=file, hint=f"Did you mean {folder / like}?" if like else None
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"cannot be read: {error}", file=file) from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        raise ProjectError(f"is no YAML: {getattr(error, 'problem', error)}", file=file, place=place) from None
    if not isinstance(raw, dict):
        raise ProjectError(
            "is no project", file=file, found=type(raw).__name__, expected="keys such as task, data and classes"
        )
    return raw


def _choose_profile(profiles: Mapping[str, Any], wanted: str | None, hardware: str, file: Path) -> str | None:
    if wanted is None:
        return hardware if hardware in profiles else None
    if wanted not in profiles:
        there = ", ".join(profiles) or "none"
        raise ProjectError(f"has no profile {wanted!r}", file=file, place="profiles", found=there)
    return wanted


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, section by section; ``epochs`` and ``iterations`` replace each other."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            _drop_rival(merged, key)
            merged[key] = copy.deepcopy(value)
    return merged


def _set_dotted(target: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(target.get(section), dict):
            target[section] = {}
        target = target[section]
    _drop_rival(target, last)
    target[last] = value


def _drop_rival(section: dict[str, Any], key: str) -> None:
    rival = {"epochs": "iterations", "iterations": "epochs"}.get(key)
    if rival:
        section.pop(rival, None)


def _section_of(annotation: Any) -> type[_Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, _Section):
        return annotation
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((hit for hit in map(_section_of, get_args(annotation)) if hit), None)
    return None


def _refuse_unknown(raw: Mapping[Any, Any], section: type[_Section], file: Path, place: str) -> None:
    fields = section.model_fields
    for key, value in raw.items():
        where = f"{place}.{key}" if place else str(key)
        if key not in fields:
            known = [*fields, "profiles"] if section is Project and not place else list(fields)
            like = nearest(str(key), known)
            hint = f"Did you mean {like!r}?" if like else f"Known here: {', '.join(known)}."
            raise ProjectError(f"unknown key {str(key)!r}", file=file, place=where, hint=hint)
        inner = _section_of(fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, file, where)


def _explained(error: ValidationError, file: Path) -> ProjectError:
    first = error.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"] if isinstance(part, int) or not _is_type_name(str(part))]
    place = ".".join(keys) or None
    if first["type"] == "missing":
        return ProjectError(f"{place} is missing", file=file)
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        return ProjectError(message, file=file, place=place)
    return ProjectError(message[:1].lower() + message[1:], file=file, place=place, found=repr(first["input"]))


def _is_type_name(part: str) -> bool:
    """Pydantic names the tried member of a union in an error's location; a person has not typed it."""
    return part in ("str", "float", "int", "bool", "function-before") or part.startswith(("literal[", "constrained"))


def _absolute(project: Project, folder: Path) -> Project:
    root = project.data.root.expanduser()
    data = project.data.model_copy(update={"root": (folder / root).resolve()})
    weights = project.weights
    if weights not in ("auto", "scratch") and "://" not in weights:
        weights = str((folder / Path(weights).expanduser()).resolve())
    return project.model_copy(update={"data": data, "weights": weights})
