"""Where the files of a YOLO data set are: which label file belongs to which image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from d2tune.annotations.formats.yolo.description import read_description
from d2tune.annotations.io.suffixes import is_image_name

IMAGES, LABELS = "images", "labels"

_TEXTS_TRIED = 5
_NOT_LABELS = ("classes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt")


def mirrored(path: Path, role: str, other: str) -> Path | None:
    """A path with the last folder of one name replaced by another; None where it has no such folder."""
    parts = list(path.parts)
    at = next((at for at in reversed(range(len(parts))) if parts[at].lower() == role), None)
    return None if at is None else Path(*parts[:at], other, *parts[at + 1 :])


def is_label_name(name: str) -> bool:
    """Whether a file can be a label file."""
    return name.lower().endswith(".txt")


def is_usual_text(name: str) -> bool:
    """Whether a text file has the name of one that lies beside label files: of the classes, of a list, a README."""
    base = name.lower().rpartition("/")[2]
    return base in _NOT_LABELS or base.startswith("readme.")


def image_folders(label: str) -> Iterator[str]:
    """The folders that the image of a label file can be in, relative to the same folder as the file."""
    *folders, _ = label.split("/")
    lower = [folder.lower() for folder in folders]
    if LABELS in lower:
        at = len(lower) - 1 - lower[::-1].index(LABELS)
        for role in (IMAGES, IMAGES.title(), "JPEGImages", ""):
            yield "/".join(folder for folder in (*folders[:at], role, *folders[at + 1 :]) if folder)
    yield "/".join(folders)
    yield "/".join((*folders, IMAGES))


def is_yolo(folder: Path, names: Iterable[str]) -> bool:
    """Whether a folder has YOLO's labels: by ``data.yaml``, or by the content of a few label files.

    Args:
        folder: The folder; its labels may be in the folder ``labels`` in the place of ``images`` in its path.
        names: The files below it.
    """
    if read_description(folder) is not None:
        return True
    names = list(names)
    stems = {name.rpartition(".")[0] for name in names if is_image_name(name)}
    labels = [name for name in names if is_label_name(name)]
    likely = [name for name in labels if LABELS in name.lower().split("/")[:-1] or name.rpartition(".")[0] in stems]
    if any(is_label_content(folder / name) for name in likely[:_TEXTS_TRIED]):
        return True
    place = mirrored(folder.absolute(), IMAGES, LABELS)
    if place is None or not stems:
        return False
    tried = (place / f"{stem}.txt" for stem in sorted(stems)[:_TEXTS_TRIED])
    return any(is_label_content(path) for path in tried)


def is_label_content(path: Path) -> bool:
    """Whether the first line of a file is a whole number and four or more numbers."""
    try:
        with path.open("rb") as stream:
            words = stream.readline(65536).split()
        values = [float(word) for word in words]
    except (OSError, ValueError):
        return False
    return (
        len(values) > 4 and values[0] >= 0 and values[0] == int(values[0]) and all(abs(one) < 2 for one in values[1:])
    )
