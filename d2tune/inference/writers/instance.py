"""Writers of detections: a COCO file, or Labelme files to correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycocotools import mask as mask_utils

from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.inference.results import Detections
from d2tune.inference.writers.base import Images, JsonRows, LabelmeFiles, Writer, WriterOptions


class CocoWriter(Writer[Detections, dict[str, Any]]):
    """Writes ``predictions.json``, a COCO file with scores."""

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        categories = [
            {"id": self.category_id(class_id), "name": name} for class_id, name in enumerate(predictor.class_names)
        ]
        self.refuse_foreign()
        lists = {"images": None, "categories": categories, "annotations": None}
        self._rows = JsonRows(out / "predictions.json", lists, self._stack)
        self._annotations = 0

    def final_files(self) -> list[Path]:
        """``predictions.json``."""
        return [self.out / "predictions.json"]

    def convert(self, index: int, result: Detections, pixels: Pixels | None) -> dict[str, Any]:
        """The detections, and the scores of those below the lowest score."""
        category_ids = [self.category_id(class_id) for class_id in range(len(result.class_names))]
        rows = result.to_coco(0, category_ids=category_ids)
        return {"height": result.height_px, "width": result.width_px, "rows": rows, "lower": list(result.lower_scores)}

    def add(self, index: int, kept: dict[str, Any]) -> int:
        """Append the image and its detections."""
        image = self.image_row(index, kept["height"], kept["width"])
        self._rows.add("images", image)
        self.count_lower(kept["lower"])
        rows = [row | {"image_id": image["id"]} for row in kept["rows"]]
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
        """The detections."""
        return result.to_dataset(image)

    def lower_scores(self, result: Detections) -> list[float]:
        """The scores of instances below the lowest score."""
        return list(result.lower_scores)
