"""Predictions of one image in memory: detections, a label map, or a panoptic map.

Class ids are contiguous: the index of a class in ``class_names``, from 0. Coordinates are in pixels of the image with
its EXIF orientation applied.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.formats import labelme
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.types import Rle
from d2tune.errors import MachineError

CocoResult = dict[str, Any]
"""A row of COCO's results format: image_id, category_id, bbox (XYWH), score, segmentation (RLE)."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Detections:
    """The N instances detected on an image, in descending order of their scores.

    Attributes:
        height_px: Height of the image.
        width_px: Width of the image.
        boxes_xyxy: ``(N, 4)`` float32, left, top, right, bottom in pixels.
        scores: ``(N,)`` float32, from 0 to 1.
        class_ids: ``(N,)`` int64, indices of ``class_names``.
        rles: N run-length masks of the whole image, which take a thousandth of the memory of bitmaps; None if the
            model predicts no masks.
        class_names: All classes in the order of their ids.
        lower_scores: The scores, rounded to six digits and in descending order, of instances that are not among the N
            because they are below the lowest score of their class.
    """

    height_px: int
    width_px: int
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    rles: tuple[Rle, ...] | None
    class_names: tuple[str, ...]
    lower_scores: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"<Detections: {len(self)} on {self.width_px} x {self.height_px} px>"

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The masks as bitmaps ``(N, H, W)``; ``(0, H, W)`` without masks."""
        if not self.rles:
            return np.zeros((0, self.height_px, self.width_px), dtype=bool)
        return np.stack([decode_rle(rle) for rle in self.rles])

    def at_least(self, score: float) -> Detections:
        """The detections whose score, rounded to six digits as in files, is at least ``score``.

        The scores of the other ones are added to ``lower_scores``.
        """
        scores = [rounded_score(value) for value in self.scores]
        kept = np.flatnonzero([value >= score for value in scores])
        lower = [value for value in scores if value < score]
        return Detections(
            self.height_px,
            self.width_px,
            self.boxes_xyxy[kept],
            self.scores[kept],
            self.class_ids[kept],
            None if self.rles is None else tuple(self.rles[index] for index in kept),
            self.class_names,
            tuple(sorted([*self.lower_scores, *lower], reverse=True)),
        )

    def to_coco(self, image_id: int, *, category_ids: Sequence[int | str] | None = None) -> list[CocoResult]:
        """Rows in COCO's results format: boxes with three digits, scores with six, masks as compressed run lengths.

        Args:
            image_id: Id of the image in the COCO file.
            category_ids: Id of each class in the COCO file; None counts from 1.
        """
        ids: Sequence[int | str] = range(1, len(self.class_names) + 1) if category_ids is None else category_ids
        rows: list[CocoResult] = []
        for index, box in enumerate(self.boxes_xyxy):
            x0, y0, x1, y1 = box.tolist()
            row: CocoResult = {
                "image_id": image_id,
                "category_id": ids[int(self.class_ids[index])],
                "bbox": [round(side, 3) for side in (x0, y0, x1 - x0, y1 - y0)],
                "score": rounded_score(self.scores[index]),
            }
            if self.rles is not None:
                row["segmentation"] = self.rles[index].to_coco()
            rows.append(row)
        return rows

    def to_dataset(self, image: Image) -> Dataset:
        """A dataset of the image with an instance for each detection.

        Args:
            image: The image; its id is kept. Ids of categories and instances count from 1.
        """
        categories = tuple(Category(number, name) for number, name in enumerate(self.class_names, start=1))
        instances = []
        for number, row in enumerate(self.to_coco(image.id), start=1):
            if self.rles is None:
                x, y, width, height = row["bbox"]
                corners = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
                segmentation: Rle | tuple[NDArray[np.float64], ...] = (corners,)
                area_px2 = width * height
            else:
                segmentation = self.rles[number - 1]
                area_px2 = float(mask_utils.area(row["segmentation"]))
            ids = number, image.id, row["category_id"]
            instances.append(Instance(*ids, segmentation, tuple(row["bbox"]), area_px2, score=row["score"]))
        return Dataset((image,), categories, tuple(instances))

    def to_labelme(self, image_name: str, *, tolerance_px: float = 1.0) -> dict[str, Any]:
        """The content of a Labelme file; its shapes have the flag ``prediction`` and the score.

        Args:
            image_name: The value of ``imagePath``: the path of the image relative to the folder of the Labelme file.
            tolerance_px: Largest distance of the outlines from the outlines of the masks.
        """
        image = Image(1, image_name, self.width_px, self.height_px)
        return labelme.file_content(self.to_dataset(image), Path(image_name), tolerance_px=tolerance_px)

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with boxes, masks, confidence, class ids, and names in ``data['class_name']``.

        Raises:
            MachineError: The library ``supervision`` is not installed.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError:
            raise MachineError(
                "the library supervision is not installed", hint="Install it: pip install supervision."
            ) from None
        names = np.array([self.class_names[int(class_id)] for class_id in self.class_ids], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes_xyxy.reshape(-1, 4).astype(np.float32),
            mask=None if self.rles is None or not len(self) else self.masks,
            confidence=self.scores.astype(np.float32),
            class_id=self.class_ids.astype(int),
            data={"class_name": names},
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelMap:
    """The class of each pixel of an image.

    Attributes:
        class_ids: ``(H, W)`` uint8, indices of ``class_names``; 255 for pixels without data in all channels.
        class_names: All classes in the order of their ids.
    """

    class_ids: NDArray[np.uint8]
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<LabelMap: {len(self.class_names)} classes on {self.width_px} x {self.height_px} px>"

    @property
    def height_px(self) -> int:
        """Height of the image, in pixels."""
        return int(self.class_ids.shape[0])

    @property
    def width_px(self) -> int:
        """Width of the image, in pixels."""
        return int(self.class_ids.shape[1])

    def mask(self, class_name: str) -> NDArray[np.bool_]:
        """The pixels of a class as a bitmap ``(H, W)``.

        Raises:
            ValueError: ``class_name`` is not among the classes.
        """
        if class_name not in self.class_names:
            raise ValueError(f"there is no class {class_name!r}; the classes are {', '.join(self.class_names)}")
        return np.asarray(self.class_ids == self.class_names.index(class_name))


@dataclass(frozen=True, slots=True)
class Segment:
    """An object or a region of a panoptic map.

    Attributes:
        id: The id of the segment in ``PanopticMap.segment_ids``, from 1.
        class_id: Index of its class in ``PanopticMap.class_names``.
        isthing: True for an object of a thing class, False for a region of a stuff class.
        area_px2: Number of its pixels.
        score: Score of an object, from 0 to 1; None if the model gives none.
    """

    id: int
    class_id: int
    isthing: bool
    area_px2: int
    score: float | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PanopticMap:
    """The objects and regions of an image; each pixel belongs to at most one of them.

    Attributes:
        segment_ids: ``(H, W)`` int32; 0 for pixels without a segment.
        segments: The segment of each id.
        class_names: All classes in the order of their ids, things before stuff.
    """

    segment_ids: NDArray[np.int32]
    segments: tuple[Segment, ...]
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<PanopticMap: {len(self.segments)} segments on {self.width_px} x {self.height_px} px>"

    @property
    def height_px(self) -> int:
        """Height of the image, in pixels."""
        return int(self.segment_ids.shape[0])

    @property
    def width_px(self) -> int:
        """Width of the image, in pixels."""
        return int(self.segment_ids.shape[1])

    def to_segments_info(self) -> list[dict[str, Any]]:
        """``segments_info`` of COCO's panoptic format; category ids count from 1."""
        rows = []
        for segment in self.segments:
            row: dict[str, Any] = {
                "id": segment.id,
                "category_id": segment.class_id + 1,
                "isthing": int(segment.isthing),
                "area": segment.area_px2,
            }
            rows.append(row if segment.score is None else row | {"score": rounded_score(segment.score)})
        return rows


def rounded_score(score: float) -> float:
    """A score with six digits, as in files."""
    return round(float(score), 6)


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The bitmap ``(H, W)`` of a run-length mask."""
    mask: NDArray[np.uint8] = mask_utils.decode({"size": [rle.height_px, rle.width_px], "counts": rle.counts.encode()})
    return mask.astype(bool)
