"""Opening Labelme on a project's images, with the project's labels."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from d2tune import files
from d2tune.annotations.splitting.lists import is_list
from d2tune.doctor import labelme_command
from d2tune.errors import DataError, MachineError
from d2tune.project import load_project


def annotate(project: str | Path, *, split: Literal["train", "val"] = "train") -> int:
    """Open Labelme on one split of a project's data; JSON files are saved beside the images.

    Args:
        project: The project file, which must list its classes.
        split: Which images.

    Returns:
        Labelme's exit status.

    Raises:
        MachineError: Labelme is not installed.
        DataError: There is no folder of images, or the project names no classes.
    """
    loaded = load_project(project).project
    if loaded.data.format == "label_images":
        raise DataError(
            "the project reads label images, and Labelme draws polygons",
            file=project,
            place="data.format",
            found="label_images",
            hint="Annotate in a project with another format, such as labelme.",
        )
    labels = [name for name in loaded.class_names if name != loaded.data.background]
    name = loaded.data.train if split == "train" else loaded.data.val
    if not isinstance(name, str):
        raise DataError("the validation images are a fraction of the training images", file=project, place="data.val")
    images = loaded.data.images_of(name)
    if is_list(name):
        name = loaded.data.annotations
    if (loaded.data.root / name).is_file():
        raise DataError(
            "the annotations of the split are one file, and Labelme writes a file for each image",
            file=loaded.data.root / name,
            hint="Write Labelme files with `d2tune convert --to labelme`, and name their folder in the project.",
        )
    folder = loaded.data.root / (images or name)
    if not folder.is_dir():
        raise DataError("no such folder of images", file=folder, hint="Create it and put your photos into it.")
    if not labels:
        raise DataError("no classes to annotate", file=project, place="classes", hint="List them: classes: [balloon].")
    command = labelme_command()
    if command is None:
        raise MachineError(
            "Labelme is not installed",
            hint="`make annotate` installs it in a checkout; elsewhere install it into an environment of its own: "
            "python -m venv .venv-labelme && .venv-labelme/bin/pip install 'labelme>=6.3,<8'",
        )
    with tempfile.TemporaryDirectory(prefix="d2tune-") as scratch:
        labels_file = Path(scratch) / "labels.txt"
        files.write_text(labels_file, "".join(f"{label}\n" for label in labels))
        arguments = labelme_arguments(command, folder, loaded.data.root / name, labels_file)
        print(" ".join(arguments), flush=True)
        return subprocess.run(arguments, check=False).returncode


def labelme_arguments(command: Path, images: Path, annotations: Path, labels: Path) -> list[str]:
    """The command line that opens Labelme on a folder and takes no label but the listed ones."""
    exact = ["--labels", str(labels), "--validate-label", "exact", "--no-sort-labels"]
    return [str(command), str(images), "--output", str(annotations), *exact]
