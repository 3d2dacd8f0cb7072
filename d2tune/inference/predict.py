"""Predicting on images nobody has annotated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune import files
from d2tune.annotations.formats import labelme
from d2tune.annotations.io.outputs import beside, refuse_existing
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.types import Rle
from d2tune.data.mapper import inference_sample
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.inference.loop import detect, inference_mode
from d2tune.inference.predict_maps import find_rasters, predict_panoptic, predict_semantic, readable_photos
from d2tune.modeling.from_run import LoadedRun, load_run
from d2tune.project import LabelImages, load_project
from d2tune.report.sheets.contact_sheet import draw_instances
from d2tune.run_folder import RunFolder, ensure_writable

To = Literal["auto", "coco", "labelme", "csv"]
"""What predictions can be written as."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """What a prediction made.

    Attributes:
        out: The folder with the predictions and an image for each image, or with the Labelme files; or the CSV file.
        images: Images predicted on.
        instances: Instances found, of the score asked for or higher; of a semantic or panoptic run the regions.
        skipped: Images that were left out, with the reason.
        task: Of the run.
    """

    out: Path
    images: int
    instances: int
    skipped: tuple[str, ...]
    task: str = "instance"

    @property
    def summary(self) -> str:
        """What was found, in a line."""
        photos = f"{self.images} image{'' if self.images == 1 else 's'}"
        if self.task == "instance":
            return f"{self.instances} instances on {photos}: {self.out}"
        regions = f"{self.instances} regions on " if self.instances else "label maps of "
        return f"{regions}{photos}: {self.out}"


def predict(
    run: str | Path,
    source: str | Path | None,
    *,
    out: str | Path,
    weights: str = "best",
    min_score: float | None = None,
    to: To = "auto",
    tolerance_px: float = 1.0,
    force: bool = False,
) -> PredictionResult:
    """Predict on an image or on every image below a folder.

    What a semantic and a panoptic run write says `predict_maps`. Of an instance run, this writes ``predictions.json``,
    a COCO file with images, categories and annotations that carry a score, and an image with the instances drawn for
    each image. As Labelme, it writes one file for each image, to be corrected in Labelme and trained on; an image
    whose file is already there is left out.

    Args:
        run: The run folder.
        source: An image or a folder; None takes the images of the validation part.
        out: Where the results go: a folder; a name that ends in ``.csv`` is the CSV file itself.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Least score of an instance, from 0 to 1; None is 0.5.
        to: ``auto`` writes what the task has; ``coco``, of instances, the same; ``labelme`` outlines to be corrected;
            ``csv``, of a semantic run, the file that a competition takes.
        tolerance_px: How far the outlines in Labelme files may lie from those of the masks.
        force: Write Labelme files and a CSV also where there are some already.

    Raises:
        DataError: There are no images, the CSV is there already, or all have their Labelme files.
        RunError: The run cannot be used, or ``out`` cannot be written.
    """
    target = Path(out)
    task, pictured = _pictured(run)
    _check_task(task, to, min_score)
    if source is not None:
        root, photos = pictured(Path(source))
    if to == "csv":
        target = target if target.suffix.lower() == ".csv" else target / "submission.csv"
        refuse_existing([target], force=force)
    ensure_writable(target.parent if to == "csv" else target)
    loaded = load_run(run, weights=weights)
    if source is None:
        root, photos = _validation_images(loaded)
    skipped: list[str] = []
    if to == "labelme" and not force:
        photos, skipped = _unannotated(photos, root, target)
    if task != "instance":
        find = predict_semantic if task == "semantic" else predict_panoptic
        maps = find(loaded, root, photos, target, to=to, tolerance_px=tolerance_px, force=force)
        return PredictionResult(target, maps.images, maps.regions, (*skipped, *maps.skipped), task)
    classes = loaded.record["classes"]
    least = 0.5 if min_score is None else min_score
    images: list[Image] = []
    annotations: list[dict[str, Any]] = []
    with inference_mode(loaded.model):
        for path, name, image_rgb in readable_photos(photos, root, skipped):
            found = [one for one in _run(loaded, image_rgb, len(images) + 1) if one["score"] >= least]
            height_px, width_px = image_rgb.shape[:2]
            images.append(Image(len(images) + 1, name, width_px, height_px, path.absolute()))
            annotations.extend(_annotations(found, first_id=len(annotations) + 1))
            if to != "labelme":
                _draw(target / f"{name}.predicted.jpg", image_rgb, found, classes)
    if not images:
        raise DataError("no image could be read", file=root, found=skipped[0])
    if to == "labelme":
        labelme.write(_dataset(images, annotations, classes), target, tolerance_px=tolerance_px, force=force)
    else:
        _write_coco(target / "predictions.json", images, annotations, classes)
    return PredictionResult(target, len(images), len(annotations), tuple(skipped))


def _pictured(run: str | Path) -> tuple[str, Callable[[Path], tuple[Path, list[Path]]]]:
    """A run's task, and how its images are found."""
    folder = RunFolder(Path(run))
    record = folder.read_record()
    task = str(record.get("task", "instance"))
    data = load_project(folder.project).project.data
    if data.format != "label_images":
        return task, find_images
    return task, partial(_rasters_of, said=data.label_images, stacked=bool(record["input"].get("stacked")))


