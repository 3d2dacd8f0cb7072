"""Fine-tuning on Detectron2, from polygons to a model one can trust.

The functions here are what the commands call; each imports what it needs when it is called, so that
``import d2tune`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from d2tune.versions import own_version

if TYPE_CHECKING:
    from d2tune.api import (
        compare,
        compare_models,
        convert,
        evaluate,
        evaluate_files,
        load_predictor,
        load_project,
        merge,
        package,
        predict,
        predict_video,
        track,
        train,
        write_report,
    )

__all__ = [
    "compare",
    "compare_models",
    "convert",
    "evaluate",
    "evaluate_files",
    "load_predictor",
    "load_project",
    "merge",
    "package",
    "predict",
    "predict_video",
    "track",
    "train",
    "write_report",
]

__version__ = own_version()


def __getattr__(name: str) -> Any:
    if name in __all__:
        from d2tune import api

        return getattr(api, name)
    raise AttributeError(f"module 'd2tune' has no attribute {name!r}")
