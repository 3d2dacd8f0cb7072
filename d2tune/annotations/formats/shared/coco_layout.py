"""Where the images of COCO files are: beside them, below the root, or in the folders of COCO's own layout.

COCO keeps ``annotations/instances_train2017.json`` beside ``train2017/``; other tools write ``images/train2017/`` or
``images/`` beside ``annotations/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from d2tune.annotations.formats.shared.sources import Folders, finder_of
from d2tune.annotations.io.places import is_file
from d2tune.annotations.model.options import ReadOptions

_KIND = re.compile(
    r"(?:instances|person_keypoints|panoptic|stuff|captions|image_info|annotations?|coco|lvis(?:_v\d[\d.]*)?)[_-](?=.)",
    re.IGNORECASE,
)
_ENDING = re.compile(r"(?<=.)[_-](?:instances|annotations?|coco)$", re.IGNORECASE)
_ANNOTATION_FOLDERS = ("annotation", "annotations")
_NAMES_TRIED = 50


def with_layout(folders: Folders, path: Path, images: object, options: ReadOptions) -> Folders:
    """The folders of a source with those of COCO's layout, where images are allowed too.

    Without an image root of its own, a source whose first images are in one of those folders has it as its root.

    Args:
        folders: The folders of the source.
        path: The COCO file.
        images: Its list ``images``.
        options: How to read.
    """
    beside = [folder for folder in _beside(path) if not folder.is_relative_to(folders.root)]
    if not beside:
        return folders
    root = folders.root
    if options.image_root is None:
        names = list(islice(_names(images), _NAMES_TRIED))
        if not any(is_file(str(folders.root / name)) for name in names):
            holds = (folder for folder in beside if any(is_file(str(folder / name)) for name in names))
            root = next(holds, root)
    return Folders(folders.source, root, finder_of(root, options, limits=(folders.source, *beside)))


def image_folders(path: Path, folders: Folders) -> tuple[Path, ...]:
    """The folders for images of a COCO file: its own, the image root, those of its subset, ``images``, its parent."""
    own, above = path.parent, path.parent.parent
    subsets = _subsets(path)
    named = [base / name for base in (folders.root, own, above) for subset in subsets for name in _roles(subset)]
    near = (*named, own / "images", above / "images", above)
    return tuple(dict.fromkeys((*folders.search_from(path), *(folder for folder in near if folder.is_dir()))))


def searched_folders(path: Path) -> tuple[Path, ...]:
    """The folders where the images of a COCO file are looked for and may be without an image root."""
    own = path.parent
    named = (own / name for subset in _subsets(path) for name in _roles(subset))
    return (own, *named, own / "images", *_beside(path))


def _beside(path: Path) -> list[Path]:
    """The folders of the layout beside the folder of a COCO file, the most specific first."""
    if not _KIND.match(path.stem) and path.parent.name.lower() not in _ANNOTATION_FOLDERS:
        return []
    above = path.parent.parent
    names = [name for subset in _subsets(path) for name in _roles(subset)]
    return [above / name for name in (*names, "images") if (above / name).is_dir()]


def _roles(subset: str) -> tuple[str, str]:
    return subset, f"images/{subset}"


def _subsets(path: Path) -> list[str]:
    """The names that the subset of a COCO file can have: ``train2017`` of ``instances_train2017.json``."""
    stem = path.stem
    bare = _ENDING.sub("", _KIND.sub("", stem, count=1) if _KIND.match(stem) else stem)
    return [name for name in dict.fromkeys((bare, stem)) if name not in ("", ".", "..")]


def _names(images: object) -> Iterable[str]:
    """The names of the images that have one, as paths that stay in a folder."""
    rows: list[Any] = images if isinstance(images, list) else []
    for row in rows:
        name = row.get("file_name") if isinstance(row, dict) else None
        if isinstance(name, str) and name.strip() and "\0" not in name:
            path = PurePosixPath(name.replace("\\", "/"))
            if not path.is_absolute() and ".." not in path.parts:
                yield str(path)
