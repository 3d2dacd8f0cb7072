"""Versions of what a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "d2tune",
    "detectron2",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pycocotools",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
)


def versions() -> dict[str, str]:
    """Versions by package; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
