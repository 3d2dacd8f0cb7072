"""Validation images with annotated and predicted masks for the loggers, the worst prediction first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.image_reader import ImageReader
from d2tune.evaluation.evaluator import Evaluator
from d2tune.evaluation.images.base import ImageResult, Images, Shape
from d2tune.loggers.exhibits import Gallery
from d2tune.report.labeled_image import (
    LabeledImage,
    LabeledPrediction,
    encode_labels,
    label_of,
    labeled_image,
)
from d2tune.report.sheets.label_overlay import to_rgb

MOST_IMAGES = 100
"""Images of the gallery of the finished training."""

FEW_IMAGES = 16
"""Images of the galleries before: each is a further file for each image."""

_LARGEST_PX = 100_000_000


class Galleries:
    """Makes the galleries of a validation split; images are read and encoded once.

    Args:
        dataset: The split.
        evaluator: Its evaluator.
        reader: Reader of the images.
        key: Changes with the images and their ground truth.
    """

    def __init__(self, dataset: Dataset, evaluator: Evaluator[Any], reader: ImageReader, *, key: str) -> None:
        self._dataset = dataset
        self._evaluator = evaluator
        self._reader = reader
        self._key = key
        small = [at for at, one in enumerate(dataset.images) if one.width_px * one.height_px <= _LARGEST_PX]
        self._chosen = _spread(small, MOST_IMAGES)
        self._images: dict[int, LabeledImage] = {}

    def of(self, predictions: Sequence[Any], *, most: int) -> Gallery:
        """The gallery of the predictions of the whole split.

        Args:
            predictions: As the evaluator keeps them.
            most: Number of images at most, spread evenly over the split.
        """
        images = self._evaluator.images(predictions)
        results = images.results()
        self._read(images)
        shown = sorted(_spread(self._chosen, most), key=lambda at: results[at].quality)
        rows = [(self._images[at], self._prediction(images, at, results[at])) for at in shown]
        return Gallery(self._key, self._dataset.class_names, rows, [self._images[at] for at in self._chosen])

    def _read(self, images: Images) -> None:
        if self._images:
            return
        for at in self._chosen:
            image = self._dataset.images[at]
            pixels = to_rgb(self._reader.shown(self._reader.read(str(image.path))))
            truth = _painted(images.shapes(at)[0], (image.height_px, image.width_px))
            self._images[at] = labeled_image(image.file_name, pixels, truth)

    def _prediction(self, images: Images, at: int, result: ImageResult) -> LabeledPrediction:
        image, shown = self._dataset.images[at], self._images[at]
        truth, predicted = images.shapes(at)
        labels = _painted(predicted, (image.height_px, image.width_px))
        return LabeledPrediction(
            encode_labels(labels, (shown.width_px, shown.height_px)),
            round(result.quality, 2),
            len(truth),
            len(predicted),
        )


def _spread(places: Sequence[int], most: int) -> list[int]:
    """Up to so many of the places, spread evenly."""
    if len(places) <= most:
        return list(places)
    return [places[at] for at in np.linspace(0, len(places) - 1, most).round().astype(int).tolist()]


def _painted(shapes: Sequence[Shape], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The labels ``(H, W)`` of shapes, small ones over large ones."""
    labels = np.zeros(size, np.uint8)
    masks = [(_mask(shape, size), label_of(shape.class_number)) for shape in shapes]
    for mask, label in sorted(masks, key=lambda pair: -int(pair[0].sum())):
        labels[mask] = label
    return labels


def _mask(shape: Shape, size: tuple[int, int]) -> NDArray[np.bool_]:
    if shape.sketch.mask is not None:
        return shape.sketch.mask
    canvas = np.zeros(size, np.uint8)
    for points in shape.sketch.closed:
        cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 1)
    return canvas.astype(bool)
