"""Writers of panoptic maps: a COCO panoptic file, or Labelme files to correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.formats.panoptic import to_colors
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.data.label_maps import encode_png
from d2tune.inference.results import PanopticMap
from d2tune.inference.writers.base import Images, JsonRows, LabelmeFiles, Writer, WriterOptions


class CocoPanopticWriter(Writer[PanopticMap, Any]):
    """Writes ``panoptic.json`` with its PNGs in ``panoptic``."""

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._folder = out / "panoptic"
        self._files = images.output_files(self._folder, ".png")
        self.refuse_foreign()
        categories = [
            {"id": self.category_id(class_id), "name": name, "isthing": int(class_id < predictor.things)}
            for class_id, name in enumerate(predictor.class_names)
        ]
        lists = {"images": None, "annotations": None, "categories": categories}
        self._rows = JsonRows(out / "panoptic.json", lists, self._stack)

    def files_of(self, index: int) -> list[Path]:
        """The PNG of an image."""
        return [self._files[index]]

    def final_files(self) -> list[Path]:
        """``panoptic.json``."""
        return [self.out / "panoptic.json"]

    def convert(self, index: int, result: PanopticMap, pixels: Pixels | None) -> Any:
        """Write the PNG; returns height and width of the image and its ``segments_info``."""
        write_output(self._files[index], encode_png(to_colors(result.segment_ids)), kind=PREDICTIONS)
        infos = [
            info | {"category_id": self.category_id(info["category_id"] - 1)} for info in result.to_segments_info()
        ]
        return [result.height_px, result.width_px, infos]

    def add(self, index: int, kept: Any) -> int:
        """Append the image and its segments."""
        height_px, width_px, infos = kept
        image = self.image_row(index, height_px, width_px)
        self._rows.add("images", image)
        name = self._files[index].relative_to(self._folder).as_posix()
        self._rows.add("annotations", {"image_id": image["id"], "file_name": name, "segments_info": infos})
        return len(infos)

    def finish(self) -> None:
        """Write ``panoptic.json``."""
        self._rows.write()


class LabelmeSegmentsWriter(LabelmeFiles[PanopticMap]):
    """Writes Labelme files with an outline for each segment."""

    def dataset(self, image: Image, result: PanopticMap) -> Dataset:
        """The segments of the map."""
        masks = [(segment.class_id, result.segment_ids == segment.id) for segment in result.segments]
        return dataset_of_masks([image], [masks], result.class_names)
