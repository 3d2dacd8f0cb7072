"""``d2tune sample``: labeled images rendered offline."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "sample", run, "render a labeled set of photo-like images, offline")
    parser.add_argument(
        "kind", help="balloon, carvana, cells, chipset, clips, crops, face, membrane, ships, steel, street"
    )
    parser.add_argument("--out", type=path, required=True, metavar="FOLDER", help="folder to write, created if missing")
    parser.add_argument("--images", type=int, metavar="N", help="number of images (default: 80)")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same bytes (default: 0)")
    parser.add_argument("--force", action="store_true", help="overwrite a folder that is not empty")


def run(options: argparse.Namespace) -> int:
    """Render and print what was rendered."""
    from d2tune.samples import render_sample

    print(render_sample(options.kind, options.out, **given(options, "images", "seed", "force")).summary())
    return 0
