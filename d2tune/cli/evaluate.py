"""``d2tune eval``: metrics of a run, or of any model's predictions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2tune.cli.shared import add_command, add_crowds_argument, given, name, path
from d2tune.cli.windows import add_window_arguments, window_arguments
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands
    from d2tune.evaluation.summaries import EvaluationResult


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "eval",
        run,
        "evaluate a run, or any model's predictions from a file",
        aliases=("evaluate",),
        runs_network=True,
    )
    parser.add_argument(
        "run_folder",
        type=path,
        nargs="?",
        default=None,
        metavar="RUN",
        help="run folder, package, exported model, or a project file for its latest run",
    )
    parser.add_argument(
        "--data", type=path, metavar="PATH", help="other annotations with the same classes, or a list of images"
    )
    parser.add_argument(
        "--image-root", type=path, metavar="FOLDER", help="folder of the images (default: beside the annotations)"
    )
    parser.add_argument("--weights", type=name, metavar="NAME", help="best, final or a checkpoint file (default: best)")
    parser.add_argument(
        "--predictions",
        type=path,
        metavar="PATH",
        help="predictions of any model, instead of a run: COCO results, COCO panoptic, or a folder of label PNGs",
    )
    parser.add_argument(
        "--ground-truth", type=path, metavar="PATH", help="ground truth for --predictions, of the same kind"
    )
    parser.add_argument(
        "--labels", type=path, metavar="FILE", help="with folders of label PNGs: file of class names, one a line"
    )
    add_crowds_argument(parser)
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=["bbox", "segm", "boundary"],
        help="what to evaluate (default: all that the predictions have)",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images per forward pass (default: 8 on CUDA, 4 on the CPU)"
    )
    add_window_arguments(parser)
    parser.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help="folder for the results (default: evaluation, in RUN where there is one)",
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    from d2tune import api

    chosen: dict[str, Any] = given(options, "out", "crowds")
    if "metrics" in options:
        chosen["metrics"] = tuple(dict.fromkeys(options.metrics))
    if given(options, "predictions", "ground_truth"):
        predictions, ground_truth = _two_files(options)
        return print_evaluation(api.evaluate_files(predictions, ground_truth, **given(options, "labels"), **chosen))
    chosen |= window_arguments(options)
    if "labels" in options:
        raise ProjectError("--labels goes with --predictions", hint="A run knows its classes.")
    if options.run_folder is None:
        raise ProjectError("no run is given", hint="Name it, or give --predictions and --ground-truth.")
    return print_evaluation(
        api.evaluate(options.run_folder, **given(options, "data", "image_root", "weights", "batch_size"), **chosen)
    )


def print_evaluation(result: EvaluationResult) -> int:
    """Print the table of an evaluation and its sentence; returns the exit status."""
    print(result.table)
    print(f"\n{result.sentence}")
    return 0


def _two_files(options: argparse.Namespace) -> tuple[Path, Path]:
    if len(given(options, "predictions", "ground_truth")) < 2:
        raise ProjectError("--predictions and --ground-truth go together", hint="Name both files.")
    used = given(options, "run_folder", "data", "image_root", "weights", "batch_size") | window_arguments(options)
    if used:
        hint = "Remove RUN, --data, --image-root, --weights, --batch-size and the options of windows."
        raise ProjectError("with --predictions no model is run", hint=hint)
    return options.predictions, options.ground_truth
