"""From the content of an image file to the input of a network, within the limits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2tune.annotations.io.images import magic_suffix
from d2tune.annotations.io.photos.reading import read_photo_content
from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.loop import Sample
from d2tune.inference.predictors.base import Predictor
from d2tune.serving.limits import check_header
from d2tune.serving.problems import ApiError, bad_image
from d2tune.serving.settings import Limits

_NUMPY = b"\x93NUMPY"


def preparing(content: bytes, limits: Limits) -> Callable[[Predictor[Any, Any]], Sample]:
    """A function that checks and decodes an image and resizes it for a predictor.

    Args:
        content: The content of an image file.
        limits: The limits, which are checked before anything is decoded.
    """

    def prepare(predictor: Predictor[Any, Any]) -> Sample:
        try:
            return predictor.prepare(decoded(content, predictor, limits))
        except DataError as error:
            raise bad_image(error) from None

    return prepare


def decoded(content: bytes, predictor: Predictor[Any, Any], limits: Limits) -> Pixels:
    """The pixels ``(H, W, C)`` of an image as `Predictor` takes arrays: photos in RGB.

    Raises:
        ApiError: It is not an image, or beyond a limit.
        DataError: It is damaged, or not what the model takes.
    """
    reader = predictor.reader
    if reader.raster is None:
        check_header(content, limits)
        return read_photo_content(content, white=reader.white)
    # rasters are read by libraries that take files
    suffix = ".npy" if content.startswith(_NUMPY) else magic_suffix(content[:64]) or ""
    with tempfile.TemporaryDirectory(prefix="d2tune-") as folder:
        path = Path(folder) / f"image{suffix}"
        path.write_bytes(content)
        with reader.open(path) as opened:
            pixels = opened.height_px * opened.width_px
            if pixels > limits.pixels:
                size = f"{opened.width_px} x {opened.height_px} px"
                message = f"the image has {size}, and at most {limits.pixels:,} pixels are read"
                raise ApiError(413, "too_many_pixels", message)
            return reader.shown(opened.read())
