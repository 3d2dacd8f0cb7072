"""``d2tune compare``: whether one run is better than another."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path
from d2tune.text import counted

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "compare", run, "say whether run B is better than run A, by how much, how surely")
    parser.add_argument(
        "a", type=path, metavar="RUN_A", help="run folder, package, evaluation folder, or file of COCO results"
    )
    parser.add_argument("b", type=path, metavar="RUN_B", help="the same for run B, evaluated on the same data")
    parser.add_argument(
        "--ground-truth", type=path, metavar="FILE", help="COCO instances file, if A and B are both files of results"
    )
    parser.add_argument("--out", type=path, metavar="FOLDER", help="folder for comparison.json")


def run(options: argparse.Namespace) -> int:
    """Compare, and print the table and the verdict."""
    from d2tune import api

    result = api.compare(options.a, options.b, **given(options, "ground_truth", "out"))
    print(f"A is {result.a}, B is {result.b}; {counted(result.images, 'image')}\n")
    print(result.table())
    print(f"\n{result.verdict}.")
    return 0
