"""Prediction with a finished run, written to files."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.io.outputs import protected
from d2tune.data.splits import load_splits
from d2tune.errors import DataError, ProjectError, check_range
from d2tune.evaluation.summaries import lower_scores_in_words
from d2tune.inference.images import find_images, find_rasters
from d2tune.inference.writers.base import Images, Writer, WriterOptions
from d2tune.inference.writers.journal import Journal, fingerprint, journal_path
from d2tune.modeling.loaded import LoadedModel
from d2tune.project import Project
from d2tune.run_folder import ensure_writable
from d2tune.runs.load import check_has_data, describe, load_model, predictor_of
from d2tune.runs.most_uncertain import CSV_NAME, check_most_uncertain, select
from d2tune.tasks import TASKS, Task

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
        min_score: Lowest score of written instances; of several thresholds, the highest.
        lower: Number of instances below it.
        highest_lower: Their highest score; 0 where there are none.
        selection: How the images were chosen, on a line; empty if all were predicted on.
    """

    out: Path
    images: int
    instances: int
    skipped: tuple[str, ...]
    task: str = "instance"
    min_score: float = DEFAULT_MIN_SCORE
    lower: int = 0
    highest_lower: float = 0.0
    selection: str = ""

    @property
    def summary(self) -> str:
        """The numbers and the output folder on a line; where no instance was written, whether lower scores exist."""
        images = f"{self.images} image{'' if self.images == 1 else 's'}"
        noun = TASKS[self.task].predictions_noun
        counted = f"{self.instances} {noun} on " if self.instances or TASKS[self.task].has_scores else "label maps of "
        line = f"{counted}{images}: {self.out}"
        line += f"\n{self.selection}: {self.out / CSV_NAME}" if self.selection else ""
        if self.instances or not self.lower:
            return line
        words = lower_scores_in_words("instance", self.lower, self.highest_lower, least=self.min_score)
        return f"{line}\n{words[0].upper()}{words[1:]}; write them with --min-score."


