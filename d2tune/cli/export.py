"""``d2tune export``: a model as a file of ONNX, TorchScript or OpenVINO, checked against the model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands

_OPTIONS = ("weights", "thresholds", "precision", "size", "calibrate", "images", "allow_drift", "force")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "export", run, "export a model to ONNX, TorchScript or OpenVINO, and check it", runs_network=True
    )
    parser.add_argument(
        "model", type=path, metavar="MODEL", help="run folder, package, or a project file for its latest run"
    )
    parser.add_argument("--format", type=name, metavar="FORMAT", required=True, help="onnx, torchscript or openvino")
    parser.add_argument("--out", type=path, metavar="FOLDER", required=True, help="folder of the exported model")
    parser.add_argument("--weights", type=name, metavar="NAME", help="best, final or a checkpoint file (default: best)")
    parser.add_argument(
        "--thresholds",
        type=name,
        metavar="best-f1|FILE|NUMBER",
        help="of a run: lowest scores of instances, as of `d2tune package`",
    )
    parser.add_argument(
        "--precision",
        type=name,
        metavar="TYPE",
        help="type of the weights: float32, float16 (onnx, openvino) or int8 (onnx) (default: float32)",
    )
    parser.add_argument(
        "--size",
        type=name,
        metavar="HEIGHTxWIDTH",
        help="with openvino: the size that images are resized to fit in, upright or not (default: that of the model)",
    )
    parser.add_argument(
        "--calibrate", type=path, metavar="FOLDER", help="with int8: photos to measure the ranges of values on"
    )
    parser.add_argument(
        "--check",
        type=path,
        dest="images",
        metavar="IMAGES",
        help="images or annotations to check the export with (default: the validation split, if its data are there)",
    )
    parser.add_argument("--allow-drift", action="store_true", help="keep an export whose results differ too much")
    parser.add_argument("--force", action="store_true", help="replace an earlier export that was not changed")


def run(options: argparse.Namespace) -> int:
    """Export, and print the steps and the table of the check; if the export drifts, before the error."""
    from d2tune import api

    chosen = given(options, *_OPTIONS)
    print(api.export(options.model, options.out, format=options.format, say=_print, **chosen).summary)
    return 0


def _print(line: str) -> None:
    print(line, flush=True)
