"""``d2tune data``: a project's public photos."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "data", run, "download a project's public photos and check every one of them")
    parser.add_argument("project", type=path, help="project file, such as projects/balloon.yaml")
    parser.add_argument("--out", type=path, metavar="FOLDER", help="folder (default: the project's data folder)")
    parser.add_argument("--url", type=name, help="another address of the same archive")
    parser.add_argument("--force", action="store_true", help="overwrite a folder that is not empty")


def run(options: argparse.Namespace) -> int:
    """Download and print what was downloaded."""
    from d2tune.project import load_project
    from d2tune.public_data import fetch

    project = load_project(options.project).project
    folder = options.out if "out" in options else project.data.root
    print(fetch(project.name, folder, **given(options, "url", "force")).summary())
    return 0
