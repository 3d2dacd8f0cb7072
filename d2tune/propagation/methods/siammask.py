"""Objects followed by a trained SiamMask, which has not seen them before: a tracking run, or the published weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2tune.annotations.model.types import Mask
from d2tune.errors import ProjectError, RunError, WeightsError
from d2tune.inference.loop import inference_mode
from d2tune.inference.object_tracker import ObjectTracker, Tracked, TrackerOptions, resolved
from d2tune.modeling.build import ChosenWeights, build_model
from d2tune.modeling.config import preset_config
from d2tune.modeling.siammask import published
from d2tune.modeling.weights import find, read_state_dict
from d2tune.propagation.methods.base import Frames, Propagated, Reference
from d2tune.propagation.methods.identity import identity_of
from d2tune.propagation.methods.order import steps_of
from d2tune.runs.latest import run_folder
from d2tune.runs.load import load_model
from d2tune.tasks import task_of

_PUBLISHED_PRESET = "siammask_r50"
_UNKNOWN = 0.5
"""Confidence that an object is absent which the reference that a frame is followed from does not show."""


class SiamMaskTracking:
    """Follows each object from the nearest reference, forward and back.

    Args:
        weights: The folder of a run of a tracking project, its project file for its latest run, or a file of SiamMask's
            published weights.

    Raises:
        ProjectError: No weights are named, or the project file is invalid.
        RunError: The run is of another task, or the project has no finished run.
        WeightsError: The file has other weights.
    """

    name = "siammask"

    def __init__(self, weights: str | None) -> None:
        if weights is None:
            raise ProjectError(
                "--method siammask needs a trained model",
                place="--weights",
                expected="a project with task: tracking, a run of one, or a file of SiamMask's published weights",
                hint="See docs/siammask.md.",
            )
        path = run_folder(weights)
        self._model, self._options = _of_run(path) if path.is_dir() else _of_file(path)
        self.identity = identity_of(self._model.state_dict())

    def propagate(
        self, frames: Frames, references: Sequence[Reference], *, finished: Mapping[int, Mapping[int, Mask]]
    ) -> Iterator[Propagated]:
        """See `PropagationMethod`."""
        objects = sorted({number for reference in references for number in reference.masks})
        given = {reference.index: reference.masks for reference in references}
        tracker = ObjectTracker(self._model, self._options)
        with inference_mode(self._model):
            for previous, index in steps_of(len(frames), list(given)):
                if previous in given:
                    tracker = ObjectTracker(self._model, self._options)
                    tracker.start(frames[previous], given[previous])
                tracked = tracker.step(frames[index])
                if index in finished:
                    continue
                masks = resolved(tracked, threshold=self._options.mask_threshold)
                confidences = {
                    number: confidence(tracked[number]) if number in tracked else _UNKNOWN for number in objects
                }
                yield Propagated(index, {number: mask for number, mask in masks.items() if mask.any()}, confidences)


def confidence(tracked: Tracked) -> float:
    """The score of the place of an object, times how far the pixels around its mask are from undecided."""
    around = tracked.probability[tracked.probability > 0.05]
    clear = float(np.abs(2 * around - 1).mean()) if around.size else 0.0
    return tracked.score * clear


def _of_run(folder: Path) -> tuple[Any, TrackerOptions]:
    loaded = load_model(folder)
    task = task_of(loaded.project)
    if not task.follows_objects:
        raise RunError(
            "the model does not follow objects",
            file=folder,
            found=f"task: {task.name}",
            expected="the run of a project with task: tracking",
        )
    return loaded.model, TrackerOptions.of_config(loaded.cfg)


def _of_file(path: Path) -> tuple[Any, TrackerOptions]:
    file = find(str(path))
    state = read_state_dict(path)
    if not published.is_published(state):
        raise WeightsError(
            "these are not SiamMask's published weights",
            file=path,
            found=f"{next(iter(state))!r}, ...",
            expected="names such as 'rpn_model.cls.conv_kernel.0.weight'",
            hint="Name the folder of a run to use a model that d2tune trained.",
        )
    cfg = preset_config(_PUBLISHED_PRESET)
    cfg.MODEL.DEVICE = "cpu"
    model, _ = build_model(cfg, ChosenWeights(file, str(path)), state)
    return model.eval(), TrackerOptions.of_config(cfg)
