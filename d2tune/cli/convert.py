"""``d2tune convert``: annotations of one format into another."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from d2tune.cli.shared import (
    add_command,
    add_reading_arguments,
    given,
    is_project_file,
    path,
    read_options,
    reading_overrides,
    refuse_unless,
)
from d2tune.errors import ProjectError, printable

if TYPE_CHECKING:
    from d2tune.annotations.convert import ConvertResult
    from d2tune.cli.shared import Commands

_PATHS_NAMED = 3


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "convert", run, "turn annotations of one format into another")
    add_reading_arguments(parser)
    parser.add_argument(
        "--to",
        choices=["coco", "labelme", "semantic", "panoptic", "rle", "yolo-seg", "rfdetr", "cityscapes"],
        help="format to write (default: coco)",
    )
    parser.add_argument(
        "--tolerance-px",
        type=float,
        metavar="PX",
        help="how far outlines in Labelme files may move from the edges of masks; 0 keeps the pixels (default: 1.0)",
    )
    parser.add_argument(
        "--min-area",
        type=float,
        dest="min_area_px2",
        metavar="PX2",
        help="smallest area of a region of a mask in Labelme files (default: 25 for label maps and predictions)",
    )
    parser.add_argument(
        "--images",
        choices=["copy", "link", "none"],
        help="the images of YOLO and RF-DETR are copied, hard-linked, or left where they are (default: copy)",
    )
    parser.add_argument("--out", type=path, metavar="PATH", help="folder; for COCO and run-length CSV also a file")
    parser.add_argument(
        "--force", action="store_true", help="replace files that d2tune wrote before and that were not changed since"
    )


def run(options: argparse.Namespace) -> int:
    """Convert, and print the findings, what became of the shapes, and the files."""
    from d2tune import api
    from d2tune.annotations.convert import FindingsError, findings_table
    from d2tune.annotations.model.ledger import summary

    try:
        results = api.convert(options.source, **_arguments(options))
    except FindingsError as error:
        print(findings_table(error.findings))
        print(summary(error.ledger))
        raise
    for result in results:
        _print(result)
    return 0


def _print(result: ConvertResult) -> None:
    from d2tune.annotations.convert import findings_table
    from d2tune.annotations.model.ledger import summary

    if result.findings:
        print(findings_table(result.findings))
    print(summary(result.dataset.ledger))
    paths = [str(path) for path in result.paths[:_PATHS_NAMED]]
    rest = len(result.paths) - _PATHS_NAMED
    more = [f"and {rest} more"] if rest > 0 else []
    print(f"{result.dataset.size_in_words()}: {printable(', '.join([*paths, *more])) or 'nothing to write'}")


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    refuse_unless(options, {"tolerance_px": "--tolerance-px", "min_area_px2": "--min-area"}, to=("labelme",))
    refuse_unless(options, {"images": "--images"}, to=("yolo-seg", "rfdetr"))
    chosen = given(options, "to", "strict", "force", "tolerance_px", "min_area_px2", "out", "images")
    names = {"findings": "findings_path", "ledger": "ledger_path"}
    chosen |= {names[name]: path for name, path in given(options, *names).items()}
    if is_project_file(options.source):
        return chosen | {"overrides": reading_overrides(options)}
    if "out" not in options:
        raise ProjectError("--out is missing", hint="Name the folder or file that the annotations are written to.")
    return chosen | given(options, "format") | {"options": read_options(options)}
