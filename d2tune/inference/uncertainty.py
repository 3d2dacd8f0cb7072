"""How unsure a model is of an image, so that the images worth labeling come first.

``docs/labeling.md`` has the formulas with examples. Of an instance or panoptic model the doubt about a detection is how
near its score is to the lowest score of its class, a margin as in Scheffer, Decomain and Wrobel, "Active hidden Markov
models for information extraction", 2001, and of two detections of different classes at one place how near their scores
are to each other, as in Brust, Kading and Denzler, "Active learning for deep object detection", 2019. Of a semantic
model it is the mean least confidence of the pixels, as in Settles, "Active learning literature survey", 2009, section
3.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.splitting.duplicates import DEFAULT_DISTANCE, perceptual_hash
from d2tune.errors import DataError
from d2tune.inference.images import ImageLike, open_image
from d2tune.inference.loop import Sample, inference_mode
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.instance import RawDetections, forward_boxes
from d2tune.inference.predictors.semantic import ignore_without_data, window_rows
from d2tune.text import counted

Raw = TypeVar("Raw")

DOUBTFUL = 0.5
"""Doubt from which a detection or a pixel is counted in words."""

SAME_PLACE_IOU = 0.5
"""Least IoU of the boxes of two detections of different classes that are taken for one object."""

_DEFAULT_THRESHOLD = 0.5
_DESCRIPTION = "looking for doubts"


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How unsure a model is of an image.

    Attributes:
        value: From 0, sure, to 1.
        reason: What makes it so, in words.
    """

    value: float
    reason: str


def doubt(score: float, threshold: float) -> float:
    """How near a score is to the threshold: 1 at the threshold, 0 at the scores 0 and 1, linear between them."""
    if score < threshold:
        return score / threshold
    return (1 - score) / (1 - threshold) if threshold < 1 else 1.0


