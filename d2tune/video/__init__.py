"""Videos: decoded, predicted on and encoded at the same time, with objects that keep their identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from d2tune.video.tracker import Tracker

if TYPE_CHECKING:
    from d2tune.video.predict import VideoOptions, predict_video

__all__ = ["Tracker", "VideoOptions", "predict_video"]


def __getattr__(name: str) -> Any:
    """Import what needs the networks when it is used."""
    if name in __all__:
        from d2tune.video import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'd2tune.video' has no attribute {name!r}")
