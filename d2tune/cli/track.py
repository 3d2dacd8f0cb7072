"""``d2tune track``: polygons of some frames carried through a video."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "track",
        run,
        "carry the polygons of one or more labeled frames through a video, as Labelme files",
        runs_network=True,
    )
    parser.add_argument("source", type=name, metavar="VIDEO|FRAMES", help="a video file, or a folder of frames")
    parser.add_argument(
        "--init",
        nargs="+",
        type=path,
        action="extend",
        metavar="FILE",
        help="Labelme files of frames (default: those in the output folder that a person has saved)",
    )
    parser.add_argument("--to", choices=["labelme"], help="format of the output (default: labelme)")
    parser.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help="output folder (default: that of the frames; for a video a folder with its name)",
    )
    parser.add_argument(
        "--method",
        choices=["fine-tuning", "flow", "siammask"],
        help="fine-tune a small network on the labeled frames (default), follow optical flow, or a trained SiamMask",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|RUN",
        help="of fine-tuning: ImageNet weights of MobileNetV2 (default: torchvision's); of siammask: a project, a run, "
        "or a file",
    )
    parser.add_argument(
        "--tolerance", type=float, dest="tolerance_px", metavar="PX", help="how far outlines may move (default: 1)"
    )


def run(options: argparse.Namespace) -> int:
    """Track, and print what was written and what to look at first."""
    from d2tune import api

    names = ("init", "out", "method", "weights", "tolerance_px")
    result = api.track(options.source, **given(options, *names))
    print("\n".join(result.lines))
    return 130 if result.is_interrupted else 0
