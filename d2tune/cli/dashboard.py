"""``d2tune dashboard``: a workspace and a report of Weights & Biases for the runs of a project."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    text = "make a workspace and a report of Weights & Biases for a project, or print what they would show"
    parser = add_command(commands, "dashboard", run, text)
    parser.add_argument("project", type=name, metavar="PROJECT", help="project file, or name of a folder in runs")
    parser.add_argument(
        "--entity", type=name, metavar="NAME", help="user or team of W&B (default: WANDB_ENTITY, or yours)"
    )


def run(options: argparse.Namespace) -> int:
    """Make them, and print where they are."""
    from d2tune import api

    print(api.dashboard(options.project, **given(options, "entity")).text())
    return 0
