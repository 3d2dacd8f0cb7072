"""``data.yaml`` of a YOLO data set: the names of the classes, and the folders of the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes

_PARENTS = 3
_YAML_FILES = 10
_YAML_LIMIT_BYTES = 1_000_000
_NAMES_ALONE = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


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
    places = (one / name for place in above[:2] for one in (place, place / "labels") for name in _NAME_FILES)
    path = next((place for place in places if place.is_file()), None)
    if path is not None:
        return Description(None, dict(enumerate(_lines(path))))
    tables = (_names_alone(place / name) for place in above for name in _NAMES_ALONE)
    return next((table for table in tables if table is not None), Description())


def _names_alone(path: Path) -> Description | None:
    """The class names of a YAML file that has no folders of images; None where it has none."""
    try:
        value = yaml.safe_load(decode_text(read_bytes(path))[0]) if path.is_file() else None
    except (OSError, JsonError, yaml.YAMLError, RecursionError, ValueError):
        return None
    names = _names(value.get("names")) if isinstance(value, dict) and "task" not in value else {}
    return Description(path, names) if names else None


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
