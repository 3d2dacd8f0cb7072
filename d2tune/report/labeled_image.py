"""A reduced image with its annotated and its predicted label map, encoded, as loggers and pages show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST_SIDE_PX = 1000
"""Images are reduced to this long side."""

NOTHING, IGNORED = 0, 255
"""Labels of pixels that have no class, and of those that are not evaluated; class k has the label k + 1."""

MOST_CLASSES = 253
"""Further classes share the label 254: a label has 8 bits."""

_JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """An image of the validation split with its ground truth.

    Attributes:
        name: The file name in the dataset.
        width_px: Reduced width.
        height_px: Reduced height.
        jpeg: The image, reduced.
        truth_png: The annotated labels ``(height_px, width_px)``, 8 bits.
    """

    name: str
    width_px: int
    height_px: int
    jpeg: bytes
    truth_png: bytes


@dataclass(frozen=True, slots=True)
class LabeledPrediction:
    """The prediction of a `LabeledImage`.

    Attributes:
        predicted_png: The predicted labels, of the size of the image.
        score: The quality of the prediction of this image, 0 to 100; None where it has none.
        annotated: Number of annotated objects, or of classes in the label map.
        predicted: Number of predicted ones.
    """

    predicted_png: bytes
    score: float | None
    annotated: int
    predicted: int


def reduced_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Width and height with a long side of at most `LONGEST_SIDE_PX`."""
    factor = min(1.0, LONGEST_SIDE_PX / max(width_px, height_px))
    return max(1, round(width_px * factor)), max(1, round(height_px * factor))


def labeled_image(name: str, image_rgb: NDArray[np.uint8], truth: NDArray[np.uint8]) -> LabeledImage:
    """Reduce and encode an image and its labels.

    Args:
        name: The file name.
        image_rgb: ``(H, W, 3)``.
        truth: Labels ``(h, w)`` of any size of the same aspect.
    """
    width, height = reduced_size(image_rgb.shape[1], image_rgb.shape[0])
    small = cv2.resize(image_rgb, (width, height), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return LabeledImage(name, width, height, encoded.tobytes(), encode_labels(truth, (width, height)))


def encode_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """Labels ``(H, W)`` as a PNG of the given width and height."""
    resized = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    content: bytes = cv2.imencode(".png", resized, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    return content


def decode(content: bytes) -> NDArray[np.uint8]:
    """The pixels of a JPEG as RGB ``(H, W, 3)``, or the labels ``(H, W)`` of a PNG."""
    image: NDArray[Any] = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))
    return np.ascontiguousarray(image[:, :, ::-1]) if image.ndim == 3 else image


def label_of(place: int) -> int:
    """The label of the class at a place in the order of the ids."""
    return min(place, MOST_CLASSES) + 1


def labels_of_places(places: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels of a map with the place of each pixel's class, where 255 is ignored."""
    table = np.array([label_of(place) for place in range(255)] + [IGNORED], np.uint8)
    labels: NDArray[np.uint8] = table[places]
    return labels


def label_names(class_names: list[str] | tuple[str, ...]) -> dict[int, str]:
    """The name of each label, but for `NOTHING`."""
    names = {label_of(place): name for place, name in enumerate(class_names[:MOST_CLASSES])}
    if len(class_names) > MOST_CLASSES:
        names[label_of(MOST_CLASSES)] = f"{len(class_names) - MOST_CLASSES} further classes"
    return names | {IGNORED: "ignored"}
