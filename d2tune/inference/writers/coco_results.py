"""Writer of detections as COCO results, the list that COCO's tools load beside a ground truth."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import IO, Any

from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.data.image_reader import Pixels
from d2tune.inference.results import Detections
from d2tune.inference.writers.base import Images, JsonRows, Writer, WriterOptions

RESULTS, IMAGES = "results.json", "predicted_images.json"

_SPOOLED_BYTES = 1 << 22


class CocoResultsWriter(Writer[Detections, dict[str, Any]]):
    """Writes ``results.json`` with a row for each instance, and ``predicted_images.json`` with the images of the ids.

    The ids are those of the file of annotations that the images are from; others count from 1. As in the predictions of
    an evaluation, rows have the names of image and class as well, and ``predicted_images.json`` has the sizes of the
    image files.
    """

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self.refuse_foreign()
        names = predictor.class_names
        categories = [{"id": self.category_id(class_id), "name": name} for class_id, name in enumerate(names)]
        tables = {"schema": 1, "images": None, "categories": categories}
        self._images = JsonRows(out / IMAGES, tables, self._stack)
        spool = self._stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOLED_BYTES))  # noqa: SIM115
        self._spool: IO[bytes] = spool

    def final_files(self) -> list[Path]:
        """Both files."""
        return [self.out / RESULTS, self.out / IMAGES]

    def convert(self, index: int, result: Detections, pixels: Pixels | None) -> dict[str, Any]:
        """Height and width of the image, the size of its file, its rows, and lower scores."""
        category_ids = [self.category_id(class_id) for class_id in range(len(result.class_names))]
        names = [result.class_names[class_id] for class_id in result.class_ids.tolist()]
        coco = result.to_coco(0, category_ids=category_ids)
        rows = [row | {"category_name": name} for row, name in zip(coco, names, strict=True)]
        path = self.images.paths[index]
        size_bytes = path.stat().st_size if path.is_file() else None
        size_px = [result.height_px, result.width_px]
        return {"size": size_px, "bytes": size_bytes, "rows": rows, "lower": list(result.lower_scores)}

    def add(self, index: int, kept: dict[str, Any]) -> int:
        """Append the rows of the image."""
        image = self.image_row(index, *kept["size"])
        self._images.add("images", image | {"bytes": kept["bytes"]})
        self.count_lower(kept["lower"])
        for row in kept["rows"]:
            line = json.dumps(row | {"image_id": image["id"], "file_name": image["file_name"]}, ensure_ascii=False)
            line_bytes = line.encode("utf-8", errors="backslashreplace")
            self._spool.write((b",\n" if self._spool.tell() else b"[") + line_bytes)
        return len(kept["rows"])

    def finish(self) -> None:
        """Write both files."""
        self._spool.write(b"]\n" if self._spool.tell() else b"[]\n")
        self._spool.seek(0)
        write_output(self.out / RESULTS, iter(lambda: self._spool.read(1 << 20), b""), kind=PREDICTIONS)
        self._images.write()
