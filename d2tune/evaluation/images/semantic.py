"""What is right and wrong on the images of a semantic evaluation: connected regions of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.evaluation.images.base import ImageResult, Images, Mistake, MistakeKind, Shape, shown_progress
from d2tune.metrics.semantic import SemanticScorer
from d2tune.report.thumbnails import Sketch

LEAST_REGION_SHARE = 0.0005
"""Share of an image that a region covers at least to be listed."""

Maps = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """A connected region: its box as left, top, right, bottom, its pixels, and the other map's classes in it."""

    box_xyxy: tuple[float, float, float, float]
    area_px2: int
    counts: NDArray[np.int64]


class SemanticImages(Images):
    """Label maps beside annotated ones.

    Args:
        class_names: The classes.
        images: Number of images.
        maps: Gives predicted and annotated label map ``(H, W)`` of an image; ignored pixels are so in both.
        background: The class whose regions are not listed; None lists those of all.
    """

    quality_name = "mIoU of the image"
    quality_words = "the mean IoU of the classes that are annotated or predicted on the image"
    noun = "region"

    def __init__(
        self, class_names: Sequence[str], images: int, maps: Callable[[int], Maps], *, background: str | None
    ) -> None:
        self._names = tuple(class_names)
        self._images = images
        self._maps = maps
        self.classes_in_color = tuple(at for at, name in enumerate(self._names) if name != background)

    def results(self) -> list[ImageResult]:
        """See `Images.results`."""
        return [self._result(*self._maps(index)) for index in shown_progress(range(self._images))]

    def shapes(self, index: int) -> tuple[list[Shape], list[Shape]]:
        """See `Images.shapes`: the pixels of each class, all classes in their order; the background has none."""
        predicted, truth = self._maps(index)
        return self._pixels(truth), self._pixels(predicted)

    def _pixels(self, side: NDArray[np.uint8]) -> list[Shape]:
        numbers = range(len(self._names))
        return [Shape(at, Sketch(mask=side == at) if at in self.classes_in_color else Sketch()) for at in numbers]

    def _result(self, predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> ImageResult:
        scorer = SemanticScorer(self._names, boundary=False)
        scorer.add(predicted, truth, "image")
        quality = scorer.result().metrics["mIoU"].value
        predicted = np.where(truth == IGNORE_LABEL, np.uint8(IGNORE_LABEL), predicted)
        right, mistakes = 0, []
        for at in self.classes_in_color:
            for region in _regions(truth, predicted, at):
                if 2 * region.counts[at] >= region.area_px2:
                    right += 1
                else:
                    mistakes.append(self._mistake(region, at, is_missed=True))
            mistakes += [
                self._mistake(region, at, is_missed=False)
                for region in _regions(predicted, truth, at)
                if 2 * region.counts[at] < region.area_px2
            ]
        return ImageResult(100.0 if quality is None else quality, right, tuple(mistakes))

    def _mistake(self, region: _Region, at: int, *, is_missed: bool) -> Mistake:
        others = region.counts.copy()
        others[at] = -1
        main = int(others[: len(self._names)].argmax()) if len(self._names) > 1 else at
        share = region.counts[main] / region.area_px2
        verb = "predicted as" if is_missed else "annotated as"
        note = f"{100 * share:.0f} % of it is {verb} {self._names[main]}" if share > 0 else ""
        kind: MistakeKind = "missed" if is_missed else "false alarm"
        return Mistake(kind, at, region.box_xyxy, float(region.area_px2), None, note, (at,), (at,))


def _regions(side: NDArray[np.uint8], other: NDArray[np.uint8], at: int) -> Iterator[_Region]:
    """The regions of a class that are large enough to be listed."""
    mask = side == at
    if not mask.any():
        return
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    least = max(16.0, LEAST_REGION_SHARE * mask.size)
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[number])
        if area < least:
            continue
        window = np.s_[top : top + height, left : left + width]
        inside = other[window][numbers[window] == number]
        box = (float(left), float(top), float(left + width), float(top + height))
        yield _Region(box, area, np.bincount(inside, minlength=256))
