"""The data of a project that a labeling loop adds to: folders of Labelme files, and the images of both splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotate import LabelmeFolders, annotated_classes, labelme_folders
from d2tune.annotations.recognition import recognize
from d2tune.annotations.splitting.duplicates import content_digest
from d2tune.annotations.splitting.lists import is_list
from d2tune.data.splits import Splits, load_splits, read_split
from d2tune.errors import DataError
from d2tune.project import LoadedProject, Project


@dataclass(frozen=True, slots=True)
class LoopData:
    """The data of a project.

    Attributes:
        loaded: The project.
        folders: The folders of the training split.
        labels: The classes that a person draws.
        splits: Both splits; None as long as the training split has no Labelme file.
    """

    loaded: LoadedProject
    folders: LabelmeFolders
    labels: tuple[str, ...]
    splits: Splits | None

    @property
    def project(self) -> Project:
        """The typed project."""
        return self.loaded.project

    @property
    def train_images(self) -> list[Path]:
        """The images of the training split."""
        return [] if self.splits is None else _paths(self.splits.train.images)

    @property
    def val_images(self) -> list[Path]:
        """The images of the validation split."""
        return [] if self.splits is None else _paths(self.splits.val.images)

    @property
    def val_folder(self) -> Path | None:
        """The folder of the validation images, if the project names one that is not that of the training images."""
        data = self.project.data
        if not isinstance(data.val, str) or is_list(data.val):
            return None
        folder = data.root / (data.images_of(data.val) or data.val)
        return None if self.folders.images.resolve().is_relative_to(folder.resolve()) else folder


def read_loop_data(loaded: LoadedProject) -> LoopData:
    """Read the data of a project, and check that Labelme can add to it.

    Args:
        loaded: The project.

    Raises:
        DataError: The data cannot be read, the training split is not a folder of Labelme files, or the project has no
            classes.
    """
    project, data = loaded.project, loaded.project.data
    if not data.root.is_dir():
        raise DataError(
            "the data folder is missing", file=data.root, hint="Put your images there, or correct data.root."
        )
    if data.fold is not None:
        raise DataError(
            "a labeling loop needs a validation split that stays as it is, and folds are divided anew by each image",
            file=loaded.file,
            place="data.fold",
            hint="Remove data.fold.",
        )
    folders = labelme_folders(loaded.file, project, split="train")
    seen = recognize(folders.annotations).format
    format = seen if data.format == "auto" else data.format
    if format not in (None, "labelme"):
        raise DataError(
            f"the annotations of the training split are {format}, and Labelme writes Labelme files",
            file=folders.annotations,
            hint="Write Labelme files with `d2tune convert --to labelme`, and name their folder in the project.",
        )
    splits = load_splits(project, sample=False) if seen == "labelme" else None
    if splits is None and isinstance(data.val, str):
        read_split(project, data.val, labels=project.class_names or None, restore_dir=None)
    return LoopData(loaded, folders, _labels(loaded, splits), splits)


def _labels(loaded: LoadedProject, splits: Splits | None) -> tuple[str, ...]:
    project = loaded.project
    if splits is not None and not project.class_names:
        return tuple(name for name in splits.train.class_names if name != project.data.background)
    return annotated_classes(loaded.file, project)


def _paths(images: Iterable[object]) -> list[Path]:
    return [path for image in images if (path := getattr(image, "path", None)) is not None]


class KnownFiles:
    """Recognizes files by their place, also through links, and by their content; only files of equal size are read.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places = {path.resolve() for path in paths}
        self._by_size: dict[int, list[Path]] = {}
        self._digests: dict[Path, str] = {}
        for path in paths:
            if path.is_file():
                self._by_size.setdefault(path.stat().st_size, []).append(path)

    def has(self, path: Path) -> bool:
        """Whether a file is one of them, or has the same content as one of them."""
        if path.resolve() in self._places:
            return True
        alike = self._by_size.get(path.stat().st_size, []) if path.is_file() else []
        return any(self._digest(one) == self._digest(path) for one in alike)

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = content_digest(path)
        return self._digests[path]
