"""Prediction with a model on a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from d2tune.annotations.io.outputs import protected
from d2tune.errors import DataError
from d2tune.modeling.loaded import LoadedModel
from d2tune.run_folder import ensure_writable
from d2tune.runs.load import check_outside, default_folder, describe, load_model, predictor_of
from d2tune.runs.windows import WindowChoice
from d2tune.tasks import task_of
from d2tune.text import a_or_an
from d2tune.video.predict import VideoOptions, predict_video
from d2tune.video.reader import Source, source_of
from d2tune.video.result import VideoResult


def predict(
    model: str | Path,
    source: str | Path,
    *,
    out: str | Path | None = None,
    weights: str = "best",
    min_score: float | None = None,
    options: VideoOptions | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> VideoResult:
    """Predict on a video; see `video.predict.predict_video`.

    Args:
        model: A run folder, a package or an exported model.
        source: A file, the number of a camera, or an address of a stream.
        out: The output folder; None is a folder with the name of the video in ``predictions`` of the run, or in
            ``predictions_<package>`` in the working folder.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        min_score: Score from which an object begins a track, from 0 to 1; None takes the thresholds of the model.
        options: The options; their ``min_scores`` and ``background`` are replaced.
        window_px: Height and width in pixels of the overlapping windows in which frames are predicted, or ``auto``;
            None predicts on whole frames, or as the config of the model says.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.

    Raises:
        DataError: The video cannot be read, ``min_score`` is given and predictions have no scores, the model takes
            other images than those of videos, or an output would replace a file that is not of an earlier prediction.
        ProjectError: A number is outside of its range.
        RunError: The model cannot be used, or ``out`` cannot be written.
    """
    chosen = options or VideoOptions()
    chosen.check()
    video = source_of(source)
    folder = Path(out) if out is not None else default_folder(Path(model), "predictions") / video.stem
    described = describe(model)
    task = task_of(described.project)
    task.check_predicts_images()
    windows = WindowChoice(window_px=window_px, overlap=overlap, object_px=object_px)
    windows.check(described)
    if min_score is not None and not task.has_scores:
        raise DataError(
            f"predictions of {a_or_an(task.name)} model have no scores", place="--min-score", hint="Remove it."
        )
    check_outside(described, folder)
    ensure_writable(folder if folder.exists() else _existing(folder))
    loaded = windows.applied(load_model(model, weights=weights).with_min_score(min_score))
    least = [loaded.thresholds[name] for name in loaded.class_names] if task.has_scores else None
    lowest = None if least is None else min([chosen.low_score, *least])
    predictor = predictor_of(loaded, min_score=lowest)
    if predictor.reader.channels not in (None, 3):
        raise DataError(
            f"the model takes images of {predictor.reader.channels} channels, and videos have 3",
            file=video.name,
            hint="Predict on images instead.",
        )
    replaced = replace(chosen, min_scores=least, background=loaded.project.data.background)
    with protected(lambda: _inputs(loaded, video)):
        return predict_video(predictor, source, out=folder, options=replaced)


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists, so that a refused prediction leaves no empty folder."""
    return next((parent for parent in folder.parents if parent.exists()), Path())


def _inputs(loaded: LoadedModel, video: Source) -> list[Path]:
    return [*loaded.files, *([Path(video.text)] if video.kind == "file" else [])]
