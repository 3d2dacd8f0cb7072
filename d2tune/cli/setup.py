"""``d2tune setup``: a Detectron2 that works, without a compiler."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "setup", run, "install Detectron2 into this environment, without a compiler")
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "--requirement",
        help="a pip requirement to install instead of Detectron2 0.6: a name, URL, wheel, or folder with a checkout",
    )
    sources.add_argument(
        "--sdist", type=path, help="the downloaded pb1-detectron2-0.6.tar.gz, for machines without a package index"
    )


def run(options: argparse.Namespace) -> int:
    """Install, or keep what works, and print which."""
    from d2tune.install.detectron2 import install

    print(install(**given(options, "requirement", "sdist")))
    return 0
