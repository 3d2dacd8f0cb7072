"""``d2tune outline``: scribbles and boxes become polygons."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "outline", run, "turn scribbles and boxes of Labelme files into polygons, without a network"
    )
    parser.add_argument("source", type=path, metavar="FOLDER", help="a folder of Labelme files, or a file")
    parser.add_argument(
        "--out", type=path, metavar="FOLDER", help="output folder (default: beside the source, named .._outlines)"
    )
    parser.add_argument(
        "--method", choices=["grabcut", "random-walker"], help="how colors are divided (default: grabcut)"
    )
    parser.add_argument(
        "--background", metavar="LABEL", help="label of the scribbles beside the objects (default: background)"
    )
    parser.add_argument(
        "--tolerance", type=float, dest="tolerance_px", metavar="PX", help="how far outlines may move (default: 1)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that an earlier call wrote and that were not changed"
    )


def run(options: argparse.Namespace) -> int:
    """Outline, and print what was written."""
    from d2tune import api

    names = ("out", "method", "background", "tolerance_px", "force")
    print(api.outline(options.source, **given(options, *names)).summary)
    return 0
