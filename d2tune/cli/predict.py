"""``d2tune predict``: a run's predictions on images."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path, refuse_unless

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "predict", run, "predict on images, and draw the predictions")
    parser.add_argument("run_folder", type=path, metavar="RUN", help="run folder, or a project file for its latest run")
    parser.add_argument(
        "source", type=path, nargs="?", default=None, help="image or folder (default: the validation images)"
    )
    parser.add_argument("--out", type=path, metavar="FOLDER", help="folder for the results (default: RUN/predictions)")
    parser.add_argument("--weights", type=name, metavar="NAME", help="best, final or a checkpoint file (default: best)")
    parser.add_argument("--min-score", type=float, metavar="SCORE", help="lowest score of an instance (default: 0.5)")
    parser.add_argument(
        "--to",
        metavar="FORMAT,...",
        help="what is written: coco, label_maps or coco_panoptic, as the task is (auto); labelme, rle, yolo-seg, "
        "measurements, masks, cutouts, overlays, or csv of a competition (docs/predictions.md); several with commas",
    )
    parser.add_argument(
        "--tolerance-px",
        type=float,
        metavar="PX",
        help="largest distance of the outlines in Labelme files from the masks (default: 1.0)",
    )
    parser.add_argument(
        "--min-area",
        type=float,
        dest="min_area_px2",
        metavar="PX2",
        help="smallest area of a region in Labelme files (default: 25)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        dest="mm_per_px",
        metavar="MM_PER_PX",
        help="with --to measurements: millimeters that a pixel stands for; lengths and areas are written in both",
    )
    parser.add_argument(
        "--most-uncertain",
        type=int,
        metavar="N",
        help="with --to labelme: only the N images that the model is most unsure of, listed in uncertainty.csv",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace Labelme files or a CSV of an earlier prediction that were not changed since",
    )


def run(options: argparse.Namespace) -> int:
    """Predict, and print what was written; the images that were skipped go to the standard error."""
    from d2tune import api

    of_labelme = {
        "tolerance_px": "--tolerance-px",
        "min_area_px2": "--min-area",
        "most_uncertain": "--most-uncertain",
    }
    refuse_unless(options, of_labelme, to="labelme")
    chosen = given(options, "source", "out", "weights", "min_score", "to", "force", "mm_per_px", *of_labelme)
    result = api.predict(options.run_folder, **chosen)
    for line in result.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(result.summary)
    return 0
