"""What the commands share: adding a command, its given arguments, and the options for reading annotations."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2tune.errors import ProjectError, check_path

if TYPE_CHECKING:
    from d2tune.annotations.model.options import ReadOptions

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_SET_BY_A_PROJECT = ("format", "labels", "image_root", "class_name", "class_attribute", "rename", "drop")
_READING = (
    "image_root",
    "class_name",
    "class_attribute",
    "nested_groups",
    "instance_suffix",
    "pixel_offset",
    "preset",
    "color_map",
    "split_components",
    "allow_outside",
    "follow_links",
    "skip_bad",
    "no_predictions",
    "unknown_shapes",
    "crowds",
    "workers",
    "include_unlabeled",
)
"""Arguments that are fields of `ReadOptions` as they are."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    aliases: tuple[str, ...] = (),
    runs_network: bool = False,
) -> argparse.ArgumentParser:
    """Add a command whose namespace holds the arguments that were given and no defaults, see `given`.

    Args:
        commands: The subparsers of ``d2tune``.
        name: The word after ``d2tune``.
        run: Runs the command and returns its exit status.
        text: Its help.
        aliases: Other words for it.
        runs_network: Whether it runs a network, for which its process keeps freed memory.
    """
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        aliases=aliases,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run, command_name=name, runs_network=runs_network)
    return parser


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the named arguments that were given; for the others the called function's own defaults apply."""
    return {name: getattr(options, name) for name in names if getattr(options, name, None) not in (None, [])}


def path(text: str) -> Path:
    """A path of the command line.

    Raises:
        ProjectError: It is empty, which would stand for the working folder.
    """
    return Path(name(text))


def name(text: str) -> str:
    """A name, a path or a URL of the command line.

    Raises:
        ProjectError: It is empty.
    """
    check_path(text, place="the command line")
    return text


def refuse_unless(options: argparse.Namespace, unused: Mapping[str, str], *, to: Sequence[str]) -> None:
    """Refuse options that belong to some written formats where others are written.

    Args:
        options: The arguments of the command.
        unused: The options by their destinations.
        to: The formats that they belong to, of which ``--to`` must name one, alone or with others.

    Raises:
        ProjectError: One of them was given, and ``--to`` is another.
    """
    if not set(to).isdisjoint(getattr(options, "to", "").split(",")):
        return
    for option in map(unused.__getitem__, given(options, *unused)):
        formats = " or ".join(to)
        raise ProjectError(f"{option} goes with --to {formats}", hint=f"Remove it, or add --to {to[0]}.")


def is_project_file(path: Path) -> bool:
    """Whether a path is that of a project file, by its suffix."""
    return path.suffix.lower() in (".yaml", ".yml")


def add_reading_arguments(parser: argparse.ArgumentParser, *, projects: bool = True) -> None:
    """Add the source and the options for reading annotations, see `read_options`.

    Args:
        parser: Of the command.
        projects: Whether the source may be a project file.
    """
    what = "a folder, a file, or a project file" if projects else "a folder or a file"
    parser.add_argument("source", type=path, help=f"annotations: {what}")
    parser.add_argument(
        "--format",
        help="labelme, via, via-csv, coco, panoptic, yolo-seg, cvat, label-studio, isat, datumaro, supervisely, "
        "darwin, cityscapes, voc, voc-masks, masks, rle, label_images (default: by content)",
    )
    parser.add_argument(
        "--labels", type=path, metavar="FILE", help="file of class names, one a line, in the order of their ids"
    )
    parser.add_argument("--rename", metavar="OLD=NEW,...", help="rename labels, or merge several into one")
    parser.add_argument("--drop", metavar="LABEL,...", help="ignore the shapes with these labels")
    parser.add_argument("--image-root", type=path, metavar="FOLDER", help="folder of the images (default: the source)")
    parser.add_argument("--stuff", metavar="CLASS,...", help="names of the classes that are stuff")
    parser.add_argument(
        "--class-name", metavar="CLASS", help="class of shapes without a class (VIA, run-length CSV, mask images)"
    )
    parser.add_argument("--class-attribute", metavar="NAME", help="VIA region attribute that holds the class")
    parser.add_argument(
        "--nested-groups",
        choices=["union", "hole"],
        help="a polygon inside another polygon of its group is united with it, or a hole (default: union)",
    )
    parser.add_argument(
        "--instance-suffix",
        choices=["keep", "strip"],
        help="strip reads person-1 as an instance of person (default: keep)",
    )
    parser.add_argument(
        "--pixel-offset", type=float, metavar="PX", help="added to VIA coordinates, in pixels (default: 0)"
    )
    parser.add_argument(
        "--preset", metavar="DIALECT", help="of run-length CSV: carvana, airbus, severstal, sartorius, siim"
    )
    parser.add_argument("--color-map", type=path, metavar="FILE", help="file of the colors in masks: name,r,g,b a line")
    parser.add_argument("--colour-map", type=path, dest="color_map", help=argparse.SUPPRESS)
    parser.add_argument("--split-components", action="store_true", help="one instance per connected component")
    parser.add_argument("--allow-outside", action="store_true", help="accept images outside the data folder")
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of the data folder")
    parser.add_argument("--include-unlabeled", action="store_true", help="read images without annotations as negatives")
    parser.add_argument(
        "--unknown-shapes",
        choices=["skip", "polygon"],
        help="Labelme shapes of unknown type with three points or more are skipped, or are polygons (default: skip)",
    )
    add_crowds_argument(parser)
    parser.add_argument("--no-predictions", action="store_true", help="ignore shapes flagged as predictions")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that read Labelme files (default: by the number of files)"
    )
    parser.add_argument("--findings", type=path, metavar="FILE", help="write the findings to this JSON file")
    parser.add_argument(
        "--ledger", type=path, metavar="FILE", help="write what became of every shape to this CSV or JSON file"
    )
    parser.add_argument("--strict", action="store_true", help="count warnings as errors")
    parser.add_argument("--skip-bad", action="store_true", help="skip files with errors, and name them")


def add_crowds_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for objects that are marked as crowds."""
    parser.add_argument(
        "--crowds",
        choices=["crowds", "objects"],
        help="objects reads those marked as crowds (iscrowd) as objects (default: crowds, which are not trained on)",
    )


def read_options(options: argparse.Namespace) -> ReadOptions:
    """How to read annotations, from the arguments of `add_reading_arguments`.

    Raises:
        DataError: The labels file cannot be read, or ``--rename`` or ``--drop`` is invalid.
    """
    from d2tune.annotations.model.options import ReadOptions

    return ReadOptions(**_reading_fields(options), unused="refuse")


def reading_overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of `ReadOptions` that were given beside a project file.

    Raises:
        ProjectError: One of them is a key of the project file.
    """
    for name in _SET_BY_A_PROJECT:
        if name in options:
            option = f"--{name.replace('_', '-')}"
            raise ProjectError(
                f"{option} does not go with a project file", hint="Set it in the project's data section."
            )
    return _reading_fields(options)


def _reading_fields(options: argparse.Namespace) -> dict[str, Any]:
    from d2tune.annotations.convert import read_labels, read_rename

    fields = given(options, *_READING)
    if "labels" in options:
        fields["labels"] = read_labels(options.labels)
    if "stuff" in options:
        fields["stuff"] = tuple(name.strip() for name in options.stuff.split(",") if name.strip())
    renaming = given(options, "rename", "drop")
    if renaming:
        fields["rename"] = read_rename(renaming.get("rename", ""), renaming.get("drop", ""))
    return fields
