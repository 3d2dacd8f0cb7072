"""The images of a check: generated ones of several sizes, and those of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from detectron2.config import CfgNode
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.label_maps import with_background
from d2tune.data.splits import load_splits, read_split
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, find_images, find_rasters
from d2tune.modeling.loaded import ModelDescription
from d2tune.project import Project, load_project
from d2tune.run_folder import RunFolder

Item = TypeVar("Item")

MOST_IMAGES = 200
"""Images of a person that are checked, evenly chosen from all."""

_SIZES_HW = ((240, 320), (320, 240), (257, 331))
_OBJECTS = 12
_LEAST_DEVIATION, _USUAL_DEVIATION = 1.5, 57.0


@dataclass(frozen=True, slots=True)
class CheckImages:
    """The images of a check.

    Attributes:
        generated: Arrays of three sizes with shapes in random colors, and a plain one.
        given: Images of a person: files, or those of ``dataset``.
        dataset: Their ground truth; None without.
        where: Where they come from, in words.
    """

    generated: Sequence[NDArray[Any]]
    given: Sequence[ImageLike]
    dataset: Dataset | None
    where: str


def check_images(model: ModelDescription, cfg: CfgNode, *, run: Path | None, chosen: Path | None) -> CheckImages:
    """The images to check with.

    Args:
        model: The model.
        cfg: Its config.
        run: The run folder that it was made of; None for a package.
        chosen: A folder, an image or annotations of a person; None takes the validation split of the run, if its data
            are there.

    Raises:
        DataError: The images that a person chose cannot be read.
    """
    project, classes = model.project, model.class_names
    generated = generated_images(cfg, is_raster=project.data.format == "label_images")
    if chosen is not None:
        dataset = _annotated(project, chosen, classes)
        if dataset is None:
            return CheckImages(generated, _files(project, chosen, stacked=is_stacked(model)), None, str(chosen))
        return CheckImages(generated, _some(dataset).images, _some(dataset), str(chosen))
    dataset = None if run is None else _validation_split(run, classes)
    if dataset is None:
        return CheckImages(generated, (), None, "generated images")
    return CheckImages(generated, _some(dataset).images, _some(dataset), "the validation split")


def generated_images(cfg: CfgNode, *, is_raster: bool) -> list[NDArray[Any]]:
    """Images ``(H, W, C)`` of three sizes with ellipses and boxes in random colors, and a plain one.

    Args:
        cfg: The config, whose means and deviations the values have.
        is_raster: Whether values are float32 instead of uint8.
    """
    random = np.random.default_rng(0)
    mean, deviation = (np.asarray(values, dtype=np.float64) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    if not is_raster:
        # some photo models are not normalized by the deviation
        deviation = np.where(deviation > _LEAST_DEVIATION, deviation, _USUAL_DEVIATION)
    canvases = [*(_shapes(size_hw, random) for size_hw in _SIZES_HW), np.zeros(_SIZES_HW[0])]
    images = [mean + canvas[:, :, None] * deviation for canvas in canvases]
    if is_raster:
        return [image.astype(np.float32) for image in images]
    return [np.clip(image, 0, 255).astype(np.uint8) for image in images]


def is_stacked(model: ModelDescription) -> bool:
    """Whether an image of a model is a folder of files."""
    return bool(model.record["input"].get("stacked", False))


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly chosen from all, in their order."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def _shapes(size_hw: tuple[int, int], random: np.random.Generator) -> NDArray[np.float64]:
    """Values around 0 with a deviation of about 1."""
    canvas = np.ascontiguousarray(random.normal(0, 0.3, size_hw))
    for number in range(_OBJECTS):
        center = tuple(int(random.integers(side)) for side in reversed(size_hw))
        axes = tuple(int(random.integers(6, 60)) for _ in range(2))
        value = float(random.normal(0, 1.2))
        if number % 2:
            cv2.ellipse(canvas, center, axes, float(random.integers(180)), 0, 360, value, -1)
        else:
            cv2.rectangle(canvas, center, (center[0] + axes[0], center[1] + axes[1]), value, -1)
    return canvas


def _some(dataset: Dataset) -> Dataset:
    """At most `MOST_IMAGES` images of a dataset with their annotations."""
    if len(dataset.images) <= MOST_IMAGES:
        return dataset
    return dataset.subset([image.id for image in evenly(dataset.images, MOST_IMAGES)])


def _validation_split(run: Path, classes: tuple[str, ...]) -> Dataset | None:
    try:
        project = load_project(RunFolder(run).project).project
        project = project if project.class_names else project.model_copy(update={"classes": classes})
        return load_splits(project, sample=False).val
    except DataError:
        return None


def _annotated(project: Project, chosen: Path, classes: tuple[str, ...]) -> Dataset | None:
    """The annotated images of a folder or file; None where it has no annotations."""
    chosen = chosen.resolve()
    if not chosen.exists():
        raise DataError("the image or folder does not exist", file=chosen, place="--check")
    keeps_format = project.data.format == "label_images"
    changes = {"root": chosen.parent} | ({} if keeps_format else {"format": "auto", "images": None})
    project = project.model_copy(update={"data": project.data.model_copy(update=changes)})
    try:
        dataset = read_split(project, chosen.name, labels=classes, restore_dir=None)
    except DataError:
        return None
    return with_background(dataset, project.data.background)


def _files(project: Project, chosen: Path, *, stacked: bool) -> list[Path]:
    is_raster = project.data.format == "label_images"
    _, files = find_rasters(chosen, stacked=stacked) if is_raster else find_images(chosen)
    return evenly(files, MOST_IMAGES)