def predict(
    run: str | Path,
    source: str | Path | None,
    *,
    out: str | Path,
    weights: str = "best",
    min_score: float | None = None,
    to: str = "auto",
    tolerance_px: float = 1.0,
    min_area_px2: float | None = None,
    force: bool = False,
    most_uncertain: int | None = None,
    mm_per_px: float | None = None,
) -> PredictionResult:
    """Predict on an image, or on all images of a folder and its subfolders, and write the predictions.

    An instance run writes ``predictions.json``, a COCO file with images, categories and annotations with scores. A
    semantic run writes label maps to ``labels``, a panoptic run writes ``panoptic.json`` with its PNGs in ``panoptic``.
    For each image a copy with drawn predictions is written as well. ``labelme`` writes a Labelme file for each image,
    for a person to correct; an image whose file exists is skipped.

    Files of an earlier prediction are replaced, others never are. An interrupted call leaves what is finished, and the
    same call goes on from there, with the same files in the end.

    Args:
        run: The run folder, a package or an exported model.
        source: An image or a folder; None takes the images of the validation split.
        out: The output folder; for ``csv``, a path that ends in ``.csv`` is the file.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of written instances, from 0 to 1; None takes the thresholds of the model, which are 0.5
            for a run.
        to: Keys of `Task.formats` with commas between them, or ``auto`` for the usual format of the task.
        tolerance_px: Largest distance of outlines in Labelme files from the outlines of the masks.
        min_area_px2: Smallest area of a region in Labelme files; None is 25.
        force: Whether Labelme files and a CSV that an earlier prediction wrote, if they were not changed, are replaced.
        most_uncertain: For ``labelme``, how many images to write: those that the model is most unsure of, see
            `most_uncertain.select`; None writes all images.
        mm_per_px: For ``measurements``, the millimeters that a pixel stands for; None measures in pixels alone.

    Raises:
        DataError: There are no images, no image can be read, an output would replace a file that is not of an earlier
            prediction, or all images have a Labelme file.
        ProjectError: A number is outside of its range.
        RunError: The run cannot be used, or ``out`` cannot be written.
        KeyboardInterrupt: The command was interrupted; the text says how to go on.
    """
    check_range(min_score or 0.0, place="--min-score", least=0, most=1)
    check_range(tolerance_px, place="--tolerance-px", least=0)
    check_range(min_area_px2 or 0.0, place="--min-area", least=0)
    check_most_uncertain(most_uncertain, to)
    _check_scale(mm_per_px, to)
    described = describe(run)
    project, record = described.project, described.record
    task = TASKS[str(record.get("task", project.task))]
    task.check_output(to, min_score, project)
    target = Path(out)
    images = None
    if source is not None:
        images = _images_in(Path(source), project, bool(record["input"].get("stacked")), skip=target)
    if to == "csv":
        target = target if target.suffix.lower() == ".csv" else target / "submission.csv"
    ensure_writable(target.parent if to == "csv" else target)
    loaded = load_model(run, weights=weights).with_min_score(min_score)
    options = WriterOptions(
        tolerance_px=tolerance_px,
        min_area_px2=min_area_px2,
        force=force,
        mm_per_px=mm_per_px,
    )
    images = images or _validation_images(loaded)
    if most_uncertain is None:
        return _Prediction(loaded, task, images, target, to, options).run()
    predictor = predictor_of(loaded)
    selection = select(loaded, task, predictor, images, target, count=most_uncertain, force=force)
    result = _Prediction(loaded, task, selection.images, target, to, options).run()
    selection.journal.remove()
    return replace(result, skipped=(*selection.skipped, *result.skipped), selection=selection.note)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """A prediction whose arguments are checked."""

    loaded: LoadedModel
    task: Task
    images: Images
    target: Path
    to: str
    options: WriterOptions

    def run(self) -> PredictionResult:
        """Predict on the images that are not finished, and write everything."""
        with Journal(journal_path(self.target, is_file=self.to == "csv"), self._key()) as journal:
            replaces = self.options.force or journal.continues
            skipped = self._with_labelme_file(journal.done, replaces=replaces) if self.to == "labelme" else {}
            finished = frozenset(journal.done | set(skipped))
            options = replace(self.options, finished=finished, force=replaces)
            predictor = predictor_of(self.loaded)
            with (
                protected(self._inputs),
                self.task.writer(self.to, self.target, self.images, predictor, options, self.loaded.project) as writer,
            ):
                errors = self._write(writer, journal, skipped)
                writer.finish()
                journal.remove()
                return PredictionResult(
                    self.target,
                    writer.written,
                    errors.instances,
                    (*skipped.values(), *errors.lines),
                    self.task.name,
                    max(self.loaded.thresholds.values()),
                    writer.lower,
                    writer.highest_lower,
                )

    def _write(self, writer: Writer[Any, Any], journal: Journal, skipped: Collection[int]) -> _Counts:
        """Add all images in order, from the journal where they are finished."""
        total = len(self.images.paths)
        done = {index for index in journal.done if all(os.path.lexists(path) for path in writer.files_of(index))}
        counts = _Counts([], 0)
        at = 0
        try:
            with closing(writer.predictions(done | set(skipped))) as predictions:  # type: ignore[type-var]
                for at in range(total):
                    if at in skipped:
                        continue
                    entry = journal.entry(at) if at in done else next(predictions)
                    if isinstance(entry, DataError):
                        counts.lines.append(entry.one_line())
                        continue
                    if at not in done:
                        journal.add(at, entry)
                    counts.instances += writer.add(at, entry)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted after {at} of {total} images; the same command goes on from there"
            ) from None
        if not writer.written:
            raise DataError("no image could be read", file=self.images.root, found=counts.lines[0])
        return counts

    def _with_labelme_file(self, done: Collection[int], *, replaces: bool) -> dict[int, str]:
        """A line by index for each image whose Labelme file stays.

        Args:
            done: Indices of the finished images of an interrupted call.
            replaces: Whether files of earlier predictions are replaced, if they were not changed.
        """
        outputs, own = self.images.output_files(self.target, ".json"), OwnFiles()
        lines: dict[int, str] = {}
        for index, (path, output) in enumerate(zip(self.images.paths, outputs, strict=True)):
            if index in done or not os.path.lexists(output):
                continue
            if replaces and own.is_unchanged(output, PREDICTIONS):
                continue
            exists = "is not from a prediction, or was changed since" if replaces else "already exists"
            lines[index] = f"{path}: {output.name} {exists}"
        if len(lines) == len(outputs):
            raise DataError(
                f"all {len(lines)} images already have a Labelme file",
                file=outputs[0],
                hint="Write to another folder with --out"
                + (
                    "; files that are not from a prediction, or were changed since, are not overwritten."
                    if replaces
                    else ", or overwrite those of earlier predictions with --force."
                ),
            )
        return lines

    def _inputs(self) -> list[Path]:
        """The files that are read."""
        return [*self.images.paths, *self.loaded.files]

    def _key(self) -> str:
        """A hash of everything that decides the content of the files."""
        root, options = self.images.root, self.options
        stats = [path.stat() if path.exists() else None for path in self.images.paths]
        return fingerprint(
            {
                "weights": self.loaded.weights_sha256,
                "config": self.loaded.config_sha256,
                "project": self.loaded.project_sha256,
                "to": self.to,
                "options": [
                    dict(self.loaded.thresholds),
                    options.tolerance_px,
                    options.min_area_px2,
                    options.mm_per_px,
                ],
                "root": str(root.absolute()),
                "images": [
                    [self.images.name(index), stat and [stat.st_size, stat.st_mtime_ns]]
                    for index, stat in enumerate(stats)
                ],
                "ids": [list(self.images.image_ids), dict(self.images.category_ids)],
            }
        )


