"""``d2tune sweep``: a search for better settings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.kfold import add_training_arguments, training_arguments
from d2tune.cli.shared import add_command, given, path
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "sweep", run, "search for better settings of a project with Optuna", runs_network=True
    )
    parser.add_argument("project", type=path, metavar="PROJECT.yaml", help="the project file")
    parser.add_argument("words", nargs="*", default=None, metavar="key=value", help="overrides of all trials")
    parser.set_defaults(repeated="words")
    parser.add_argument(
        "--space", type=path, required=True, metavar="FILE", help="the keys to search, and their values"
    )
    parser.add_argument(
        "--trials", type=int, required=True, metavar="N", help="trials of the study, over all processes and starts"
    )
    parser.add_argument("--folds", type=int, metavar="K", help="train each trial on K folds, and prune bad ones")
    parser.add_argument(
        "--output-dir", type=path, metavar="FOLDER", help="folder of the study (default: runs/<project>/sweep_<space>)"
    )
    parser.add_argument("--wandb-sweep", type=path, metavar="FILE", help="only write the space as a sweep file of W&B")
    parser.add_argument("--force", action="store_true", help="with --wandb-sweep: replace an earlier file")
    add_training_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Train the trials, and print the table; with ``--wandb-sweep`` write a file."""
    from d2tune import api

    if "wandb_sweep" in options:
        without_effect = given(options, "folds", "output_dir", "num_gpus", "no_sample")
        if without_effect:
            name = next(iter(without_effect)).replace("_", "-")
            raise ProjectError(f"--{name} has no effect with --wandb-sweep", hint="Remove it.")
        written = api.wandb_sweep(
            options.project,
            space=options.space,
            trials=options.trials,
            out=options.wandb_sweep,
            overrides=options.words or (),
            **given(options, "profile", "force"),
        )
        print(f"written: {written}\nnext: wandb sweep {written}")
        return 0
    if "force" in options:
        raise ProjectError("--force goes with --wandb-sweep", hint="Remove it.")
    result = api.sweep(
        options.project,
        space=options.space,
        trials=options.trials,
        **given(options, "folds", "output_dir"),
        **training_arguments(options),
    )
    print(f"\n{result.text()}\n\nplots and all trials: {result.folder}")
    return 0
