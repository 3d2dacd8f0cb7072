"""``d2tune annotate``: polygons in Labelme."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "annotate", run, "draw polygons in Labelme, with the project's labels")
    parser.add_argument("project", type=path, help="project file")
    parser.add_argument("--split", choices=["train", "val"], help="which images (default: train)")
    parser.add_argument("--labelme", metavar="COMMAND", help="command that starts Labelme (default: the installed one)")
    parser.add_argument("--part", choices=["train", "val"], dest="split", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Open Labelme and return its exit status."""
    from d2tune.annotate import annotate

    return annotate(options.project, **given(options, "split", "labelme"))
