"""``d2tune label-loop``: rounds of labeling."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "label-loop",
        run,
        "predict on unlabeled images, correct them in Labelme, train on, and compare",
        runs_network=True,
    )
    parser.add_argument("project", type=path, help="project file, whose training split is a folder of Labelme files")
    parser.add_argument("folder", type=path, help="folder of the images to label")
    parser.add_argument("words", nargs="*", default=None, metavar="key=value", help="overrides of the project")
    parser.set_defaults(repeated="words")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds in a row, without asking after each")
    parser.add_argument("--images", type=int, metavar="N", help="images of a round (default: 20)")
    parser.add_argument(
        "--model", type=path, metavar="MODEL", help="run folder or package to begin with (default: the latest run)"
    )
    parser.add_argument(
        "--no-open", action="store_true", help="list the images; the next call takes what was corrected elsewhere"
    )
    parser.add_argument("--labelme", metavar="COMMAND", help="command that starts Labelme (default: the installed one)")
    parser.add_argument("--yes", action="store_true", help="end after the rounds, and ask nothing")
    parser.add_argument("--profile", metavar="NAME", help="one of the project's profiles (default: the hardware's)")
    parser.add_argument(
        "--num-gpus", type=int, metavar="N", help="GPUs to train on (default: 1 if there is one; 0 is the CPU)"
    )


def run(options: argparse.Namespace) -> int:
    """Run rounds; each step prints a line."""
    from d2tune.label_loop.loop import label_loop

    chosen = given(options, "rounds", "images", "model", "labelme", "profile", "num_gpus")
    if "no_open" in options:
        chosen["opens"] = False
    if "yes" not in options and sys.stdin.isatty():
        chosen["ask"] = _asked
    label_loop(options.project, options.folder, overrides=options.words or (), **chosen)
    return 0


def _asked() -> bool:
    try:
        return input("another round? [y/n] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
