"""Writer of detections as YOLO's label files of polygons, with confidences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.yolo.writer import description_of, lines_of, log_unlike
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.model.dataset import Image
from d2tune.data.image_reader import Pixels
from d2tune.inference.results import Detections
from d2tune.inference.writers.base import Images, Writer, WriterOptions


class YoloWriter(Writer[Detections, list[Any]]):
    """Writes ``labels/NAME.txt`` for each image, and ``data.yaml`` and ``classes.txt`` with the classes.

    A line is the number of the class from 0, the polygon in shares of the image, and the score. Holes and pieces are
    joined as in `formats.yolo.writer`.
    """

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._files = images.output_files(out / "labels", ".txt")
        self._unlike = Counter[str]()
        self.refuse_foreign()

    def files_of(self, index: int) -> list[Path]:
        """The label file of an image."""
        return [self._files[index]]

    def final_files(self) -> list[Path]:
        """``data.yaml`` and ``classes.txt``."""
        return [self.out / "data.yaml", self.out / "classes.txt"]

    def convert(self, index: int, result: Detections, pixels: Pixels | None) -> list[Any]:
        """Write the label file; returns height and width, the number of lines, lower scores, and what was joined."""
        image = Image(1, self.images.name(index), result.width_px, result.height_px)
        instances = [one for one in result.to_dataset(image).instances if one.area_px2]
        unlike = Counter[str]()
        lines = list(lines_of(instances, image, unlike, with_scores=True))
        write_output(self._files[index], "".join(lines).encode("ascii"), kind=PREDICTIONS)
        return [result.height_px, result.width_px, len(lines), list(result.lower_scores), dict(unlike)]

    def add(self, index: int, kept: list[Any]) -> int:
        """Count the image and its instances."""
        height_px, width_px, instances, lower, unlike = kept
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        self._unlike.update(unlike)
        return int(instances)

    def finish(self) -> None:
        """Write the classes, and log how many objects YOLO's labels do not express."""
        names = self.predictor.class_names
        write_output(self.out / "data.yaml", description_of(names), kind=PREDICTIONS)
        lines = "".join(f"{' '.join(name.split())}\n" for name in names)
        write_output(self.out / "classes.txt", lines.encode("utf-8", errors="backslashreplace"), kind=PREDICTIONS)
        log_unlike(self._unlike, self.out)
