"""``d2tune train``: fine-tune a project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from d2tune.cli.evaluate import print_evaluation
from d2tune.cli.shared import add_command, given, path
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands

_MACHINES = ("num_machines", "machine_rank", "dist_url")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "train", run, "fine-tune a project, evaluate it and draw its predictions", runs_network=True
    )
    parser.add_argument(
        "words", nargs="*", default=None, metavar="PROJECT.yaml key=value", help="project file, then overrides"
    )
    parser.set_defaults(repeated="words")
    parser.add_argument(
        "--config", "--config-file", type=path, metavar="FILE", help="the project file, as Detectron2 users name it"
    )
    parser.add_argument(
        "--profile", metavar="NAME", help="gpu, cpu or another of the project's profiles (default: the hardware's)"
    )
    parser.add_argument("--output-dir", type=path, metavar="FOLDER", help="run folder (default: runs/<project>/<time>)")
    parser.add_argument("--resume", action="store_true", help="continue the latest run, or --output-dir")
    parser.add_argument("--eval-only", action="store_true", help="only evaluate the latest run, or --output-dir")
    parser.add_argument("--out", type=path, metavar="FOLDER", help="with --eval-only: folder for the results")
    parser.add_argument(
        "--num-gpus", type=int, metavar="N", help="GPUs to train on (default: 1 if there is one; 0 is the CPU)"
    )
    parser.add_argument("--num-machines", type=int, metavar="N", help="machines that train together (default: 1)")
    parser.add_argument("--machine-rank", type=int, metavar="N", help="number of this machine, from 0")
    parser.add_argument("--dist-url", metavar="URL", help="where they meet: tcp://HOST:PORT of machine 0")
    parser.add_argument("--no-sample", action="store_true", help="stop if the data are missing; render no sample")
    parser.add_argument("--wandb", action="store_true", help="log to Weights & Biases")


def run(options: argparse.Namespace) -> int:
    """Train; with ``--eval-only`` evaluate and print the table."""
    from d2tune import api

    words = list(options.words)
    config = options.config if "config" in options else (path(words.pop(0)) if words else None)
    if config is None:
        raise ProjectError("no project file is given", hint="Name it: d2tune train projects/balloon.yaml")
    if "eval_only" in options:
        return _evaluate(config, words, options)
    if "out" in options:
        raise ProjectError("--out goes with --eval-only", hint="The folder of a run is named with --output-dir.")
    chosen = given(options, "profile", "output_dir", "resume", "num_gpus", "wandb", *_MACHINES)
    if "no_sample" in options:
        chosen["sample"] = False
    api.train(config, overrides=words, **chosen)
    return 0


def _evaluate(config: Path, words: list[str], options: argparse.Namespace) -> int:
    from d2tune import api
    from d2tune.project import parse_overrides

    keys, raw = parse_overrides(words)
    weights = str(keys.pop("weights", raw.pop("MODEL.WEIGHTS", "best")))
    without_effect = given(options, "profile", "resume", "num_gpus", "no_sample", "wandb", *_MACHINES)
    unused = [*keys, *raw, *(f"--{name.replace('_', '-')}" for name in without_effect)]
    if unused:
        raise ProjectError(
            f"{unused[0]} has no effect with --eval-only",
            hint="A run is evaluated with its own settings; only weights=FILE (or MODEL.WEIGHTS) can be named.",
        )
    folder = options.output_dir if "output_dir" in options else config
    return print_evaluation(api.evaluate(folder, weights=weights, **given(options, "out")))
