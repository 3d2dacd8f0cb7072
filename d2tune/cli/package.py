"""``d2tune package``: a folder with all that predicting with a run needs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "package", run, "make a folder with all that predicting with a run needs")
    parser.add_argument("run_folder", type=path, metavar="RUN", help="run folder, or a project file for its latest run")
    parser.add_argument("--out", type=path, metavar="FOLDER", required=True, help="folder of the package")
    parser.add_argument("--weights", type=name, metavar="NAME", help="best, final or a checkpoint file (default: best)")
    parser.add_argument(
        "--thresholds",
        type=name,
        metavar="best-f1|FILE|NUMBER",
        help="lowest scores of instances: those with the best F1, a file with a number for each class, or a number for "
        "all (default: those with the best F1 of classes with at least 30 objects in the evaluation, else 0.5)",
    )
    parser.add_argument(
        "--runtime",
        type=name,
        metavar="FORMAT",
        help="onnx: an exported model with a script that predicts with it without torch and Detectron2, see `d2tune "
        "export` (default: the weights, for d2tune)",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier package that was not changed")


def run(options: argparse.Namespace) -> int:
    """Make the package, and print what is in it."""
    from d2tune import api

    chosen = given(options, "weights", "thresholds", "runtime", "force")
    print(api.package(options.run_folder, options.out, **chosen).summary)
    return 0
