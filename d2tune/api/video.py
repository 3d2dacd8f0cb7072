"""Polygons through a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d2tune.api.arguments import MOST_TOLERANCE_PX, check_paths
from d2tune.errors import ProjectError, check_range

if TYPE_CHECKING:
    from d2tune.propagation.track import TrackResult


def track(
    source: str | Path,
    *,
    init: Sequence[str | Path] = (),
    out: str | Path | None = None,
    method: Literal["fine-tuning", "flow", "siammask"] = "fine-tuning",
    weights: str | None = None,
    tolerance_px: float = 1.0,
) -> TrackResult:
    """Carry the polygons of labeled frames to all other frames of a clip, as Labelme files to correct.

    References are the files of ``init`` and the Labelme files in the output folder that a person has saved without the
    flag ``prediction``, so that a corrected frame is a reference of the next call. A person's file is never
    overwritten, and an interrupted call goes on with the same arguments.

    Args:
        source: A video file, or a folder of frames in the order of their names.
        init: Labelme files of frames.
        out: The output folder; None is that of the frames, or for a video one with its name in the working folder.
            The frames of a video are written into it as JPEG files.
        method: ``fine-tuning`` of a small network on the references, ``flow``, optical flow without a network, or
            ``siammask``, a trained tracker.
        weights: Of ``fine-tuning``: a file with ImageNet weights of MobileNetV2; None takes torchvision's, and without
            a network connection none. Of ``siammask``: a tracking project for its latest run, a run folder, or a file
            of published weights.
        tolerance_px: How far outlines may move where they are simplified.

    Raises:
        D2TuneError: The clip, a Labelme file or the weights cannot be used.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.propagation.methods import method_named
        from d2tune.propagation.track import track as run

    check_paths(source=source, out=out, weights=weights)
    check_range(tolerance_px, place="--tolerance", least=0, most=MOST_TOLERANCE_PX)
    if weights is not None and method == "flow":
        raise ProjectError("--method flow has no weights", place="--weights", hint="Remove it.")
    chosen = method_named(method, weights=weights)
    return run(source, init, out=out, method=chosen, tolerance_px=tolerance_px)