@dataclass(slots=True)
class _Counts:
    """What was written.

    Attributes:
        lines: A line for each image that cannot be read.
        instances: Number of instances or regions.
    """

    lines: list[str]
    instances: int


def _check_scale(mm_per_px: float | None, to: str) -> None:
    if mm_per_px is None:
        return
    if "measurements" not in to.split(","):
        raise ProjectError("--scale goes with --to measurements", hint="Remove it, or add --to measurements.")
    check_range(mm_per_px, place="--scale", above=0, most=1e6)


def _images_in(source: Path, project: Project, stacked: bool, *, skip: Path) -> Images:
    """The images of a source; for a split of label images, those in its folder of images."""
    if project.data.format != "label_images":
        return Images(*find_images(source, skip=skip))
    keys = project.data.label_images
    images, labels = source / keys.images, source / keys.labels
    folder = images if images.is_dir() and labels.is_dir() else source
    return Images(*find_rasters(folder, stacked=stacked, skip=skip))


def _validation_images(loaded: LoadedModel) -> Images:
    check_has_data(loaded, hint="Name an image or a folder of images.")
    project = loaded.project
    if not project.class_names:
        project = project.model_copy(update={"classes": tuple(loaded.record["classes"])})
    dataset = load_splits(project, sample=False).val
    with_file = [image for image in dataset.images if image.path is not None]
    paths = [image.path for image in with_file if image.path is not None]
    root = dataset.image_root or project.data.root
    inside = all(path.is_relative_to(root) for path in paths)
    image_ids, category_ids = dataset.source_image_ids(), dataset.source_category_ids()
    return Images(
        root if inside else Path(paths[0].anchor),
        paths,
        image_ids=[image_ids[image.id] for image in with_file],
        category_ids={category.name: category_ids[category.id] for category in dataset.categories},
    )
