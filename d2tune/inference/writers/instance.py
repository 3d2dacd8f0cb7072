"""Writers of detections: a COCO file with drawn images, or Labelme files to correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycocotools import mask as mask_utils

from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.inference.results import Detections
from d2tune.inference.writers.base import Images, JsonRows, LabelmeFiles, Writer, WriterOptions, write_jpeg
from d2tune.report.sheets.contact_sheet import draw_instances


class CocoWriter(Writer[Detections, Detections]):
    """Writes ``predictions.json``, a COCO file with scores, and ``NAME.predicted.jpg`` for each image."""

    keeps_pixels = True

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        categories = [{"id": number, "name": name} for number, name in enumerate(predictor.class_names, start=1)]
        lists = {"images": None, "categories": categories, "annotations": None}
        self._rows = JsonRows(out / "predictions.json", lists, self._stack)
        self._annotations = 0

    def convert(self, index: int, result: Detections, pixels: Pixels | None) -> Detections:
        """Draw the detections with at least the lowest score, and return them."""
        kept = result.at_least(self.options.min_score)
        assert pixels is not None
        names = [kept.class_names[class_id] for class_id in kept.class_ids.tolist()]
        scores = [row["score"] for row in kept.to_coco(0)]
        image_rgb = draw_instances(pixels, kept.masks, names, scores=scores)
        write_jpeg(self.out / f"{self.images.name(index)}.predicted.jpg", image_rgb)
        return kept

    def add(self, index: int, kept: Detections) -> int:
        """Append the image and its detections."""
        image = self.image_of(index, kept.height_px, kept.width_px)
        size = {"width": image.width_px, "height": image.height_px}
        self._rows.add("images", {"id": image.id, "file_name": image.file_name} | size)
        rows = kept.to_coco(image.id)
        for row in rows:
            self._annotations += 1
            if "segmentation" in row:
                area_px2 = float(mask_utils.area(row["segmentation"]))
            else:
                area_px2 = row["bbox"][2] * row["bbox"][3]
            self._rows.add("annotations", {"id": self._annotations, "iscrowd": 0, "area": area_px2} | row)
        return len(rows)

    def finish(self) -> None:
        """Write ``predictions.json``."""
        self._rows.write()


class LabelmeWriter(LabelmeFiles[Detections]):
    """Writes Labelme files with the outlines of the detections, and their scores."""

    def dataset(self, image: Image, result: Detections) -> Dataset:
        """The detections with at least the lowest score."""
        return result.at_least(self.options.min_score).to_dataset(image)
