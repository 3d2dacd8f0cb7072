"""Videos: decoded, predicted on and encoded at the same time, with objects that keep their identity."""

from d2tune.video.tracker import Tracker

__all__ = ["Tracker"]
