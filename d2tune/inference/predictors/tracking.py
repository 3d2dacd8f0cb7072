"""The predictor of tracking models, which follow given objects and predict nothing on an image alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike
from d2tune.inference.loop import Sample
from d2tune.inference.object_tracker import ObjectTracker, Tracked, TrackerOptions
from d2tune.inference.predictors.base import Predictor
from d2tune.timing import StageTimes

USE_TRACK = "Use d2tune track VIDEO --init FILE --method siammask --weights RUN."


def needs_outline() -> DataError:
    """The error of all that predicts on images alone."""
    return DataError("a tracking model follows objects that are outlined in a frame of a video", hint=USE_TRACK)


class TrackingPredictor(Predictor[Any, Tracked]):
    """Gives trackers of its model; images alone are refused.

    Its arguments are those of `Predictor`.
    """

    def tracker(self) -> ObjectTracker:
        """A tracker that follows nothing yet."""
        return ObjectTracker(self.model, self.options)

    @property
    def options(self) -> TrackerOptions:
        """How the tracker chooses places."""
        return TrackerOptions.of_config(self._cfg)

    @property
    def short_side_px(self) -> int:
        """Short side that photos are reduced to before objects are looked for."""
        return int(self._cfg.INPUT.MIN_SIZE_TEST)

    def stream(
        self,
        images: Sequence[ImageLike],
        *,
        convert: Callable[[int, Tracked, Pixels | None], Any] | None = None,
        keep_pixels: bool = False,
        description: str = "predicting",
        batch_size: int | None = None,
        show_progress: bool | None = None,
        times: StageTimes | None = None,
        done: Collection[int] = (),
    ) -> Iterator[Any]:
        """Refuse the images.

        Raises:
            DataError: Always.
        """
        raise needs_outline()

    def _forward(self, model: Any, batch: Sequence[Sample]) -> Sequence[Any]:
        raise needs_outline()

    def _result(self, raw: Any, sample: Sample) -> Tracked:
        raise needs_outline()