def uncertainty_of_detections(
    boxes_xyxy: NDArray[Any],
    scores: Sequence[float],
    class_ids: Sequence[int],
    *,
    class_names: Sequence[str],
    thresholds: Sequence[float],
    share_with_objects: float = 1.0,
) -> Uncertainty:
    """The uncertainty of an image from all N detections of the model, also those below the threshold.

    The doubts about the detections are added in descending order, the first one halved, the second one quartered, and
    so on, so that an image with many objects has at most twice the value of an image with one. An image without a
    detection at its threshold has at least half of ``share_with_objects``.

    Args:
        boxes_xyxy: ``(N, 4)`` in pixels.
        scores: N scores, from 0 to 1.
        class_ids: N indices of ``class_names``.
        class_names: The classes.
        thresholds: Lowest score of each class.
        share_with_objects: Share of the images that are expected to have objects, from 0 to 1.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    rivals = _rivals(np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4), class_ids, order)
    rests = {rival for others in rivals.values() for rival in others}
    doubts: list[float] = []
    pairs: Counter[tuple[str, str]] = Counter()
    near = 0
    for index in (index for index in order if index not in rests):
        threshold = thresholds[class_ids[index]]
        own = doubt(scores[index], threshold)
        between = 0.0
        if scores[index] >= threshold and rivals[index]:
            rival = rivals[index][0]
            between = scores[rival] / scores[index]
            if between > max(own, DOUBTFUL):
                first, second = sorted((class_names[class_ids[index]], class_names[class_ids[rival]]))
                pairs[first, second] += 1
        near += own >= max(between, DOUBTFUL)
        doubts.append(max(own, between))
    value = sum(one / 2**place for place, one in enumerate(sorted(doubts, reverse=True), start=1))
    reasons = [f"{counted(near, 'detection')} near the threshold"] if near else []
    reasons += [f"{counted(count, 'detection')} between {a} and {b}" for (a, b), count in sorted(pairs.items())]
    if not any(scores[index] >= thresholds[class_ids[index]] for index in order):
        best = f", best score {scores[order[0]]:.2f}" if order else ""
        return Uncertainty(max(value, share_with_objects / 2), f"no detection{best}")
    return Uncertainty(value, "; ".join(reasons) or "all detections are far from the threshold")


def _rivals(boxes_xyxy: NDArray[np.float64], class_ids: Sequence[int], order: Sequence[int]) -> dict[int, list[int]]:
    """For each detection those of other classes at the same place, which are the same object.

    Args:
        boxes_xyxy: ``(N, 4)``.
        class_ids: N class ids.
        order: Indices in descending order of the scores.

    Returns:
        Lists in descending order of the scores; a detection that is in a list has an empty one.
    """
    rivals: dict[int, list[int]] = {index: [] for index in order}
    if len(set(class_ids)) < 2:
        return rivals
    taken: set[int] = set()
    for place, index in enumerate(order):
        if index in taken:
            continue
        others = [one for one in order[place + 1 :] if one not in taken and class_ids[one] != class_ids[index]]
        overlaps = _iou(boxes_xyxy[index], boxes_xyxy[others])
        rivals[index] = [one for one, overlap in zip(others, overlaps, strict=True) if overlap >= SAME_PLACE_IOU]
        taken |= set(rivals[index])
    return rivals


def _iou(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of a box ``(4,)`` with N others ``(N, 4)``, as ``(N,)``."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    both = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared
    return np.asarray(np.divide(shared, both, out=np.zeros_like(shared), where=both > 0))


@dataclass(slots=True)
class PixelDoubts:
    """The doubt about the pixels of an image, added block by block.

    The doubt about a pixel whose most probable one of K classes has the probability p is ``(1 - p) K / (K - 1)``: 0
    where p is 1, and 1 where all classes are equally probable. With two classes it is 1 minus the margin of the two.

    Attributes:
        class_names: The K classes.
        total: Sum of the doubts.
        pixels: Number of pixels with data.
        doubtful: Number of pixels of each class whose doubt is at least `DOUBTFUL`.
    """

    class_names: Sequence[str]
    total: float = 0.0
    pixels: int = 0
    doubtful: Counter[int] = field(default_factory=Counter)

    def add(self, class_ids: NDArray[np.uint8], confidence: NDArray[np.float32]) -> None:
        """Add pixels.

        Args:
            class_ids: ``(h, w)``, 255 for pixels without data.
            confidence: ``(h, w)`` probability of that class.
        """
        classes = len(self.class_names)
        has_data = class_ids != IGNORE_LABEL
        doubts = (1 - confidence[has_data].astype(np.float64)) * classes / max(1, classes - 1)
        self.total += float(doubts.sum())
        self.pixels += int(has_data.sum())
        numbers, counts = np.unique(class_ids[has_data][doubts >= DOUBTFUL], return_counts=True)
        self.doubtful = (self.doubtful or Counter()) + Counter(
            dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        )

    def uncertainty(self) -> Uncertainty:
        """The mean doubt of the pixels."""
        if not self.pixels:
            return Uncertainty(0.0, "no pixels with data")
        share = sum(self.doubtful.values()) / self.pixels
        most = f", most of them {self.class_names[self.doubtful.most_common(1)[0][0]]}" if self.doubtful else ""
        return Uncertainty(self.total / self.pixels, f"{100 * share:.1f} % of the pixels are doubtful{most}")


class UncertaintyPredictor(Predictor[Raw, Uncertainty]):
    """Gives the `Uncertainty` of images in the place of predictions; without masks.

    Args:
        predictor: The predictor of the task, whose model, classes, reader and lowest scores are used.
        cfg: The config of the run.
        share_with_objects: See `uncertainty_of_detections`.
    """

    def __init__(self, predictor: Predictor[Any, Any], cfg: CfgNode, *, share_with_objects: float = 1.0) -> None:
        names, scores = predictor.class_names, predictor.min_scores
        super().__init__(predictor.model, cfg, class_names=names, reader=predictor.reader, min_scores=scores)
        self.share_with_objects = share_with_objects

    def scan(
        self, images: Sequence[ImageLike], *, done: Collection[int] = (), show_progress: bool | None = None
    ) -> Iterator[Uncertainty | DataError]:
        """Yield the uncertainty of each image in order, or the error of an image that cannot be read.

        Args:
            images: Files or arrays.
            done: Indices of images that are skipped.
            show_progress: Whether to show a progress bar; None shows it on a terminal.
        """
        return self.stream(images, description=_DESCRIPTION, done=done, show_progress=show_progress)


class DetectionUncertainty(UncertaintyPredictor[RawDetections]):
    """The uncertainty of an instance or panoptic model; see `uncertainty_of_detections`."""

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[RawDetections]:
        return forward_boxes(model, batch)

    def _result(self, raw: RawDetections, sample: Sample) -> Uncertainty:
        return uncertainty_of_detections(
            raw.boxes_xyxy,
            raw.scores.tolist(),
            raw.class_ids.tolist(),
            class_names=self.class_names,
            thresholds=self.min_scores or [_DEFAULT_THRESHOLD] * len(self.class_names),
            share_with_objects=self.share_with_objects,
        )


class PixelUncertainty(UncertaintyPredictor[tuple[NDArray[np.uint8], NDArray[np.float32]]]):
    """The uncertainty of a semantic model; see `PixelDoubts`. In windows if the config sets ``TEST.WINDOW_PX``."""

    _is_semantic = True

    def scan(
        self, images: Sequence[ImageLike], *, done: Collection[int] = (), show_progress: bool | None = None
    ) -> Iterator[Uncertainty | DataError]:
        """See `UncertaintyPredictor.scan`."""
        if self._cfg.TEST.WINDOW_PX:
            return self._scan_windows(images, done, show_progress)
        return super().scan(images, done=done, show_progress=show_progress)

    def _scan_windows(
        self, images: Sequence[ImageLike], done: Collection[int], show_progress: bool | None
    ) -> Iterator[Uncertainty | DataError]:
        hidden = None if show_progress is None else not show_progress
        bar = tqdm(images, desc=_DESCRIPTION, unit=" images", leave=False, disable=hidden)
        with inference_mode(self.model):
            for index, image in enumerate(bar):
                if index in done:
                    continue
                try:
                    yield self._in_windows(image, show_progress)
                except DataError as error:
                    yield error

    def _in_windows(self, image: ImageLike, show_progress: bool | None) -> Uncertainty:
        doubts = PixelDoubts(self.class_names)
        with open_image(image, self.reader) as opened:
            for rows in window_rows(
                self.model,
                opened,
                self._cfg,
                short_side_px=self._size.short_side_px,
                classes=len(self.class_names),
                with_confidence=True,
                show_progress=show_progress,
            ):
                assert rows.confidence is not None
                doubts.add(rows.class_ids, rows.confidence)
        return doubts.uncertainty()

    def _forward(self, model: Any, batch: Sequence[Sample]) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        raws = []
        for output, sample in zip(model(batch), batch, strict=True):
            confidence, class_ids = output["sem_seg"].max(dim=0)
            labels = ignore_without_data(class_ids.to(torch.uint8).cpu().numpy(), sample)
            raws.append((labels, confidence.float().cpu().numpy()))
        return raws

    def _result(self, raw: tuple[NDArray[np.uint8], NDArray[np.float32]], sample: Sample) -> Uncertainty:
        doubts = PixelDoubts(self.class_names)
        doubts.add(*raw)
        return doubts.uncertainty()


def most_uncertain(
    values: Sequence[float | None], paths: Sequence[Path], *, count: int, known: Sequence[Path] = ()
) -> tuple[list[int], dict[int, Path]]:
    """Choose images in descending order of their values, without near-duplicates.

    Args:
        values: The value of each image; None for images that are not chosen from.
        paths: The image files.
        count: How many to choose.
        known: Images whose near-duplicates are passed over too.

    Returns:
        The indices of the chosen images, and for each image that was passed over the one that it is a near-duplicate
        of.
    """
    seen = [(value, path) for path in known if (value := perceptual_hash(path)) is not None]
    chosen: list[int] = []
    passed: dict[int, Path] = {}
    for index in ranked(values):
        if len(chosen) == count:
            break
        value = perceptual_hash(paths[index])
        if value is not None:
            near = next((path for one, path in seen if (one ^ value).bit_count() <= DEFAULT_DISTANCE), None)
            if near is not None:
                passed[index] = near
                continue
            seen.append((value, paths[index]))
        chosen.append(index)
    return chosen, passed


def ranked(values: Sequence[float | None]) -> list[int]:
    """The indices of all images with a value in descending order; equal values keep their order."""
    return sorted((at for at, value in enumerate(values) if value is not None), key=lambda at: -(values[at] or 0.0))
