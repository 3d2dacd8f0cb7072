"""The files of a YOLO data set: ``data.yaml``, and which label file belongs to which image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.suffixes import is_image_name

IMAGES, LABELS = "images", "labels"

_PARENTS = 3
_YAML_FILES = 10
_YAML_LIMIT_BYTES = 1_000_000
_TEXTS_TRIED = 5
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_NOT_LABELS = ("classes.txt", "readme.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt")


@dataclass(frozen=True, slots=True)
class Description:
    """What ``data.yaml`` says.

    Attributes:
        file: The file; None where there is none.
        names: Class names by number; empty where none are named.
        has_keypoints: Whether lines have keypoints behind a box.
        folders: The folders and lists of images that it names, as they are written.
    """

    file: Path | None = None
    names: dict[int, str] = field(default_factory=dict)
    has_keypoints: bool = False
    folders: tuple[str, ...] = ()


def describe_folder(folder: Path) -> Description:
    """The description in a folder or the three above it, else the names in ``classes.txt`` or a file of Darknet."""
    above = [folder, *list(folder.parents)[:_PARENTS]]
    for place in above:
        description = read_description(place)
        if description is not None:
            return description
    places = (one / name for place in above[:2] for one in (place, place / LABELS) for name in _NAME_FILES)
    path = next((place for place in places if place.is_file()), None)
    return Description() if path is None else Description(None, dict(enumerate(_lines(path))))


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in decode_text(read_bytes(path))[0].splitlines() if line.strip()]
    except (OSError, JsonError):
        return []


def read_description(folder: Path) -> Description | None:
    """The description in a folder: its YAML file with class names and folders of images; None where it has none."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml"))
    except OSError:
        return None
    names.sort(key=lambda name: not name.lower().startswith(("data.", "dataset.")))
    described = (parse_description(folder / name) for name in names[:_YAML_FILES])
    return next((description for description in described if description is not None), None)


def parse_description(path: Path) -> Description | None:
    """What a YAML file says; None where it is not that of a YOLO data set."""
    try:
        if path.stat().st_size > _YAML_LIMIT_BYTES:
            return None
        value = yaml.safe_load(decode_text(read_bytes(path))[0])
    except (OSError, JsonError, yaml.YAMLError, RecursionError, ValueError):
        return None
    if not isinstance(value, dict) or not {"train", "val", "test", "path", "nc"} & value.keys() or "task" in value:
        return None
    names = _names(value.get("names"))
    if not names and "nc" not in value:
        return None
    raw = (value.get(key) for key in ("train", "val", "test"))
    folders = (one for entry in raw for one in (entry if isinstance(entry, list) else [entry]))
    base = str(value.get("path") or "")
    written = tuple(str(PurePosixPath(base, one)) for one in folders if isinstance(one, str) and one)
    return Description(path, names, "kpt_shape" in value, written)


def _names(raw: Any) -> dict[int, str]:
    """Class names by number, of a list or of a dict with numbers."""
    rows = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    try:
        return {int(number): str(name) for number, name in rows if isinstance(name, (str, int, float))}
    except (TypeError, ValueError):
        return {}


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
