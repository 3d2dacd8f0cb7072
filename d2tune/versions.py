"""Versions of the packages that a result depends on."""

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


def own_version() -> str:
    """The version of d2tune; ``0+unknown`` where it is not installed."""
    try:
        return metadata.version("d2tune")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages, by name."""
    known = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return known
