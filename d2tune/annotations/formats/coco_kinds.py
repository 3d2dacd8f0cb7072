"""COCO files of either kind: instances, or panoptic where there is no file of instances."""

from __future__ import annotations

from pathlib import Path

from d2tune.annotations.formats import coco, panoptic
from d2tune.annotations.formats.shared.sources import walk_of
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a COCO file of instances, or a panoptic one where the source has no other.

    Raises:
        DataError: As for `coco.read`.
    """
    try:
        return coco.read(source, options)
    except DataError:
        if not source.exists():
            raise
        paths = [source] if source.is_file() else [source / name for name in walk_of(source, options)]
        kinds = {_kind_of(path) for path in paths if path.suffix.lower() == ".json"}
        if "panoptic" not in kinds or "coco" in kinds:
            raise
    return panoptic.read(source, options)


def _kind_of(path: Path) -> str | None:
    try:
        value, _ = decode_json(read_bytes(path))
    except (JsonError, OSError):
        return None
    return "panoptic" if panoptic.is_panoptic(value) else "coco" if coco.is_coco(value) else None
