"""``d2tune merge``: the shards of a prediction as one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "merge", run, "join the shards that `d2tune predict --shard` wrote")
    parser.add_argument("folders", type=path, nargs="+", metavar="FOLDER", help="output folders of all shards")
    parser.set_defaults(repeated="folders")
    parser.add_argument("--out", type=path, required=True, metavar="FOLDER", help="folder for the predictions")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace Labelme files or a CSV of an earlier prediction that were not changed since",
    )


def run(options: argparse.Namespace) -> int:
    """Merge, and print what was written; the images that were skipped go to the standard error."""
    from d2tune import api

    result = api.merge(options.folders, out=options.out, **given(options, "force"))
    for line in result.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(result.summary)
    return 0
