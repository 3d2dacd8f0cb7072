"""What an exported model needs to run without d2tune: a script beside it, and its requirements."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from pathlib import Path

from d2tune import files
from d2tune.export.graphs.build import Kind
from d2tune.packages.manifest import RUNNER, Manifest

REQUIREMENTS = "requirements.txt"
LIBRARIES = ("numpy", "onnxruntime", "pillow")
"""What the runner imports."""


def has_runner(manifest: Manifest, *, format_name: str, gives: Kind) -> bool:
    """Whether the runner can predict with an export: ONNX, whole photos, and instances or label maps.

    Args:
        manifest: Of the package that is exported.
        format_name: The format of the export.
        gives: What its network gives.
    """
    takes_photos = manifest.input.raster is None and not manifest.input.window_px
    return format_name == "onnx" and takes_photos and gives in ("instances", "labels")


def write_runner(folder: Path) -> None:
    """Write the runner, and the versions of its libraries that the export is checked with."""
    script = importlib.resources.files("d2tune.export") / RUNNER
    files.write_text(folder / RUNNER, script.read_text(encoding="utf-8"))
    pinned = (f"{name}=={importlib.metadata.version(name)}\n" for name in LIBRARIES)
    files.write_text(folder / REQUIREMENTS, "".join(pinned))
