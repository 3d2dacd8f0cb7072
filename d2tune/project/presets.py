"""The presets that ship with d2tune, by the name that ``model.preset`` takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

PRESETS_FOLDER = Path(__file__).resolve().parents[1] / "modeling" / "presets"
"""The Detectron2 configs that ``model.preset`` names, without their folder and their ``.yaml``."""


@lru_cache
def preset_files() -> Mapping[str, Path]:
    """The file of each preset, by the name that ``model.preset`` takes, in the order of the names."""
    files = (path for path in PRESETS_FOLDER.rglob("*.yaml") if not path.stem.startswith("_"))
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def preset_names() -> list[str]:
    """Names that ``model.preset`` may take."""
    return list(preset_files())
