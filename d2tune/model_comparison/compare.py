"""Two models on one image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.images import ImageError, read_header
from d2tune.annotations.io.photos.reading import read_photo_content
from d2tune.errors import DataError
from d2tune.model_comparison.agreement import Agreement, NamedMap, agreement, named_map
from d2tune.model_comparison.measuring import Cost, measured
from d2tune.model_comparison.models import ComparedModel, open_model

MAX_PIXELS = 50_000_000
"""Most pixels of an image, as its header declares them."""

Photo = NDArray[np.uint8]

_LUMA = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in gray (ITU-R BT.601), as Pillow has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two models of a comparison.

    Attributes:
        name: The model.
        published: Its published metrics; empty without any.
        cost: What the prediction takes.
    """

    name: str
    published: str
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """What two models predict on one image.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8.
        a: The first model.
        b: The second model.
        maps: What they predict, and where they agree.
    """

    image_rgb: Photo
    a: Side
    b: Side
    maps: Agreement

    def mirrored(self) -> Comparison:
        """The comparison with A and B exchanged."""
        return replace(self, a=self.b, b=self.a, maps=self.maps.mirrored())


def compare_models(
    a: str | Path | ComparedModel,
    b: str | Path | ComparedModel,
    image: str | Path | bytes | NDArray[Any],
    *,
    weights_folder: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Comparison:
    """Compare what two models predict on an image, and what it takes.

    ``compare_models(b, a, image)`` is ``compare_models(a, b, image).mirrored()``, but for the measured times.

    Args:
        a: The first model: see `open_model`, or one that it returned.
        b: The second model.
        image: A photo: a file, the content of a file, or an array ``(H, W, 3)`` uint8 in RGB.
        weights_folder: A folder with files of published networks.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        D2TuneError: A model cannot be loaded or does not take photos, or the image cannot be read.
    """
    photo = read_image(image, max_pixels=max_pixels)
    (side_a, map_a), (side_b, map_b) = (_side(_opened(one, weights_folder), photo) for one in (a, b))
    return Comparison(image_rgb=photo, a=side_a, b=side_b, maps=agreement(map_a, map_b))


def _opened(model: str | Path | ComparedModel, weights_folder: str | Path | None) -> ComparedModel:
    return model if isinstance(model, ComparedModel) else open_model(model, weights_folder=weights_folder)


def read_image(image: str | Path | bytes | NDArray[Any], *, max_pixels: int = MAX_PIXELS) -> Photo:
    """A photo as an array ``(H, W, 3)`` uint8 in RGB, in its EXIF orientation.

    Args:
        image: See `compare_models`.
        max_pixels: See `compare_models`.

    Raises:
        DataError: It cannot be read, or has too many pixels.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            given = f"{image.shape} {image.dtype}"
            raise DataError("the array is not an image", found=given, expected="(H, W, 3) uint8 in RGB")
        return image
    file = None if isinstance(image, bytes) else Path(image)
    try:
        header = read_header(image if isinstance(image, bytes) else Path(image))
        size = f"{header.width_px} x {header.height_px} px"
        if header.width_px * header.height_px > max_pixels:
            raise DataError("the image is too large", file=file, found=size, expected=f"at most {max_pixels:,} pixels")
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
    except ImageError as error:
        raise DataError(f"the image cannot be read: {error}", file=file) from None
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror}", file=file) from None
    return read_photo_content(content, name="image" if file is None else str(file))


def _side(model: ComparedModel, photo: Photo) -> tuple[Side, NamedMap]:
    reader = model.predictor.reader
    if reader.channels not in (1, 3):
        raise DataError(
            "the model does not take photos",
            place=model.name,
            found=f"images of {reader.channels} channels",
            expected="images of 1 or 3 channels",
        )
    taken = photo if reader.channels == 3 else np.rint(photo @ _LUMA).astype(np.uint8)
    result, cost = measured(model.predictor, taken, weights_bytes=model.weights_bytes)
    side = Side(name=model.name, published=model.published, cost=cost)
    return side, named_map(result, background=model.background)
