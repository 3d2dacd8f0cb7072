"""The objects of one image as the page draws them and as the database keeps them.

An object is an instance, a segment of a panoptic map, or a connected region of a label map.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import Patch, decode_mask, encode_mask, rasterize, to_rle, union_rles
from d2tune.annotations.geometry.tracing import RaggedMaskError, patch_outlines
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.types import Mask, Points, Rle
from d2tune.inference.results import Detections, LabelMap, PanopticMap, rounded_score

Prediction = Detections | LabelMap | PanopticMap

REGIONS = 60
"""The largest regions of a class of a label map are objects; all further ones are one object together."""

_BACKGROUNDS = frozenset({"background", "_background_"})
_SIMPLIFIED_PX = 0.75


@dataclass(frozen=True, slots=True)
class ShownObject:
    """An object of an image.

    Attributes:
        number: From 1, in the order of the prediction.
        class_name: Its class.
        score: From 0 to 1 with six digits; None where the model gives none.
        box_xywh: Left, top, width and height, in pixels.
        area_px2: Number of its pixels; of a box its area.
        rings: Closed outlines, flat ``x, y`` lists in pixels; what an even number of them encloses is a hole.
        rle_counts: Compressed run lengths of its mask on the whole image; None for a box.
    """

    number: int
    class_name: str
    score: float | None
    box_xywh: tuple[float, float, float, float]
    area_px2: float
    rings: tuple[tuple[float, ...], ...]
    rle_counts: str | None = None

    def as_stored(self) -> dict[str, Any]:
        """The object as JSON."""
        return asdict(self)

    def as_shown(self) -> dict[str, Any]:
        """The object as JSON for the page, without run lengths."""
        row = asdict(self)
        del row["rle_counts"]
        return row

    @classmethod
    def from_stored(cls, row: dict[str, Any]) -> ShownObject:
        """The object that `as_stored` wrote."""
        rings = tuple(tuple(ring) for ring in row["rings"])
        return cls(**(row | {"box_xywh": tuple(row["box_xywh"]), "rings": rings}))


def is_background(class_name: str, background: str | None) -> bool:
    """Whether a class has no objects.

    Args:
        class_name: The class.
        background: The class of a model that has none; None for none.
    """
    return class_name == background or class_name.strip().casefold() in _BACKGROUNDS


def objects_of(prediction: Prediction, *, background: str | None = None) -> list[ShownObject]:
    """The objects of a prediction.

    Args:
        prediction: What a model predicts on an image.
        background: The class of a label map that has no objects; one that is named background never has.
    """
    if isinstance(prediction, Detections):
        return _of_detections(prediction)
    if isinstance(prediction, LabelMap):
        return _numbered(_of_label_map(prediction, background), prediction.height_px, prediction.width_px)
    return _numbered(_of_panoptic_map(prediction), prediction.height_px, prediction.width_px)


def truth_of(instances: Sequence[Instance], class_names: dict[int, str], image: Image) -> list[ShownObject]:
    """The objects that a person annotated on an image.

    Args:
        instances: The instances of the image; crowds and regions of stuff are shown like the others.
        class_names: Names of the classes by id.
        image: The image.
    """
    shown = []
    for number, instance in enumerate(instances, start=1):
        if isinstance(instance.segmentation, Rle):
            rings, counts = _rings(decode_mask(instance.segmentation)), instance.segmentation.counts
        else:
            rings = tuple(_flat(points) for points in instance.segmentation)
            counts = None
        name = class_names[instance.category_id]
        shown.append(ShownObject(number, name, None, instance.bbox_xywh, instance.area_px2, rings, counts))
    return shown


def to_dataset(objects: Sequence[ShownObject], image: Image, class_names: Sequence[str]) -> Dataset:
    """Objects as instances of one image, with ids equal to their numbers.

    Args:
        objects: The objects.
        image: The image.
        class_names: All classes in the order of their ids.
    """
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    instances = []
    for one in objects:
        rings = tuple(np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in one.rings)
        segmentation: Rle | tuple[Points, ...] = rings
        if one.rle_counts is not None:
            segmentation = Rle(image.height_px, image.width_px, one.rle_counts)
        head = one.number, image.id, ids[one.class_name], segmentation, one.box_xywh, one.area_px2
        instances.append(Instance(*head, score=one.score))
    categories = tuple(Category(number, name) for name, number in ids.items())
    return Dataset((image,), categories, tuple(instances))


def polygon_rle(polygons: Iterable[Points], *, width_px: int, height_px: int) -> Rle:
    """The union of polygons as a run-length mask."""
    return to_rle(union_rles(rasterize(list(polygons), width_px=width_px, height_px=height_px)))


def _of_detections(detections: Detections) -> list[ShownObject]:
    shown = []
    for index, box in enumerate(detections.boxes_xyxy):
        x0, y0, x1, y1 = (round(float(side), 2) for side in box)
        xywh = x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)
        area_px2, counts = xywh[2] * xywh[3], None
        rings: tuple[tuple[float, ...], ...] = ((x0, y0, x1, y0, x1, y1, x0, y1),)
        if detections.rles is not None:
            counts = detections.rles[index].counts
            mask = decode_mask(detections.rles[index])
            rings, area_px2 = _rings(mask), float(np.count_nonzero(mask))
        name = detections.class_names[int(detections.class_ids[index])]
        score = rounded_score(detections.scores[index])
        shown.append(ShownObject(index + 1, name, score, xywh, area_px2, rings, counts))
    return shown


_Region = tuple[str, float | None, Mask]


def _of_label_map(labels: LabelMap, background: str | None) -> Iterator[_Region]:
    """The regions of each class, larger ones first."""
    for name in labels.class_names:
        if is_background(name, background):
            continue
        count, regions, measures, _ = cv2.connectedComponentsWithStats(labels.mask(name).view(np.uint8), connectivity=8)
        order = 1 + np.argsort(-measures[1:, cv2.CC_STAT_AREA], kind="stable")
        for number in order[:REGIONS]:
            yield name, None, regions == number
        if count - 1 > REGIONS:
            yield name, None, np.isin(regions, order[REGIONS:])


def _of_panoptic_map(panoptic: PanopticMap) -> Iterator[_Region]:
    for segment in panoptic.segments:
        score = None if segment.score is None else rounded_score(segment.score)
        yield panoptic.class_names[segment.class_id], score, panoptic.segment_ids == segment.id


def _numbered(regions: Iterable[_Region], height_px: int, width_px: int) -> list[ShownObject]:
    shown: list[ShownObject] = []
    for name, score, mask in regions:
        if not mask.any():
            continue
        left, top, width, height = _box(mask)
        rle = to_rle(encode_mask(mask))
        box = float(left), float(top), float(width), float(height)
        area_px2 = float(np.count_nonzero(mask))
        shown.append(ShownObject(len(shown) + 1, name, score, box, area_px2, _rings(mask), rle.counts))
    return shown


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def _rings(mask: Mask) -> tuple[tuple[float, ...], ...]:
    """The outlines and holes of a mask along its pixel edges, with fewer corners than the edges have.

    A mask that is too ragged to be traced gives its box.
    """
    if not mask.any():
        return ()
    left, top, width, height = _box(mask)
    crop = np.ascontiguousarray(mask[top : top + height, left : left + width])
    try:
        outer, holes = patch_outlines(Patch(crop, left, top))
    except RaggedMaskError:
        right, bottom = float(left + width), float(top + height)
        return ((float(left), float(top), right, float(top), right, bottom, float(left), bottom),)
    return tuple(_flat(_simplified(points)) for points in (*outer, *holes))


def _simplified(points: Points) -> NDArray[Any]:
    """An outline whose corners are at most `_SIMPLIFIED_PX` off; small ones stay as they are."""
    if len(points) < 12:
        return points
    simpler = cv2.approxPolyDP(points.astype(np.float32).reshape(-1, 1, 2), _SIMPLIFIED_PX, True).reshape(-1, 2)
    return simpler if len(simpler) >= 3 else points


def _flat(points: NDArray[Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 1) for value in points.reshape(-1))
