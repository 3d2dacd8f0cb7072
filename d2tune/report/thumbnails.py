"""Small views of images for a page: a JPEG as a data URI, and outlines over it as SVG paths."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from d2tune.annotations.geometry.masks import decode_mask
from d2tune.annotations.io.photos.pillow import open_pillow, orientation_of
from d2tune.annotations.io.photos.reading import read_photo, to_rgb, upright
from d2tune.annotations.io.photos.whole import refuse_missing_pixels
from d2tune.annotations.model.dataset import Image, Instance
from d2tune.annotations.model.pixel_format import PixelFormat
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError

View = tuple[float, float, float, float]
"""Left, top, right, bottom of what is shown, in pixels of the image; it may reach beyond the image."""

_PIXELS_DECODED = 120_000_000
_POINTS_PER_OUTLINE = 4000
_FAR_SHOWN_PX = 20_000.0
_MARKUP_BYTES = 110
_LEAST_SEEN_PX = 3.0


@dataclass(frozen=True, slots=True)
class Outline:
    """A path over an image.

    Attributes:
        path: SVG path data in the coordinates of `Frame.width` and `Frame.height`.
        color: A CSS color.
        title: Shown where the pointer rests.
        kind: ``object``, ``culprit`` or ``other``, and ``open`` where nothing is enclosed: how it is drawn.
    """

    path: str
    color: str
    title: str
    kind: str = "object"


@dataclass(frozen=True, slots=True)
class Frame:
    """A view of an image.

    Attributes:
        width: Width of the view in its own units.
        height: Height of the view.
        uri: The visible part of the image, as a data URI; empty where the view shows none of it.
        placed: Left, top, width and height of that part, in percent of the view.
        outlines: What is drawn over it.
        alt: Text in place of the image.
    """

    width: float
    height: float
    uri: str
    placed: tuple[float, float, float, float]
    outlines: tuple[Outline, ...]
    alt: str


class ThumbnailError(ValueError):
    """An image that cannot be shown; the message says why, in words that follow its name."""


class Album:
    """Makes frames and counts their bytes, so that the size of a page is bounded.

    Args:
        limit_bytes: Size of all images and outlines together in the page.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes

    @property
    def left_bytes(self) -> int:
        """Bytes that are left; below 0 where the last frame was larger than what was left."""
        return self._left_bytes

    @property
    def is_full(self) -> bool:
        """Whether the bytes are used up."""
        return self._left_bytes <= 0

    def frame(
        self, image: Image, view: View, *, side_px: int, outlines: Sequence[tuple[Sketch, str, str, str]] = ()
    ) -> Frame:
        """A view of an image with outlines.

        Args:
            image: The image.
            view: What to show of it.
            side_px: The longer side of the view, in pixels.
            outlines: What to draw, with a CSS color, a title and a kind each.

        Raises:
            ThumbnailError: The image cannot be opened.
        """
        left, top, right, bottom = view
        scale = side_px / max(right - left, bottom - top)
        seen = (max(0.0, left), max(0.0, top), min(right, image.width_px), min(bottom, image.height_px))
        uri, placed = "", (0.0, 0.0, 0.0, 0.0)
        if seen[2] - seen[0] > 0 and seen[3] - seen[1] > 0:
            content = jpeg(image, seen, scale=min(scale, 6.0))
            uri = "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
            across, down = 100 / (right - left), 100 / (bottom - top)
            placed = (
                (seen[0] - left) * across,
                (seen[1] - top) * down,
                (seen[2] - seen[0]) * across,
                (seen[3] - seen[1]) * down,
            )
        paths = [
            Outline(path, color, title, kind + suffix)
            for sketch, color, title, kind in outlines
            for path, suffix in zip(_paths(sketch, view, scale), ("", " open"), strict=True)
        ]
        self._left_bytes -= len(uri) + sum(len(outline.path) + _MARKUP_BYTES for outline in paths)
        return Frame(
            round((right - left) * scale, 2),
            round((bottom - top) * scale, 2),
            uri,
            placed,
            tuple(outline for outline in paths if outline.path),
            image.file_name,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What an outline is made of, in pixels of the image.

    Attributes:
        closed: Closed outlines, each ``(V, 2)``.
        lines: Open lines and single points, each ``(V, 2)``.
        mask: Pixels of the whole image, ``(H, W)`` bool.
    """

    closed: tuple[NDArray[np.float64], ...] = ()
    lines: tuple[NDArray[np.float64], ...] = ()
    mask: NDArray[np.bool_] | None = None

    def extent(self) -> View | None:
        """The box around it; None where there is nothing."""
        boxes = [(*points.min(axis=0), *points.max(axis=0)) for points in (*self.closed, *self.lines) if len(points)]
        if self.mask is not None and self.mask.any():
            rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return around(boxes)


def sketch_of(instance: Instance) -> Sketch:
    """The outline of an instance."""
    if isinstance(instance.segmentation, Rle):
        return Sketch(mask=decode_mask(instance.segmentation))
    return Sketch(tuple(instance.segmentation))


def around(boxes: Iterable[Sequence[float]]) -> View | None:
    """The box around boxes; None where there is none."""
    sides = list(zip(*boxes, strict=True))
    if not sides:
        return None
    return float(min(sides[0])), float(min(sides[1])), float(max(sides[2])), float(max(sides[3]))


def jpeg(image: Image, seen: View, *, scale: float) -> bytes:
    """A crop of an image after its EXIF orientation, as a JPEG file.

    Args:
        image: The image.
        seen: The crop, inside the image.
        scale: Pixels of the file for one of the image.

    Raises:
        ThumbnailError: The image cannot be opened.
    """
    if image.path is None:
        raise ThumbnailError("has no file")
    reduction = max(1, min(8, 2 ** int(math.log2(1 / scale)))) if scale < 1 else 1
    try:
        decoded = _decoded(image.path, reduction, image.path.stat().st_mtime_ns, image.pixel_format)
    except OSError as error:
        raise ThumbnailError(f"cannot be opened ({error.strerror})") from error
    across, down = decoded.width / image.width_px, decoded.height / image.height_px
    box = (seen[0] * across, seen[1] * down, seen[2] * across, seen[3] * down)
    size = (max(1, round((seen[2] - seen[0]) * scale)), max(1, round((seen[3] - seen[1]) * scale)))
    way = PilImage.Resampling.NEAREST if scale > 3 else PilImage.Resampling.LANCZOS
    stream = io.BytesIO()
    decoded.resize(size, way, box=box).save(stream, "JPEG", quality=78, optimize=True)
    return stream.getvalue()


@lru_cache(maxsize=1)
def _decoded(path: Path, reduction: int, changed_ns: int, form: PixelFormat | None) -> PilImage.Image:
    """The image upright, mode RGB, as it was at a time; JPEG files are decoded at a fraction of their size."""
    try:
        if form is not None:
            return PilImage.fromarray(read_photo(path, white=form.white if form.is_deep else None))
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("ignore")
            with open_pillow(stream) as decoded:
                orientation = orientation_of(decoded)
                if reduction > 1:
                    decoded.draft(None, (decoded.width // reduction, decoded.height // reduction))
                if decoded.width * decoded.height > _PIXELS_DECODED:
                    raise ThumbnailError("is too large to be shown")
                decoded.load()
                refuse_missing_pixels(decoded, stream)
                rgb = _rgb(decoded)
                return rgb if decoded.format == "TIFF" else upright(rgb, orientation)
    except ThumbnailError:
        raise
    except DataError as error:
        raise ThumbnailError(f"cannot be opened ({error.message})") from error
    except Exception as error:  # decoders raise whatever comes to them on damaged files
        raise ThumbnailError(f"cannot be opened ({error})") from error


def _rgb(decoded: PilImage.Image) -> PilImage.Image:
    """Any mode as RGB: deep gray of rasters is stretched to what the eye sees, alpha is dropped as in training."""
    if decoded.mode.startswith("I") or decoded.mode == "F":
        values = np.nan_to_num(np.asarray(decoded, dtype=np.float64))
        low, high = np.percentile(values, (0.5, 99.5))
        stretched = np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255)
        return PilImage.fromarray(stretched.astype(np.uint8)).convert("RGB")
    rgb: PilImage.Image = to_rgb(decoded)
    return rgb


def _paths(sketch: Sketch, view: View, scale: float) -> tuple[str, str]:
    """SVG path data of what is closed and of what is open, in the units of the frame."""
    origin = np.array(view[:2])
    closed = [_ring((_thinned(points) - origin) * scale, closed=True) for points in sketch.closed]
    if sketch.mask is not None:
        closed += [_ring(points, closed=True) for points in _mask_rings(sketch.mask, view, scale)]
    lines = [_ring((_thinned(points) - origin) * scale, closed=False) for points in sketch.lines]
    return "".join(closed), "".join(lines)


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[:: max(1, math.ceil(len(points) / _POINTS_PER_OUTLINE))]


def _ring(points: NDArray[np.float64], *, closed: bool) -> str:
    """One outline; one that is too small to be seen becomes a small circle."""
    points = np.clip(points, -_FAR_SHOWN_PX, _FAR_SHOWN_PX)
    if not len(points):
        return ""
    low, high = points.min(axis=0), points.max(axis=0)
    if np.all(high - low < _LEAST_SEEN_PX):
        x, y = (low + high) / 2
        return f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z"
    if len(points) > 8:
        points = cv2.approxPolyDP(points.astype(np.float32).reshape(-1, 1, 2), 0.35, closed).reshape(-1, 2)
    return "M" + "L".join(f"{_short(x)} {_short(y)}" for x, y in points.tolist()) + ("Z" if closed else "")


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _mask_rings(mask: NDArray[np.bool_], view: View, scale: float) -> list[NDArray[np.float64]]:
    """Outlines and holes of those pixels that the view shows, in the units of the frame, each ``(V, 2)``."""
    left, top = max(0, math.floor(view[0])), max(0, math.floor(view[1]))
    crop = mask[top : math.ceil(view[3]), left : math.ceil(view[2])]
    if not crop.any():
        return []
    fine = 4 if scale > 1 else 1
    size = (max(1, round(crop.shape[1] * scale * fine)), max(1, round(crop.shape[0] * scale * fine)))
    if fine > 1:
        size = (min(size[0], 4 * crop.shape[1] * 8), min(size[1], 4 * crop.shape[0] * 8))
    way = cv2.INTER_AREA if size[0] < crop.shape[1] else cv2.INTER_NEAREST
    grown = cv2.resize(crop.astype(np.uint8) * 255, size, interpolation=way) >= 64
    contours, _ = cv2.findContours(grown.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    to_frame = np.array([crop.shape[1] * scale / size[0], crop.shape[0] * scale / size[1]])
    offset = (np.array([left, top]) - np.array(view[:2])) * scale
    rings: list[NDArray[np.float64]] = []
    for contour in contours[:2000]:
        points = contour.reshape(-1, 2).astype(np.float64) + 0.5
        if len(points) < 3:
            x, y = points.min(axis=0) - 0.5
            right, bottom = points.max(axis=0) + 0.5
            points = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
        rings.append(points * to_frame + offset)
    return rings
