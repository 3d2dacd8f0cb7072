"""``d2tune report``: a page about runs, in one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "report", run, "write a page about runs: metrics, curves, errors, images; one file")
    parser.add_argument(
        "runs", type=path, nargs="+", metavar="RUN", help="run folder, or a project file for its latest run"
    )
    parser.add_argument(
        "--predictions",
        type=_named,
        action="append",
        metavar="NAME=FILE",
        help="COCO results of another model on the images of the first run; may be repeated",
    )
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="the page (default: report.html in the run folder, of several here)"
    )
    parser.add_argument(
        "--images", type=int, metavar="N", help="images with ground truth beside predictions (default: 12)"
    )
    parser.set_defaults(repeated="runs")


def _named(text: str) -> tuple[str, Path]:
    """A name and a file.

    Raises:
        ProjectError: One of them is missing.
    """
    title, equals, file = text.partition("=")
    if not equals or not title.strip():
        hint = "Such as --predictions yolo=results.json."
        raise ProjectError("the predictions need a name", place="--predictions", found=text, hint=hint)
    return title.strip(), path(name(file))


def run(options: argparse.Namespace) -> int:
    """Write the page, and print the result and where the page is."""
    from d2tune import api

    chosen = given(options, "out", "images")
    pairs = given(options, "predictions").get("predictions", [])
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ProjectError("two files of predictions have the same name", place="--predictions", found=", ".join(named))
    print(api.write_report(*options.runs, predictions=named, **chosen).summary)
    return 0
