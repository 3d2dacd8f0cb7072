"""``d2tune predict MODEL VIDEO``: a model's predictions on a video, with objects that keep their identity."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from d2tune.cli.shared import given
from d2tune.cli.windows import window_arguments
from d2tune.errors import ProjectError

_OF_VIDEOS = {"video": "--video", "realtime": "--realtime", "lost_s": "--lost-seconds"}
_OF_BOTH = ("out", "weights", "min_score", "mm_per_px")
_OF_COMMAND = ("run_folder", "source", "debug", "run", "command", "command_name", "runs_network", "repeated")
_FLAGS = {"min_area_px2": "--min-area"}
"""Options whose name does not follow from that of their argument."""


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for videos."""
    group = parser.add_argument_group("a video, a camera or a stream (docs/video.md)")
    group.add_argument(
        "--video",
        choices=["mp4", "webm", "none"],
        help="the drawn video: mp4 for players (default), webm for browsers, which takes longer, or none",
    )
    group.add_argument(
        "--realtime",
        action="store_true",
        help="always take the newest frame, and drop those that came while the model was busy",
    )
    group.add_argument(
        "--lost-seconds",
        type=float,
        dest="lost_s",
        metavar="S",
        help="how long an object that is not detected keeps its track (default: 1)",
    )


def names_video(sources: Sequence[str]) -> bool:
    """Whether sources are a video.

    Raises:
        ProjectError: A video is named beside other sources.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.inference.sources import is_video

    videos = [source for source in sources if is_video(source)]
    if videos and len(sources) > 1:
        raise ProjectError(
            "a video is predicted on alone", place=videos[0], hint="Call the command once for each video."
        )
    return bool(videos)


def refuse_video_options(options: argparse.Namespace) -> None:
    """Refuse options for videos where images are predicted on.

    Raises:
        ProjectError: One was given.
    """
    for option in map(_OF_VIDEOS.__getitem__, given(options, *_OF_VIDEOS)):
        raise ProjectError(f"{option} goes with a video, a camera or a stream", hint="Remove it.")


def run_video(options: argparse.Namespace) -> int:
    """Predict on a video, and print what was written; what a person may not expect goes to the standard error."""
    from d2tune import api

    for name in given(options, *sorted(set(vars(options)).difference(_OF_VIDEOS, _OF_BOTH, _OF_COMMAND))):
        option = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        raise ProjectError(f"{option} goes with images, not with a video", hint="Remove it.")
    result = api.predict_video(
        options.run_folder, options.source[0], **given(options, *_OF_BOTH, *_OF_VIDEOS), **window_arguments(options)
    )
    for line in result.notes:
        print(f"note: {line}", file=sys.stderr)
    print(result.summary)
    return 130 if result.is_interrupted else 0
