"""Prediction with a finished run, written to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from d2tune.annotations.io.outputs import refuse_existing
from d2tune.data.splits import load_splits
from d2tune.errors import DataError
from d2tune.inference.images import find_images, find_rasters
from d2tune.inference.writers.base import Images, WriterOptions
from d2tune.modeling.from_run import LoadedRun, load_run
from d2tune.project import Project, load_project
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.runs.load import predictor_of
from d2tune.tasks import TASKS, Task

To = Literal["auto", "coco", "labelme", "csv", "label_maps", "coco_panoptic"]
"""The formats of predictions; `Task.writers` has those of a task."""

DEFAULT_MIN_SCORE = 0.5


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The result of a prediction.

    Attributes:
        out: The folder with the predictions and drawn images, the folder with the Labelme files, or the CSV file.
        images: Number of images with predictions.
        instances: Number of instances with at least the lowest score; for semantic and panoptic runs, of regions.
        skipped: A line for each skipped image, with the reason.
        task: Name of the task of the run.
    """

    out: Path
    images: int
    instances: int
    skipped: tuple[str, ...]
    task: str = "instance"

    @property
    def summary(self) -> str:
        """The numbers and the output folder on a line."""
        images = f"{self.images} image{'' if self.images == 1 else 's'}"
        noun = TASKS[self.task].predictions_noun
        counted = f"{self.instances} {noun} on " if self.instances or TASKS[self.task].has_scores else "label maps of "
        return f"{counted}{images}: {self.out}"


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
    """Predict on an image, or on all images of a folder and its subfolders, and write the predictions.

    An instance run writes ``predictions.json``, a COCO file with images, categories and annotations with scores. A
    semantic run writes label maps to ``labels``, a panoptic run writes ``panoptic.json`` with its PNGs in ``panoptic``.
    For each image a copy with drawn predictions is written as well. ``labelme`` writes a Labelme file for each image,
    for a person to correct; an image whose file exists is skipped.

    Args:
        run: The run folder.
        source: An image or a folder; None takes the images of the validation split.
        out: The output folder; for ``csv``, a path that ends in ``.csv`` is the file.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of written instances, from 0 to 1; None is 0.5.
        to: A key of `Task.writers`, or ``auto`` for the first of them.
        tolerance_px: Largest distance of outlines in Labelme files from the outlines of the masks.
        force: Whether existing Labelme files and an existing CSV are overwritten.

    Raises:
        DataError: There are no images, no image can be read, the CSV exists, or all images have a Labelme file.
        RunError: The run cannot be used, or ``out`` cannot be written.
    """
    folder = RunFolder(Path(run))
    record = folder.read_record()
    task = TASKS[str(record.get("task", "instance"))]
    project = load_project(folder.project).project
    task.check_output(to, min_score, project)
    images = None if source is None else _images_in(Path(source), project, bool(record["input"].get("stacked")))
    target = Path(out)
    if to == "csv":
        target = target if target.suffix.lower() == ".csv" else target / "submission.csv"
        refuse_existing([target], force=force)
    ensure_writable(target.parent if to == "csv" else target)
    loaded = load_run(run, weights=weights)
    images = images or _validation_images(loaded)
    skipped: list[str] = []
    if to == "labelme" and not force:
        images, skipped = _without_labelme_file(images, target)
    options = WriterOptions(
        min_score=DEFAULT_MIN_SCORE if min_score is None else min_score, tolerance_px=tolerance_px, force=force
    )
    return _write(loaded, task, images, target, to=to, options=options, skipped=skipped)


def _write(
    loaded: LoadedRun,
    task: Task,
    images: Images,
    target: Path,
    *,
    to: str,
    options: WriterOptions,
    skipped: list[str],
) -> PredictionResult:
    counted, errors = 0, []
    with task.writer(to, target, images, predictor_of(loaded), options, loaded.project) as writer:
        for index, kept in enumerate(writer.predictions()):
            if isinstance(kept, DataError):
                errors.append(kept.one_line())
            else:
                counted += writer.add(index, kept)
        if not writer.written:
            raise DataError("no image could be read", file=images.root, found=errors[0])
        writer.finish()
        return PredictionResult(target, writer.written, counted, (*skipped, *errors), task.name)


def _images_in(source: Path, project: Project, stacked: bool) -> Images:
    """The images of a source; for a split of label images, those in its folder of images."""
    if project.data.format != "label_images":
        return Images(*find_images(source))
    keys = project.data.label_images
    images, labels = source / keys.images, source / keys.labels
    return Images(*find_rasters(images if images.is_dir() and labels.is_dir() else source, stacked=stacked))


def _validation_images(loaded: LoadedRun) -> Images:
    project = loaded.project
    if not project.class_names:
        project = project.model_copy(update={"classes": tuple(loaded.record["classes"])})
    dataset = load_splits(project, sample=False).val
    paths = [image.path for image in dataset.images if image.path is not None]
    root = dataset.image_root or project.data.root
    inside = all(path.is_relative_to(root) for path in paths)
    return Images(root if inside else Path(paths[0].anchor), paths)


def _without_labelme_file(images: Images, out: Path) -> tuple[Images, list[str]]:
    """The images without a Labelme file in ``out``, and a line for each image with a file."""
    outputs = images.output_files(out, ".json")
    exist = [os.path.lexists(path) for path in outputs]
    if all(exist):
        raise DataError(
            f"all {len(exist)} images already have a Labelme file",
            file=outputs[0],
            hint="Write to another folder with --out, or overwrite them with --force.",
        )
    rows: Sequence[tuple[Path, Path, bool]] = list(zip(images.paths, outputs, exist, strict=True))
    lines = [f"{path}: {output.name} already exists" for path, output, exists in rows if exists]
    return images.only([index for index, (_, _, exists) in enumerate(rows) if not exists]), lines
