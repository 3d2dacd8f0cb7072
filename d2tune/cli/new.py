"""``d2tune new``: a project file for a folder of images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, path

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "new", run, "look at a folder of images and write a project file that fits it")
    parser.add_argument("name", help="name of the project")
    parser.add_argument(
        "--data", type=path, required=True, metavar="FOLDER", help="images, annotated or not; or a file of annotations"
    )
    parser.add_argument(
        "--task",
        choices=["instance", "semantic", "panoptic"],
        help="a mask for each object, a class for each pixel, or both (default: by the annotations)",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B",
        help="class names in order, if the annotations have none; of label images in the order of their values",
    )
    parser.add_argument("--stuff", metavar="A,B", help="the classes that are regions, of a panoptic task")
    parser.add_argument("--class-attribute", metavar="NAME", help="VIA region attribute that holds the class")
    parser.add_argument(
        "--out", type=path, metavar="FILE", help="the file (default: NAME.yaml, in the folder projects if there is one)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(options: argparse.Namespace) -> int:
    """Write the file, and print what was recognized and the next command."""
    from d2tune.new_project import new_project

    chosen = given(options, "task", "class_attribute", "out", "force")
    chosen |= {key: _names(text) for key, text in given(options, "classes", "stuff").items()}
    made = new_project(options.name, options.data, **chosen)
    for line in made.lines:
        print(line)
    print(f"written: {made.file}\nnext: {made.next_command}")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
