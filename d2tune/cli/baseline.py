"""``d2tune baseline``: classical methods on the data of a project."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "baseline", run, "score classical methods on the data of a project: does it need a network?"
    )
    parser.add_argument("project", type=path, help="project file of a semantic or an instance project")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="some of the methods (default: all; a wrong name lists them)"
    )
    parser.add_argument(
        "--out", type=path, metavar="FOLDER", help="output folder (default: baseline in the project's folder of runs)"
    )


def run(options: argparse.Namespace) -> int:
    """Score, and print the table and the answer."""
    from d2tune import api

    result = api.baseline(options.project, **given(options, "methods", "out"))
    print(result.table)
    print(f"\n{result.sentence}")
    return 0
