"""Fine-tuning on Detectron2, from polygons to a model one can trust.

The functions here are what the commands call; each imports what it needs when it is called, so that
``import d2tune`` is quick.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2tune.api import (
        compare,
        convert,
        evaluate,
        evaluate_files,
        load_predictor,
        load_project,
        merge,
        package,
        predict,
        predict_video,
        train,
    )

__all__ = [
    "compare",
    "convert",
    "evaluate",
    "evaluate_files",
    "load_predictor",
    "load_project",
    "merge",
    "package",
    "predict",
    "predict_video",
    "train",
]

try:
    __version__ = metadata.version("d2tune")
except metadata.PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from d2tune import api

        return getattr(api, name)
    raise AttributeError(f"module 'd2tune' has no attribute {name!r}")
