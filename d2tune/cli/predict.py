"""``d2tune predict``: a model's predictions on images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from d2tune.cli.predict_video import add_video_arguments, names_video, refuse_video_options, run_video
from d2tune.cli.shared import add_command, given, name, path, refuse_unless
from d2tune.cli.windows import add_window_arguments, window_arguments

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands

_OF_LABELME = {"tolerance_px": "--tolerance-px", "most_uncertain": "--most-uncertain"}
_OF_OBJECTS = {"min_area_px2": "--min-area"}
_HAVE_OBJECTS = ("labelme", "measurements", "masks", "cutouts")
_OTHERS = ("source", "out", "weights", "min_score", "to", "force", "mm_per_px", "shard", "ray")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "predict", run, "predict on images or a video, and write and draw the predictions", runs_network=True
    )
    parser.add_argument(
        "run_folder",
        type=path,
        metavar="MODEL",
        help="run folder, package or exported model, or a project file for its latest run",
    )
    parser.add_argument(
        "source",
        type=name,
        nargs="*",
        default=None,
        metavar="SOURCE",
        help="images, folders, patterns such as 'photos/**/*.jpg', or lists: text files with a path a line "
        "(default: the validation images); or a video file, the number of a camera, or rtsp:// and http:// addresses",
    )
    parser.add_argument("--weights", type=name, metavar="NAME", help="best, final or a checkpoint file (default: best)")
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="SCORE",
        help="lowest score of an instance (default: the thresholds of a package, 0.5 for a run)",
    )
    parser.set_defaults(repeated="source")
    _add_writing(parser)
    add_window_arguments(parser)
    add_video_arguments(parser)
    machines = parser.add_argument_group("many machines")
    machines.add_argument(
        "--shard",
        metavar="I/N",
        help="only the images of shard I of N, counted from 1; `d2tune merge` joins the folders of all shards",
    )
    machines.add_argument(
        "--ray",
        type=name,
        metavar="ADDRESS",
        help="predict on a Ray cluster: its address, auto for that of this machine, local to start one here",
    )


def _add_writing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help="folder for the results (default: RUN/predictions; of a package predictions_NAME)",
    )
    group.add_argument(
        "--to",
        action="append",
        metavar="FORMAT,...",
        help="coco, label_maps or coco_panoptic, as the task is; overlays; both (auto); labelme, rle, yolo-seg, "
        "measurements, masks, cutouts, or csv of a competition (docs/predictions.md); several with commas, or repeated",
    )
    group.add_argument(
        "--tolerance-px",
        type=float,
        metavar="PX",
        help="largest distance of the outlines in Labelme files from the masks (default: 1.0)",
    )
    group.add_argument(
        "--min-area",
        type=float,
        dest="min_area_px2",
        metavar="PX2",
        help="smallest area of a region in Labelme files (default: 25), and of an object in measurements, masks and "
        "cutouts (default: all)",
    )
    group.add_argument(
        "--scale",
        type=float,
        dest="mm_per_px",
        metavar="MM_PER_PX",
        help="with --to measurements, and of videos: millimeters that a pixel stands for; lengths and areas are "
        "written in both",
    )
    group.add_argument(
        "--most-uncertain",
        type=int,
        metavar="N",
        help="with --to labelme: only the N images that the model is most unsure of, listed in uncertainty.csv",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="replace Labelme files or a CSV of an earlier prediction that were not changed since",
    )


def run(options: argparse.Namespace) -> int:
    """Predict, and print what was written; the images that were skipped go to the standard error."""
    from d2tune import api

    if names_video(getattr(options, "source", None) or ()):
        return run_video(options)
    refuse_video_options(options)
    if "to" in options:
        options.to = ",".join(options.to)
    refuse_unless(options, _OF_LABELME, to=("labelme",))
    refuse_unless(options, _OF_OBJECTS, to=_HAVE_OBJECTS)
    names = (*_OTHERS, *_OF_LABELME, *_OF_OBJECTS)
    result = api.predict(options.run_folder, **given(options, *names), **window_arguments(options))
    for line in result.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(result.summary)
    return 0
