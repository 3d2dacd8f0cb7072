"""Writer of the measures of each object, and of the number of objects on each image, as CSV files."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.model.ledger import spreadsheet_cell
from d2tune.data.image_reader import Pixels
from d2tune.inference.measures import measure
from d2tune.inference.paste import encode_crop
from d2tune.inference.results import LabelMap
from d2tune.inference.writers.base import Images, WriterOptions
from d2tune.inference.writers.objects import AnyResult, ObjectsWriter, PredictedObject, lower_scores_of

MEASUREMENTS, COUNTS = "measurements.csv", "counts.csv"

_SPOOLED_BYTES = 1 << 22
_OBJECT = ("image", "object", "class", "score")
_LENGTHS = ("length", "width", "perimeter", "diameter", "feret")
_PLAIN = ("angle_deg", "circularity", "pieces", "x_px", "y_px", "left_px", "top_px", "box_width_px", "box_height_px")
_COLORS = {1: ("gray",), 3: ("red", "green", "blue")}


class MeasurementsWriter(ObjectsWriter[list[Any]]):
    """Writes ``measurements.csv`` with a row for each object, and ``counts.csv`` with one for each image and class.

    Lengths are in pixels and, with `WriterOptions.mm_per_px`, in millimeters as well; see `measures.Measures`. The
    color is the mean of the pixels of the object: of photos as they are shown, from 0 to 255, of rasters the mean of
    each channel. The area of a class is that of the pixels of all its objects, each pixel counted once.
    """

    keeps_pixels = True

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options, background=background)
        self.refuse_foreign()
        self._measurements = CsvRows(out / MEASUREMENTS, self._columns(), self._stack)
        area = ("area_px2", "share_percent")
        millimeters = () if options.mm_per_px is None else ("area_mm2",)
        self._counts = CsvRows(out / COUNTS, ("image", "class", "objects", *area, *millimeters), self._stack)

    def final_files(self) -> list[Path]:
        """Both tables."""
        return [self.out / MEASUREMENTS, self.out / COUNTS]

    def _columns(self) -> list[str]:
        channels = self.predictor.reader.channels or 3
        colors = _COLORS.get(channels) or [f"channel_{number}" for number in range(1, channels + 1)]
        columns = [*_OBJECT, "area_px2", *(f"{name}_px" for name in _LENGTHS), *_PLAIN, *colors, "touches_border"]
        if self.options.mm_per_px is not None:
            columns += ["area_mm2", *(f"{name}_mm" for name in _LENGTHS)]
        return columns

    def convert(self, index: int, result: AnyResult, pixels: Pixels | None) -> list[Any]:
        """Height, width, the rows of the objects, their number by class, the pixels of each class, lower scores.

        The pixels of the classes are followed by those of the image that have data.
        """
        assert pixels is not None
        size = result.height_px, result.width_px
        rows: list[list[Any]] = []
        objects = [0] * len(self.predictor.class_names)
        covered: list[list[Any]] = [[] for _ in objects]
        for one in self.objects(result):
            rows.append(self._row(index, one, pixels, size))
            objects[one.class_id] += 1
            if not isinstance(result, LabelMap):
                covered[one.class_id].append(_as_rle(one, size))
        if isinstance(result, LabelMap):  # the background has pixels, but no objects
            counts = np.bincount(result.class_ids.reshape(-1), minlength=IGNORE_LABEL + 1)
            area_px2 = [*counts[: len(objects)].tolist(), int(result.class_ids.size - counts[IGNORE_LABEL])]
        else:
            area_px2 = [*map(_union_px2, covered), size[0] * size[1]]
        return [*size, rows, objects, area_px2, lower_scores_of(result)]

    def _row(self, index: int, one: PredictedObject, pixels: Pixels, size: tuple[int, int]) -> list[Any]:
        measures = measure(one.mask, left_px=one.left_px, top_px=one.top_px)
        height, width = one.mask.shape
        right, bottom = one.left_px + width, one.top_px + height
        touches = one.left_px == 0 or one.top_px == 0 or right == size[1] or bottom == size[0]
        lengths = [
            measures.length_px,
            measures.width_px,
            measures.perimeter_px,
            measures.diameter_px,
            measures.feret_px,
        ]
        row: list[Any] = [self.images.name(index), one.number, self.class_name(one)]
        row += ["" if one.score is None else one.score, measures.area_px2, *map(_rounded, lengths)]
        row += [_rounded(measures.angle_deg), _rounded(measures.circularity), measures.pieces]
        row += [_rounded(measures.x_px), _rounded(measures.y_px)]
        row += [one.left_px, one.top_px, width, height, *_mean_color(one.window(pixels)[one.mask])]
        row.append("yes" if touches else "no")
        scale = self.options.mm_per_px
        if scale is not None:
            row += [_significant(measures.area_px2 * scale**2), *(_significant(length * scale) for length in lengths)]
        return row

    def add(self, index: int, kept: list[Any]) -> int:
        """Append the rows of the image."""
        height_px, width_px, rows, objects, area_px2, lower = kept
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        for row in rows:
            self._measurements.add(row)
        whole_px2 = max(1, area_px2[-1])
        for class_id, name in enumerate(self.predictor.class_names):
            row = [self.images.name(index), name, objects[class_id], area_px2[class_id]]
            row.append(round(100 * area_px2[class_id] / whole_px2, 4))
            if self.options.mm_per_px is not None:
                row.append(_significant(area_px2[class_id] * self.options.mm_per_px**2))
            self._counts.add(row)
        return len(rows)

    def finish(self) -> None:
        """Write both tables."""
        self._measurements.write()
        self._counts.write()


def _as_rle(one: PredictedObject, size: tuple[int, int]) -> dict[str, Any]:
    """The mask of an object on the whole image, as run lengths."""
    return encode_crop(one.mask, one.left_px, one.top_px, height_px=size[0], width_px=size[1])


def _union_px2(rles: list[dict[str, Any]]) -> int:
    """The number of pixels of any of the masks."""
    return int(mask_utils.area(mask_utils.merge(rles))) if rles else 0


def _mean_color(values: NDArray[Any]) -> list[float | str]:
    """The mean of each channel of pixels ``(P, C)``; empty where no pixel has data."""
    known = np.isfinite(values)
    counts = known.sum(axis=0).tolist()
    sums = np.where(known, values, 0).sum(axis=0, dtype=np.float64).tolist()
    means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    is_photo = values.dtype == np.uint8
    return ["" if mean is None else round(mean, 1) if is_photo else _significant(mean) for mean in means]


class _Quoted(csv.excel):
    """A dialect that quotes all fields."""

    quoting = csv.QUOTE_ALL


class CsvRows:
    """A CSV whose rows are appended in order, written atomically at the end; formulas become text.

    Args:
        path: The file.
        columns: Its header.
        stack: Closes the temporary file.
    """

    def __init__(self, path: Path, columns: Sequence[str], stack: ExitStack) -> None:
        self._path = path
        spool = stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOLED_BYTES))  # noqa: SIM115
        self._spool: IO[bytes] = spool
        self.add(columns)

    def add(self, row: Sequence[Any]) -> None:
        """Append a row."""
        line, cells = io.StringIO(), [spreadsheet_cell(value) for value in row]
        # csv quotes fields with a line feed, but not those with a carriage return
        has_returns = any("\r" in cell for cell in cells if isinstance(cell, str))
        dialect = "excel" if not has_returns else _Quoted
        csv.writer(line, dialect, lineterminator="\n").writerow(cells)
        self._spool.write(line.getvalue().encode("utf-8", errors="backslashreplace"))

    def write(self) -> None:
        """Write the file."""
        self._spool.seek(0)
        write_output(self._path, iter(lambda: self._spool.read(1 << 20), b""), kind=PREDICTIONS)


def _rounded(value: float) -> float | str:
    """A value with three digits; empty for NaN."""
    return "" if math.isnan(value) else round(float(value), 3)


def _significant(value: float) -> float | str:
    """A value with six significant digits, because a scale may be of any size; empty for NaN."""
    if math.isnan(value):
        return ""
    if not value:
        return 0.0
    return float(np.round(value, 5 - math.floor(math.log10(abs(value)))))
