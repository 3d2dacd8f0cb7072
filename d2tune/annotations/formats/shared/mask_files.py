"""Mask images, and the regions of classes in them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.parts import mask_part, unite
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Mask

LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
"""Suffixes of files whose compression changes the values of a mask."""


def is_mask_name(name: str) -> bool:
    """Whether a file can be a mask image."""
    return is_image_name(name) and not name.lower().endswith(LOSSY_SUFFIXES)


def read_indices(path: Path, unit: Unit) -> NDArray[Any] | None:
    """The values ``(H, W)`` of a gray or palette image of the unit's size; None with an error that gives the reason."""
    pixels = read_pixels(path, unit)
    if pixels is not None and pixels.ndim != 2:
        unit.note("error", "mask_undecodable", f"{path} is a color image, expected palette or gray values")
        return None
    return pixels


def read_pixels(
    path: Path,
    unit: Unit,
    *,
    mode: str | None = None,
    also_px: tuple[int, int] | None = None,
    shape: int | None = None,
) -> NDArray[Any] | None:
    """The values of a mask, ``(H, W)`` or ``(H, W, C)``, which must have the size of the unit's image.

    Args:
        path: The image; its size is checked before it is decoded.
        unit: Takes the error that gives the reason where there is none.
        mode: Pillow's mode to convert to; None keeps the stored values, palette indices included.
        also_px: Another width and height that is valid.
        shape: Index of the shape that an error concerns.
    """
    from PIL import Image as PilImage

    assert unit.image is not None
    wanted = unit.image.size_px
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PilImage.open(path)
        with image:
            if image.size not in (wanted, also_px):
                size = f"{image.width} x {image.height}"
                message = f"{path.name} has {size} px, the image {wanted[0]} x {wanted[1]}"
                unit.note("error", "size_mismatch", message, shape=shape)
                return None
            pixels = np.asarray(image.convert(mode) if mode else image)
    except Exception as error:  # Pillow raises a dozen kinds for broken images
        unit.note("error", "mask_undecodable", f"{path} cannot be read ({error})", shape=shape)
        return None
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def add_region(mask: Mask, label: str, shape: int, unit: Unit, labels: Labels, options: ReadOptions) -> None:
    """Add the pixels ``(H, W)`` of a class as one instance, or as one for each connected component."""
    name = labels.read(label, unit, shape)
    if name is None:
        return
    for piece in components(mask) if options.split_components else [mask]:
        part = mask_part(Patch(piece, 0, 0), unit, shape)
        if part is not None:
            unit.drafts.append(unite(name.label, [part], unit))


def components(mask: Mask) -> list[Mask]:
    """The connected components of a mask ``(H, W)`` from the top down; pixels that share a corner are connected."""
    numbers = component_numbers(mask)
    return [numbers == number for number in range(1, int(numbers.max(initial=0)) + 1)]


def component_numbers(mask: Mask) -> NDArray[np.int32]:
    """The number of each pixel's connected component ``(H, W)`` from 1, 0 outside of the mask; see `components`."""
    import cv2

    numbers: NDArray[np.int32] = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    return numbers


def has_palette(path: Path) -> bool:
    """Whether an image has a palette, so that its values are indices; False where it cannot be read."""
    from PIL import Image as PilImage

    try:
        with PilImage.open(path) as image:
            return bool(image.mode == "P")
    except Exception:  # Pillow raises a dozen kinds for broken images
        return False
