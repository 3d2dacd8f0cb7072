"""``d2tune info``: what a model is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "info", run, "say what a model is, and check the files of a package")
    parser.add_argument(
        "model", type=path, metavar="MODEL", help="run folder, package, or a project file for its latest run"
    )


def run(options: argparse.Namespace) -> int:
    """Print what the model is."""
    from d2tune import api

    print("\n".join(api.info(options.model)))
    return 0
