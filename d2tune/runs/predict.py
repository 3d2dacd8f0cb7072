"""Prediction with a model, written to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from d2tune.errors import ProjectError, check_range
from d2tune.inference.sources import is_video
from d2tune.inference.writers.base import WriterOptions
from d2tune.run_folder import ensure_writable
from d2tune.runs.load import check_outside, describe, load_model, predictor_of
from d2tune.runs.most_uncertain import check_most_uncertain, select
from d2tune.runs.prediction.images import source_images, validation_images
from d2tune.runs.prediction.job import Prediction, Workers
from d2tune.runs.prediction.result import PredictionResult
from d2tune.runs.prediction.shards import Shard
from d2tune.runs.windows import WindowChoice, warn_of_large_images
from d2tune.tasks import TASKS

__all__ = ["PredictionResult", "predict"]


def predict(
    run: str | Path,
    source: str | Path | Sequence[str | Path] | None,
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
    shard: str | None = None,
    ray: str | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> PredictionResult:
    """Predict on images, and write the predictions.

    An instance run writes ``predictions.json``, a COCO file with images, categories and annotations with scores. A
    semantic run writes label maps to ``labels``, a panoptic run writes ``panoptic.json`` with its PNGs in ``panoptic``.
    For each image a copy with drawn predictions is written as well. ``labelme`` writes a Labelme file for each image,
    for a person to correct; an image whose file exists is skipped.

    Files of an earlier prediction are replaced, others never are. An interrupted call leaves what is finished, and the
    same call goes on from there, with the same files in the end.

    Args:
        run: The run folder, a package or an exported model.
        source: Images, folders, patterns and lists, see `sources.find_source_images`; one or several. None takes the
            images of the validation split.
        out: The output folder; for ``csv``, a path that ends in ``.csv`` is the file.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of written instances, from 0 to 1; None takes the thresholds of the model, which are 0.5
            for a run.
        to: Keys of `Task.formats` with commas between them, or ``auto`` for the usual format of the task.
        tolerance_px: Largest distance of outlines in Labelme files from the outlines of the masks.
        min_area_px2: Smallest area of a region in Labelme files, None is 25; and of an object that is measured, cut
            out or numbered in a PNG, None writes all.
        force: Whether Labelme files and a CSV that an earlier prediction wrote, if they were not changed, are replaced.
        most_uncertain: For ``labelme``, how many images to write: those that the model is most unsure of, see
            `most_uncertain.select`; None writes all images.
        mm_per_px: For ``measurements``, the millimeters that a pixel stands for; None measures in pixels alone.
        shard: ``2/8`` predicts on the second of eight shards of the images, and writes what `merge` joins; None
            predicts on all.
        ray: Address of a Ray cluster that predicts, see `ray_workers.RayWorkers`; None predicts in this process.
        window_px: Height and width in pixels of the overlapping windows in which images are predicted, or ``auto``;
            None predicts on whole images, or as the config of the model says.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.

    Raises:
        MachineError: Ray is not installed.
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
    task = TASKS[str(described.record.get("task", described.project.task))]
    task.check_output(to, min_score, described.project)
    windows = WindowChoice(window_px=window_px, overlap=overlap, object_px=object_px)
    windows.check(described)
    if windows.window_px is not None and most_uncertain is not None:
        raise ProjectError("--most-uncertain looks at whole images", hint="Remove --windows and --window-px.")
    target = Path(out)
    _check_places(shard, ray, most_uncertain)
    chosen_shard = _shard_of(shard, target)
    workers = _workers(ray)
    sources = [source] if isinstance(source, str | Path) else source
    for video in filter(is_video, sources or ()):
        hint = "Use `d2tune.predict_video`, or the command with the video alone."
        raise ProjectError("a video is not predicted on as images", place=str(video), hint=hint)
    images, missing = source_images(sources, described, skip=target) if sources else (None, ())
    is_file = task.chosen(to) == ["csv"] and chosen_shard is None
    if is_file and target.suffix.lower() != ".csv":
        target = target / "submission.csv"
    check_outside(described, target)
    ensure_writable(target.parent if is_file else target)
    loaded = windows.applied(load_model(run, weights=weights).with_min_score(min_score))
    options = WriterOptions(tolerance_px=tolerance_px, min_area_px2=min_area_px2, force=force, mm_per_px=mm_per_px)
    images = images or validation_images(loaded)
    warn_of_large_images(loaded, images.paths)
    prediction = Prediction(loaded, task, images, target, to, options, missing, chosen_shard, workers)
    if most_uncertain is None:
        return prediction.run()
    predictor = predictor_of(loaded)
    selection = select(loaded, task, predictor, images, target, count=most_uncertain, force=force)
    result = replace(prediction, images=selection.images).run()
    selection.journal.remove()
    return replace(result, skipped=(*selection.skipped, *result.skipped), selection=selection.note)


def _check_places(shard: str | None, ray: str | None, most_uncertain: int | None) -> None:
    """Refuse several ways of dividing images."""
    if shard is not None and ray is not None:
        raise ProjectError("--ray divides the images itself", hint="Remove --shard.")
    for option, value in (("--shard", shard), ("--ray", ray)):
        if value is not None and most_uncertain is not None:
            raise ProjectError("--most-uncertain looks at all images in one process", hint=f"Remove {option}.")


def _workers(address: str | None) -> Workers | None:
    if address is None:
        return None
    from d2tune.runs.prediction.ray_workers import RayWorkers

    workers = RayWorkers(address)
    workers.check()
    return workers


def _shard_of(text: str | None, target: Path) -> Shard | None:
    if text is None:
        return None
    shard = Shard.parse(text)
    if target.suffix.lower() == ".csv":
        hint = "Name a folder; `d2tune merge` writes the CSV."
        raise ProjectError("a shard is written to a folder", place="--out", found=str(target), hint=hint)
    return shard


def _check_scale(mm_per_px: float | None, to: str) -> None:
    if mm_per_px is None:
        return
    if "measurements" not in map(str.strip, to.split(",")):
        raise ProjectError("--scale goes with --to measurements", hint="Remove it, or add --to measurements.")
    check_range(mm_per_px, place="--scale", above=0, most=1e6)
