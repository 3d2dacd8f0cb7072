"""Opening Labelme on a project's images, with the project's labels."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from d2tune import files
from d2tune.annotations.splitting.lists import is_list
from d2tune.doctor import labelme_command
from d2tune.errors import DataError, MachineError
from d2tune.project import Project, load_project


@dataclass(frozen=True, slots=True)
class LabelmeFolders:
    """Where the images of a split and their Labelme files lie.

    Attributes:
        images: The folder of the images.
        annotations: The folder of the Labelme files; often the same.
    """

    images: Path
    annotations: Path


def annotate(project: str | Path, *, split: Literal["train", "val"] = "train", labelme: str | None = None) -> int:
    """Open Labelme on one split of a project's data; JSON files are saved beside the images.

    Args:
        project: The project file, which must list its classes.
        split: Which images.
        labelme: The command that starts Labelme; None is the installed one.

    Returns:
        Labelme's exit status.

    Raises:
        MachineError: Labelme is not installed.
        DataError: There is no folder of images, or the project names no classes.
    """
    loaded = load_project(project).project
    folders = labelme_folders(project, loaded, split=split)
    labels = annotated_classes(project, loaded)
    return open_labelme(folders.images, folders.annotations, labels, labelme=labelme)


def labelme_folders(file: str | Path, project: Project, *, split: Literal["train", "val"]) -> LabelmeFolders:
    """The folders of a split that Labelme can annotate.

    Args:
        file: The project file.
        project: The project.
        split: Which images.

    Raises:
        DataError: Labelme cannot annotate the split, or there is no folder of images.
    """
    data = project.data
    if data.format == "label_images":
        raise DataError(
            "the project reads label images, and Labelme draws polygons",
            file=file,
            place="data.format",
            found="label_images",
            hint="Annotate in a project with another format, such as labelme.",
        )
    name = data.train if split == "train" else data.val
    if not isinstance(name, str):
        raise DataError("the validation images are a fraction of the training images", file=file, place="data.val")
    images = data.images_of(name)
    if is_list(name):
        name = data.annotations
    if (data.root / name).is_file():
        raise DataError(
            "the annotations of the split are one file, and Labelme writes a file for each image",
            file=data.root / name,
            hint="Write Labelme files with `d2tune convert --to labelme`, and name their folder in the project.",
        )
    folder = data.root / (images or name)
    if not folder.is_dir():
        raise DataError("no such folder of images", file=folder, hint="Create it and put your photos into it.")
    return LabelmeFolders(folder, data.root / name)


def annotated_classes(file: str | Path, project: Project) -> tuple[str, ...]:
    """The classes that a person draws: all but the background.

    Args:
        file: The project file.
        project: The project.

    Raises:
        DataError: The project names no classes.
    """
    labels = tuple(name for name in project.class_names if name != project.data.background)
    if not labels:
        raise DataError("no classes to annotate", file=file, place="classes", hint="List them: classes: [balloon].")
    return labels


def open_labelme(
    images: Path,
    annotations: Path,
    labels: Sequence[str],
    *,
    flags: Sequence[str] = (),
    labelme: str | None = None,
) -> int:
    """Open Labelme on a folder and wait until it is closed.

    Args:
        images: The folder of the images.
        annotations: The folder of the Labelme files.
        labels: The only labels that can be given.
        flags: Flags of an image that can be ticked.
        labelme: The command that starts Labelme; None is the installed one.

    Returns:
        Labelme's exit status.

    Raises:
        MachineError: Labelme is not installed, or the command cannot be started.
    """
    command = _command(labelme)
    with tempfile.TemporaryDirectory(prefix="d2tune-") as scratch:
        labels_file = Path(scratch) / "labels.txt"
        files.write_text(labels_file, "".join(f"{label}\n" for label in labels))
        arguments = labelme_arguments(command, images, annotations, labels_file, flags=flags)
        print(" ".join(arguments), flush=True)
        try:
            return subprocess.run(arguments, check=False).returncode
        except OSError as error:
            raise MachineError(
                f"Labelme cannot be started: {error.strerror or error}", file=command[0], hint="Correct --labelme."
            ) from None


def _command(labelme: str | None) -> list[str]:
    if labelme is not None:
        return shlex.split(labelme)
    installed = labelme_command()
    if installed is None:
        raise MachineError(
            "Labelme is not installed",
            hint="`make annotate` installs it in a checkout; elsewhere install it into an environment of its own: "
            "python -m venv .venv-labelme && .venv-labelme/bin/pip install 'labelme>=6.3,<8'",
        )
    return [str(installed)]


def labelme_arguments(
    command: Sequence[str], images: Path, annotations: Path, labels: Path, *, flags: Sequence[str] = ()
) -> list[str]:
    """The command line that opens Labelme on a folder and takes no label but the listed ones.

    Args:
        command: The words that start Labelme.
        images: The folder of the images.
        annotations: The folder of the Labelme files.
        labels: A file with a label a line.
        flags: Flags of an image that can be ticked.
    """
    exact = ["--labels", str(labels), "--validate-label", "exact", "--no-sort-labels"]
    ticked = ["--flags", ",".join(flags)] if flags else []
    return [*command, str(images), "--output", str(annotations), *exact, *ticked]