def _rasters_of(source: Path, *, said: LabelImages, stacked: bool) -> tuple[Path, list[Path]]:
    """As `find_rasters`; of a part of the data, with its images beside its label images, the images."""
    images, labels = source / said.images, source / said.labels
    return find_rasters(images if images.is_dir() and labels.is_dir() else source, stacked=stacked)


def _check_task(task: str, to: str, min_score: float | None) -> None:
    takes = {"instance": ("auto", "coco", "labelme"), "semantic": ("auto", "labelme", "csv")}.get(
        task, ("auto", "labelme")
    )
    if to not in takes:
        raise DataError(f"a {task} run does not write this", place="--to", found=to, expected=" or ".join(takes))
    if min_score is not None and task != "instance":
        raise DataError(f"a {task} run has no scores to choose by", place="--min-score", hint="Leave it out.")


def _unannotated(photos: Sequence[Path], root: Path, out: Path) -> tuple[list[Path], list[str]]:
    """The images without a Labelme file in ``out``, and a line for each that has one."""
    images = [Image(number, path.relative_to(root).as_posix(), 0, 0) for number, path in enumerate(photos)]
    places = beside(images, out, ".json")
    there = {number for number, place in places.items() if os.path.lexists(place)}
    if len(there) == len(photos):
        raise DataError(
            f"every image has its Labelme file already ({len(there)} in all)",
            file=places[0],
            hint="Write to another folder with --out, or overwrite them with --force.",
        )
    lines = [f"{path}: there is a {places[number].name} already" for number, path in enumerate(photos)]
    left = [path for number, path in enumerate(photos) if number not in there]
    return left, [lines[number] for number in sorted(there)]


def _dataset(images: Sequence[Image], annotations: Sequence[dict[str, Any]], classes: Sequence[str]) -> Dataset:
    categories = tuple(Category(number, name) for number, name in enumerate(classes, start=1))
    instances = []
    for row in annotations:
        height_px, width_px = row["segmentation"]["size"]
        segmentation = Rle(height_px, width_px, row["segmentation"]["counts"])
        place = row["id"], row["image_id"], row["category_id"]
        instances.append(Instance(*place, segmentation, tuple(row["bbox"]), row["area"], score=row["score"]))
    return Dataset(tuple(images), categories, tuple(instances))


def _write_coco(
    path: Path, images: Sequence[Image], annotations: Sequence[dict[str, Any]], classes: Sequence[str]
) -> None:
    content = {
        "images": [
            {"id": image.id, "file_name": image.file_name, "width": image.width_px, "height": image.height_px}
            for image in images
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        "annotations": annotations,
    }
    files.write_json(path, content, indent=None)


def find_images(source: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the images in order.

    Raises:
        DataError: There are none.
    """
    if source.is_file():
        return source.parent, [source]
    if not source.is_dir():
        raise DataError("no such image or folder", file=source)
    photos = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not photos:
        raise DataError("no images", file=source, expected=f"files ending in {', '.join(SUFFIXES)}")
    return source, photos


def _validation_images(loaded: LoadedRun) -> tuple[Path, list[Path]]:
    project = loaded.loaded.project
    if not project.class_names:
        project = project.model_copy(update={"classes": tuple(loaded.record["classes"])})
    dataset = load_splits(project, sample=False).val
    photos = [image.path for image in dataset.images if image.path is not None]
    root = dataset.image_root or project.data.root
    inside = all(path.is_relative_to(root) for path in photos)
    return (root if inside else Path(photos[0].anchor)), photos


def _run(loaded: LoadedRun, image_rgb: NDArray[np.uint8], image_id: int) -> list[dict[str, Any]]:
    cfg = loaded.cfg
    sample = inference_sample(
        image_rgb if cfg.INPUT.FORMAT == "RGB" else image_rgb[:, :, ::-1],
        short_side_px=cfg.INPUT.MIN_SIZE_TEST,
        max_side_px=cfg.INPUT.MAX_SIZE_TEST,
    )
    category_ids = list(range(1, len(loaded.record["classes"]) + 1))
    return detect(loaded.model, sample, image_id, category_ids)


def _annotations(found: list[dict[str, Any]], *, first_id: int) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(found, start=first_id):
        rle = {**one["segmentation"], "counts": one["segmentation"]["counts"].encode()}
        yield {"id": number, "iscrowd": 0, "area": float(mask_utils.area(rle)), **one}


def _draw(path: Path, image_rgb: NDArray[np.uint8], found: list[dict[str, Any]], classes: list[str]) -> None:
    masks = [
        mask_utils.decode({**one["segmentation"], "counts": one["segmentation"]["counts"].encode()}).astype(bool)
        for one in found
    ]
    drawn = draw_instances(
        image_rgb,
        np.stack(masks) if masks else np.zeros((0, *image_rgb.shape[:2]), dtype=bool),
        [classes[one["category_id"] - 1] for one in found],
        scores=[one["score"] for one in found],
    )
    encoded = cv2.imencode(".jpg", drawn[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    files.write_bytes(path, encoded.tobytes())
