"""``d2tune assemble``: the final model of finished runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "assemble",
        run,
        "make the final model of finished runs: averaged weights, larger and mirrored images, ensembles",
        runs_network=True,
    )
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="run folder, or project file (latest run)")
    parser.add_argument(
        "--folds",
        type=path,
        metavar="FOLDER",
        help="output folder of `d2tune kfold` of the same project: choose and prove by its runs, on all images",
    )
    parser.add_argument(
        "--swa",
        dest="swa_iterations",
        type=int,
        metavar="N",
        help="iterations that the best run is trained on, to average its weights; 0: none (default: a quarter)",
    )
    parser.add_argument(
        "--out", type=path, metavar="FOLDER", help="run folder to write (default: runs/<project>/assembled_<time>)"
    )


def run(options: argparse.Namespace) -> int:
    """Assemble, and print the table and the result."""
    from d2tune import api

    result = api.assemble(*options.runs, **given(options, "folds", "out", "swa_iterations"))
    print(f"\n{result.table()}\n\n{result.sentence}")
    if result.is_written:
        print(f"The model is the run {result.folder}.")
    return 0
