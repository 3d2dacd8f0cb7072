"""The arguments for images that are predicted in windows."""

from __future__ import annotations

import argparse
from typing import Any

from d2tune.cli.shared import given


def add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments in a group of their own."""
    group = parser.add_argument_group("large images")
    group.add_argument(
        "--windows",
        action="store_true",
        help="predict in overlapping windows as large as the training images, and stitch the objects",
    )
    group.add_argument(
        "--window-px",
        type=int,
        metavar="PX",
        help="height and width of the windows in pixels of the image; smaller windows enlarge objects",
    )
    group.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="share of a window that the next one covers as well (default: 0.2)",
    )
    group.add_argument(
        "--object-px",
        type=int,
        metavar="PX",
        help="size of the largest objects that are to be whole in a window; the overlap is at least as wide",
    )


def window_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Those arguments that were given, with the names that the functions of `d2tune.api` have for them."""
    automatic: dict[str, Any] = {"window_px": "auto"} if given(options, "windows") else {}
    return automatic | given(options, "window_px", "overlap", "object_px")
