"""``d2tune split``: annotated images divided into training, validation and test."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from d2tune.cli.shared import add_command, add_reading_arguments, given, path, read_options
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.annotations.splitting.splits import SplitOptions
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "split", run, "divide annotated images into splits that have the same mix of classes"
    )
    add_reading_arguments(parser, projects=False)
    parser.add_argument("--val", type=float, metavar="SHARE", help="share of the images to validate on (default: 0.2)")
    parser.add_argument("--test", type=float, metavar="SHARE", help="share to set aside for a last test (default: 0)")
    parser.add_argument("--kfold", type=int, metavar="N", help="divide into this many folds; each is validated on once")
    parser.add_argument("--seed", type=int, metavar="N", help="decides between equally good divisions (default: 0)")
    parser.add_argument(
        "--group-by",
        metavar="RULE",
        help="keep images together that have the same folder (folder), burst (exif-time), or first group or match of "
        "a pattern in their names: 'regex:^(board[0-9]+)_'",
    )
    parser.add_argument(
        "--gap-s", type=float, metavar="SECONDS", help="with exif-time: longest gap within a burst (default: 60 s)"
    )
    duplicates = parser.add_mutually_exclusive_group()
    duplicates.add_argument(
        "--duplicate-distance", type=int, metavar="BITS", help="most bits between near-duplicates (default: 40)"
    )
    duplicates.add_argument("--no-duplicates", action="store_true", help="do not look for near-duplicates")
    parser.add_argument(
        "--out", type=path, metavar="FOLDER", help="folder for the lists (default: splits in the source folder)"
    )
    parser.add_argument("--force", action="store_true", help="replace the lists of another split")


def run(options: argparse.Namespace) -> int:
    """Divide, write the lists and print the table."""
    from d2tune import api
    from d2tune.annotations.convert import FindingsError, findings_table
    from d2tune.report.split_table import split_report, written_lists

    try:
        made, out = api.split(options.source, **_arguments(options))
    except FindingsError as error:
        print(findings_table(error.findings))
        raise
    if made.dataset.findings:
        print(findings_table(made.dataset.findings), end="\n\n")
    print(f"{split_report(made)}\n\n{written_lists(made, out, options.source)}")
    return 0


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    names = {"findings": "findings_path", "ledger": "ledger_path"}
    return (
        {"how": _split_options(options), "options": read_options(options)}
        | given(options, "out", "force", "format", "strict")
        | {names[name]: path for name, path in given(options, *names).items()}
    )


def _split_options(options: argparse.Namespace) -> SplitOptions:
    from d2tune.annotations.splitting.splits import SplitOptions

    chosen = given(options, "val", "test", "kfold", "seed", "group_by", "gap_s", "duplicate_distance")
    if "gap_s" in chosen and chosen.get("group_by") != "exif-time":
        raise ProjectError("--gap-s goes with --group-by exif-time", hint="Remove --gap-s, or group by exif-time.")
    if "no_duplicates" in options:
        chosen["duplicate_distance"] = None
    return SplitOptions(**chosen)
