"""Writers of image files: instance masks, cut-outs with a transparent background, and drawings alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.io.outputs import write_output
from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.results import Detections, LabelMap
from d2tune.inference.writers.base import Images, WriterOptions, write_jpeg
from d2tune.inference.writers.objects import AnyResult, ObjectsWriter, PredictedObject, lower_scores_of, objects_of
from d2tune.inference.writers.tables import CsvRows
from d2tune.report.sheets.drawing import PlacedMask, draw_instances
from d2tune.report.sheets.label_overlay import colors, overlay, segment_overlay, to_rgb

_LONGEST_NAME = 40
_MOST_OBJECTS = 65_535
_LARGEST_PX = 50_000_000
"""Pixels of the largest drawing of instances; drawing takes about 25 bytes for each."""


class MaskWriter(ObjectsWriter[list[Any]]):
    """Writes ``masks/NAME.png`` with the number of the object of each pixel, and ``objects.csv`` with what they are.

    Pixels without an object are 0. Where objects overlap, a pixel belongs to that with the highest score. The PNGs have
    8 bits, or 16 where an image has more than 255 objects.
    """

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options, background=background)
        self._files = images.output_files(out / "masks", ".png")
        self.refuse_foreign()
        self._rows = CsvRows(out / "objects.csv", ("image", "object", "class", "score", "area_px2"), self._stack)

    def files_of(self, index: int) -> list[Path]:
        """The PNG of an image."""
        return [self._files[index]]

    def final_files(self) -> list[Path]:
        """``objects.csv``."""
        return [self.out / "objects.csv"]

    def convert(self, index: int, result: AnyResult, pixels: Pixels | None) -> list[Any]:
        """Write the PNG; returns height and width of the image, the rows of its objects, and lower scores."""
        canvas = np.zeros((result.height_px, result.width_px), np.uint16)
        rows: list[list[Any]] = []
        for one in self.objects(result):  # in descending order of scores
            if one.number > _MOST_OBJECTS:
                raise DataError(
                    "the image has more objects than a PNG of 16 bits can number",
                    file=self.images.paths[index],
                    expected=f"at most {_MOST_OBJECTS:,}",
                    hint="Write another format than masks.",
                )
            inside = one.window(canvas)
            inside[one.mask & (inside == 0)] = one.number
            score = "" if one.score is None else one.score
            rows.append([self.images.name(index), one.number, self.class_name(one), score, int(one.mask.sum())])
        highest = max((row[1] for row in rows), default=0)
        write_output(self._files[index], _png(canvas if highest > 255 else canvas.astype(np.uint8)), kind=PREDICTIONS)
        return [result.height_px, result.width_px, rows, lower_scores_of(result)]

    def add(self, index: int, kept: list[Any]) -> int:
        """Append the rows of the image."""
        height_px, width_px, rows, lower = kept
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        for row in rows:
            self._rows.add(row)
        return len(rows)

    def finish(self) -> None:
        """Write ``objects.csv``."""
        self._rows.write()


class CutoutWriter(ObjectsWriter[list[Any]]):
    """Writes ``cutouts/NAME/0001_CLASS_0.93.png`` for each object: its part of the image, transparent around it.

    Raises:
        DataError: The images are rasters, whose channels are not those of a PNG.
    """

    keeps_pixels = True

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options, background=background)
        channels = predictor.reader.channels
        if channels not in (1, 3):
            message = "cut-outs are PNGs of gray or color photos"
            raise DataError(message, place="--to", found=f"a model of {channels} channels", hint="Remove cutouts.")
        self._folders = images.output_files(out / "cutouts", "")
        self.refuse_foreign()

    def files_of(self, index: int) -> list[Path]:
        """The cut-outs of an image that are there; how many there will be, its prediction says."""
        return sorted(self._folders[index].glob("[0-9]*_*.png"))

    def files_of_entry(self, index: int, kept: list[Any]) -> list[Path]:
        """See `Writer`; the cut-outs of a prediction."""
        return [self._folders[index] / name for name in kept[2]]

    def folders_of(self, index: int) -> list[Path]:
        """The folder of the cut-outs of an image."""
        return [self._folders[index]]

    def convert(self, index: int, result: AnyResult, pixels: Pixels | None) -> list[Any]:
        """Write the cut-outs; returns height and width of the image, their names, and lower scores."""
        assert pixels is not None
        if pixels.dtype != np.uint8:
            raise DataError(
                "cut-outs are PNGs of 8 bits", file=self.images.paths[index], found=f"values of {pixels.dtype}"
            )
        image_rgb = to_rgb(pixels)
        names = [self._write(self._folders[index], one, image_rgb) for one in self.objects(result)]
        return [result.height_px, result.width_px, names, lower_scores_of(result)]

    def _write(self, folder: Path, one: PredictedObject, image_rgb: NDArray[np.uint8]) -> str:
        score = "" if one.score is None else f"_{one.score:.2f}"
        name = f"{one.number:04d}_{_as_file_name(self.class_name(one))}{score}.png"
        alpha = one.mask.astype(np.uint8) * 255
        bgra = np.dstack([one.window(image_rgb)[:, :, ::-1], alpha])
        write_output(folder / name, _png(bgra), kind=PREDICTIONS)
        return name

    def add(self, index: int, kept: list[Any]) -> int:
        """Count the image and its objects; removes the cut-outs of an earlier prediction with other objects."""
        height_px, width_px, names, lower = kept
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        own = OwnFiles()
        for path in self.files_of(index):
            if path.name not in names and own.is_unchanged(path, PREDICTIONS):
                path.unlink()
        return len(names)


class OverlayWriter(ObjectsWriter[list[Any]]):
    """Writes ``NAME.predicted.jpg`` for each image: the image with what is predicted on it."""

    keeps_pixels = True

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options, background=background)
        self.refuse_foreign()

    def drawings_of(self, index: int) -> list[Path]:
        """The drawn image."""
        return [self.out / f"{self.images.name(index)}.predicted.jpg"]

    def convert(self, index: int, result: AnyResult, pixels: Pixels | None) -> list[Any]:
        """Draw; returns height and width of the image, the number of instances or segments, and lower scores."""
        assert pixels is not None
        write_jpeg(self.drawings_of(index)[0], overlay_image(result, pixels, background=self._background))
        objects = len(result) if isinstance(result, Detections) else len(getattr(result, "segments", ()))
        return [result.height_px, result.width_px, objects, lower_scores_of(result)]

    def add(self, index: int, kept: list[Any]) -> int:
        """Count the image and its objects."""
        height_px, width_px, objects, lower = kept
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        return int(objects)


def overlay_image(result: AnyResult, pixels: Pixels, *, background: str | None = None) -> NDArray[np.uint8]:
    """An image ``(H, W, 3)`` with a result drawn on it; instances on a reduced copy of a very large image.

    Args:
        result: The result.
        pixels: ``(H, W, C)`` the image as it is shown.
        background: The class of label maps whose pixels stay as they are; None for none.
    """
    image_rgb = to_rgb(pixels)
    if isinstance(result, Detections):
        objects = list(objects_of(result))
        placed = [PlacedMask(one.left_px, one.top_px, one.mask) for one in objects]
        names = [result.class_names[one.class_id] for one in objects]
        scores = [one.score or 0.0 for one in objects]
        image_rgb, placed = _reduced(image_rgb, placed)
        return np.asarray(draw_instances(image_rgb, placed, names, scores=scores))
    if isinstance(result, LabelMap):
        place = result.class_names.index(background) if background in result.class_names else None
        table = colors(result.class_names)
        return np.asarray(overlay(image_rgb, result.class_ids, colors=table, background=place))
    rows = [(segment.id, segment.class_id, segment.isthing) for segment in result.segments]
    return np.asarray(segment_overlay(image_rgb, result.segment_ids, rows, result.class_names))


def _reduced(image_rgb: NDArray[np.uint8], placed: list[PlacedMask]) -> tuple[NDArray[np.uint8], list[PlacedMask]]:
    """An image and its masks with at most `_LARGEST_PX` pixels."""
    height_px, width_px = image_rgb.shape[:2]
    factor = (_LARGEST_PX / (height_px * width_px)) ** 0.5
    if factor >= 1:
        return image_rgb, placed
    size = max(1, int(width_px * factor)), max(1, int(height_px * factor))
    across, down = size[0] / width_px, size[1] / height_px

    def reduced(one: PlacedMask) -> PlacedMask:
        if not one.mask.size:
            return one
        left, top = int(one.left_px * across), int(one.top_px * down)
        right = min(size[0], int(np.ceil((one.left_px + one.mask.shape[1]) * across)))
        bottom = min(size[1], int(np.ceil((one.top_px + one.mask.shape[0]) * down)))
        small = cv2.resize(one.mask.astype(np.uint8) * 255, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        inside = PlacedMask.of(small >= 128)
        return PlacedMask(left + inside.left_px, top + inside.top_px, inside.mask)

    small_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small_rgb, np.uint8), [reduced(one) for one in placed]


def _png(pixels: NDArray[Any]) -> bytes:
    """A PNG of gray ``(H, W)`` uint8 or uint16, or of BGRA ``(H, W, 4)`` uint8."""
    return bytes(cv2.imencode(".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1])


def _as_file_name(name: str) -> str:
    """A class as part of a file name: letters, digits, dots and dashes; others become underscores."""
    return re.sub(r"[^\w.-]+", "_", name)[:_LONGEST_NAME].strip(".") or "_"
