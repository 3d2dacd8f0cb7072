"""``d2tune kfold``: cross-validation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "kfold", run, "train a project on each fold of its data, and average", runs_network=True
    )
    parser.add_argument("project", type=path, metavar="PROJECT.yaml", help="the project file")
    parser.add_argument("words", nargs="*", default=None, metavar="key=value", help="overrides")
    parser.set_defaults(repeated="words")
    parser.add_argument("--folds", type=int, metavar="K", help="number of folds (default: 5)")
    parser.add_argument(
        "--output-dir", type=path, metavar="FOLDER", help="folder for the runs (default: runs/<project>/kfold_<time>)"
    )
    parser.add_argument("--resume", action="store_true", help="go on in --output-dir, or in the latest such folder")
    add_training_arguments(parser)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training that hold for each of several."""
    parser.add_argument("--profile", metavar="NAME", help="as for train")
    parser.add_argument("--num-gpus", type=int, metavar="N", help="GPUs of each training (default: 1 if there is one)")
    parser.add_argument("--no-sample", action="store_true", help="stop if the data are missing; render no sample")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases")


def training_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_training_arguments` that were given, and the overrides."""
    chosen = given(options, "profile", "num_gpus", "wandb")
    return chosen | {"overrides": options.words or (), "sample": "no_sample" not in options}


def run(options: argparse.Namespace) -> int:
    """Train, and print the table."""
    from d2tune import api

    result = api.kfold(
        options.project, **given(options, "folds", "output_dir", "resume"), **training_arguments(options)
    )
    print(f"\n{result.text()}")
    return 0
