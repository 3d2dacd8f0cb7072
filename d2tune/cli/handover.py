"""``d2tune handover``: one folder with everything that somebody needs who takes a model over."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "handover", run, "make a folder with a model, its reports, licenses and a page")
    parser.add_argument(
        "model", type=path, metavar="RUN", help="run folder, package, or a project file for its latest run"
    )
    parser.add_argument("--out", type=path, metavar="FOLDER", required=True, help="folder of the handover")
    parser.add_argument("--weights", type=name, metavar="NAME", help="best, final or a checkpoint file (default: best)")
    parser.add_argument(
        "--thresholds",
        type=name,
        metavar="best-f1|FILE|NUMBER",
        help="of a run: lowest scores of instances, as of `d2tune package`",
    )
    parser.add_argument("--acceptance", type=path, metavar="PATH", help="acceptance report to add, a file or a folder")
    parser.add_argument(
        "--wheel", type=path, metavar="FILE", help="wheel of this d2tune to add (python -m build --wheel)"
    )
    parser.add_argument(
        "--runtime", type=name, metavar="FORMAT", help="onnx: add the model for devices without torch, checked"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier handover that was not changed")


def run(options: argparse.Namespace) -> int:
    """Make the handover, and print what is missing and where it is."""
    from d2tune import api

    chosen = given(options, "weights", "thresholds", "acceptance", "wheel", "runtime", "force")
    print(api.handover(options.model, options.out, **chosen).summary)
    return 0
