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

from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.model.ledger import spreadsheet_cell
from d2tune.data.image_reader import Pixels
from d2tune.inference.measures import measure
from d2tune.inference.results import LabelMap
from d2tune.inference.writers.base import Images, WriterOptions
from d2tune.inference.writers.objects import AnyResult, ObjectsWriter, PredictedObject, lower_scores_of
from d2tune.report.sheets.label_overlay import to_rgb

MEASUREMENTS, COUNTS = "measurements.csv", "counts.csv"

_SPOOLED_BYTES = 1 << 22
_OBJECT = ("image", "object", "class", "score")
_LENGTHS = ("length", "width", "perimeter", "diameter", "feret")
_PLAIN = ("angle_deg", "circularity", "x_px", "y_px", "left_px", "top_px", "box_width_px", "box_height_px")
_COLORS = ("red", "green", "blue", "touches_border")


class MeasurementsWriter(ObjectsWriter[list[Any]]):
    """Writes ``measurements.csv`` with a row for each object, and ``counts.csv`` with one for each image and class.

    Lengths are in pixels and, with `WriterOptions.mm_per_px`, in millimeters as well; see `measures.Measures`. The
    color is the mean of the pixels of the object as they are shown, from 0 to 255.
    """

    keeps_pixels = True

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options, background=background)
        self.refuse_foreign()
        self._measurements = CsvRows(out / MEASUREMENTS, self._columns(), self._stack)
        area = ("area_px2", "share") if options.mm_per_px is None else ("area_px2", "share", "area_mm2")
        self._counts = CsvRows(out / COUNTS, ("image", "class", "objects", *area), self._stack)

    def final_files(self) -> list[Path]:
        """Both tables."""
        return [self.out / MEASUREMENTS, self.out / COUNTS]

    def _columns(self) -> list[str]:
        columns = [*_OBJECT, "area_px2", *(f"{name}_px" for name in _LENGTHS), *_PLAIN, *_COLORS]
        if self.options.mm_per_px is not None:
            columns += ["area_mm2", *(f"{name}_mm" for name in _LENGTHS)]
        return columns

    def convert(self, index: int, result: AnyResult, pixels: Pixels | None) -> list[Any]:
        """Height, width, the rows of the objects, the pixels of each class, the number of objects, lower scores."""
        assert pixels is not None
        image_rgb = to_rgb(pixels)
        rows: list[list[Any]] = []
        classes = len(self.predictor.class_names)
        objects, area_px2 = [0] * classes, [0] * classes
        size = result.height_px, result.width_px
        for one in self.objects(result):
            rows.append(self._row(index, one, image_rgb, size))
            objects[one.class_id] += 1
            area_px2[one.class_id] += int(one.mask.sum())
        if isinstance(result, LabelMap):  # the background has pixels, but no objects
            area_px2 = [int((result.class_ids == class_id).sum()) for class_id in range(classes)]
        return [*size, rows, area_px2, objects, lower_scores_of(result)]

    def _row(self, index: int, one: PredictedObject, image_rgb: Any, size: tuple[int, int]) -> list[Any]:
        measures = measure(one.mask, left_px=one.left_px, top_px=one.top_px)
        height, width = one.mask.shape
        right, bottom = one.left_px + width, one.top_px + height
        touches = one.left_px == 0 or one.top_px == 0 or right == size[1] or bottom == size[0]
        color = one.window(image_rgb)[one.mask].mean(axis=0)
        lengths = [
            measures.length_px,
            measures.width_px,
            measures.perimeter_px,
            measures.diameter_px,
            measures.feret_px,
        ]
        row: list[Any] = [self.images.name(index), one.number, self.class_name(one)]
        row += ["" if one.score is None else one.score, measures.area_px2, *map(_rounded, lengths)]
        row += map(_rounded, (measures.angle_deg, measures.circularity, measures.x_px, measures.y_px))
        row += [one.left_px, one.top_px, width, height, *(round(float(value), 1) for value in color)]
        row.append("yes" if touches else "no")
        scale = self.options.mm_per_px
        if scale is not None:
            row += [_significant(measures.area_px2 * scale**2), *(_significant(length * scale) for length in lengths)]
        return row

    def add(self, index: int, kept: list[Any]) -> int:
        """Append the rows of the image."""
        height_px, width_px, rows, area_px2, objects, lower = kept
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        for row in rows:
            self._measurements.add(row)
        for class_id, name in enumerate(self.predictor.class_names):
            row = [self.images.name(index), name, objects[class_id], area_px2[class_id]]
            row.append(round(area_px2[class_id] / (height_px * width_px), 6))
            if self.options.mm_per_px is not None:
                row.append(_significant(area_px2[class_id] * self.options.mm_per_px**2))
            self._counts.add(row)
        return len(rows)

    def finish(self) -> None:
        """Write both tables."""
        self._measurements.write()
        self._counts.write()


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
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([spreadsheet_cell(value) for value in row])
        self._spool.write(line.getvalue().encode("utf-8", errors="backslashreplace"))

    def write(self) -> None:
        """Write the file."""
        self._spool.seek(0)
        write_output(self._path, iter(lambda: self._spool.read(1 << 20), b""), kind=PREDICTIONS)


def _rounded(value: float) -> float:
    return round(float(value), 3)


def _significant(value: float) -> float:
    """A value with six significant digits, because a scale may be of any size."""
    if not value:
        return 0.0
    return float(np.round(value, 5 - math.floor(math.log10(abs(value)))))
