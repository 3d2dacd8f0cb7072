"""What is made of the result of a frame: objects with tracks, the shares of classes, and a drawn image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.model.types import Rle
from d2tune.inference.results import Detections, LabelMap, PanopticMap
from d2tune.video.masks import MaskCrop, crops_of
from d2tune.video.overlay import ObjectToDraw, draw_classes, draw_objects
from d2tune.video.reader import Frame
from d2tune.video.tracker import Tracker
from d2tune.video.tracks import TrackTable

Result = TypeVar("Result", Detections, LabelMap, PanopticMap)


@dataclass(frozen=True, slots=True, eq=False)
class SeenObject:
    """An object or a region of a frame.

    Attributes:
        class_id: Index of its class.
        score: From 0 to 1; None for regions and where the model gives none.
        mask: Its mask.
        row: ``bbox`` (XYWH), ``area`` and, for models with masks, ``segmentation`` of COCO.
        track_id: Its track; None while it has none, and for regions.
        is_region: Whether it is a region of a stuff class; its mask is then not cut out.
    """

    class_id: int
    score: float | None
    mask: MaskCrop
    row: dict[str, Any]
    track_id: int | None
    is_region: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """A frame with what was predicted on it.

    Attributes:
        frame: The frame.
        objects: The objects, and of panoptic maps the regions.
        class_area_px2: Number of pixels of each class; None for detections.
        class_ids: ``(H, W)`` uint8, the class of each pixel that is not of an object, else 255; None for detections.
        labels: The text of the label of each object.
    """

    frame: Frame
    objects: tuple[SeenObject, ...]
    class_area_px2: tuple[int, ...] | None = None
    class_ids: NDArray[np.uint8] | None = None
    labels: tuple[str, ...] = ()


class Annotator(ABC, Generic[Result]):
    """Follows the results of consecutive frames, and draws them.

    Args:
        class_names: All classes in the order of their ids.
        tracks: The table of tracks, which objects are added to.
        tracker: Gives objects their tracks.

    Attributes:
        background: The class whose pixels are drawn as they are; None for none.
    """

    background: int | None = None

    def __init__(self, class_names: Sequence[str], tracks: TrackTable, tracker: Tracker) -> None:
        self.class_names = tuple(class_names)
        self.tracks = tracks
        self._tracker = tracker

    has_objects: ClassVar[bool] = True
    """Whether results have objects."""

    @abstractmethod
    def follow(self, frame: Frame, result: Result) -> Annotated:
        """Give the objects of the next frame their tracks."""

    def draw(self, annotated: Annotated) -> NDArray[np.uint8]:
        """The frame with its predictions, ``(H, W, 3)`` uint8; of objects, those that have a track."""
        image_rgb = annotated.frame.image_rgb
        if annotated.class_ids is not None:
            image_rgb = draw_classes(
                image_rgb, annotated.class_ids, self.class_names, legend=self.legend, background=self.background
            )
        to_draw = [
            ObjectToDraw(one.mask, label, one.track_id)
            for one, label in zip(annotated.objects, annotated.labels, strict=True)
            if one.track_id is not None
        ]
        return draw_objects(image_rgb, to_draw) if to_draw or annotated.class_ids is None else image_rgb

    @property
    def legend(self) -> Sequence[int]:
        """The classes of which pixels are drawn in the color of the class."""
        return range(len(self.class_names))

    def _tracked(self, frame: Frame, detections: Detections, masks: list[MaskCrop], least: Sequence[float]) -> Any:
        """The detections that have a track or a score of at least ``least`` of their class, and their labels."""
        ids = self._tracker.update(detections, time_s=frame.time_s, masks=masks)
        objects: list[SeenObject] = []
        labels: list[str] = []
        for index, (track_id, coco) in enumerate(zip(ids, detections.to_coco(1), strict=True)):
            class_id, score, mask = int(detections.class_ids[index]), float(coco["score"]), masks[index]
            if track_id is None and score < least[class_id]:
                continue
            area_px2 = float(mask.area_px2) if detections.rles is not None else coco["bbox"][2] * coco["bbox"][3]
            row = {key: coco[key] for key in ("bbox", "segmentation") if key in coco} | {"area": area_px2}
            objects.append(SeenObject(class_id, score, mask, row, track_id))
            labels.append("" if track_id is None else self._count(frame, objects[-1], track_id))
        return tuple(objects), tuple(labels)

    def _count(self, frame: Frame, one: SeenObject, track_id: int) -> str:
        """Add an object to the table of tracks; returns its label."""
        self.tracks.add(
            track_id,
            one.class_id,
            frame=frame.index,
            time_s=frame.time_s,
            score=one.score,
            area_px2=one.row["area"],
            center_px=one.mask.center_px,
        )
        name = self.class_names[self.tracks.class_of(track_id)]
        return f"{name} #{track_id}" if one.score is None else f"{name} #{track_id} {one.score:.2f}"


class DetectionAnnotator(Annotator[Detections]):
    """Follows `Detections`.

    Args:
        class_names: As in `Annotator`.
        tracks: As in `Annotator`.
        tracker: As in `Annotator`.
        min_scores: Lowest score of objects without a track, for each class.
    """

    def __init__(
        self, class_names: Sequence[str], tracks: TrackTable, tracker: Tracker, *, min_scores: Sequence[float]
    ) -> None:
        super().__init__(class_names, tracks, tracker)
        self._min_scores = min_scores

    def follow(self, frame: Frame, result: Detections) -> Annotated:
        """Objects with at least the lowest score, and those with lower scores whose track goes on."""
        objects, labels = self._tracked(frame, result, crops_of(result), self._min_scores)
        return Annotated(frame, objects, labels=labels)


class LabelAnnotator(Annotator[LabelMap]):
    """Measures the classes of `LabelMap`, which have no objects."""

    has_objects = False

    def __init__(
        self, class_names: Sequence[str], tracks: TrackTable, tracker: Tracker, *, background: str | None = None
    ) -> None:
        super().__init__(class_names, tracks, tracker)
        self.background = self.class_names.index(background) if background in self.class_names else None

    def follow(self, frame: Frame, result: LabelMap) -> Annotated:
        """The number of pixels of each class."""
        counts = np.bincount(result.class_ids.ravel(), minlength=256)[: len(self.class_names)]
        return Annotated(frame, (), tuple(counts.tolist()), result.class_ids)


class PanopticAnnotator(Annotator[PanopticMap]):
    """Follows the things of `PanopticMap`, and measures all classes.

    Args:
        class_names: As in `Annotator`.
        tracks: As in `Annotator`.
        tracker: As in `Annotator`.
        things: Number of thing classes, which come first.
    """

    def __init__(self, class_names: Sequence[str], tracks: TrackTable, tracker: Tracker, *, things: int) -> None:
        super().__init__(class_names, tracks, tracker)
        self._things = things

    @property
    def legend(self) -> Sequence[int]:
        """The stuff classes."""
        return range(self._things, len(self.class_names))

    def follow(self, frame: Frame, result: PanopticMap) -> Annotated:
        """The things with tracks, the regions, and the number of pixels of each class."""
        stuff = np.full(result.segment_ids.shape, IGNORE_LABEL, np.uint8)
        areas = [0] * len(self.class_names)
        regions: list[SeenObject] = []
        rles: list[Rle] = []
        things = [segment for segment in result.segments if segment.isthing]
        for segment in result.segments:
            pixels = result.segment_ids == segment.id
            areas[segment.class_id] += segment.area_px2
            rle = _rle(pixels)
            if segment.isthing:
                rles.append(rle)
                continue
            stuff[pixels] = segment.class_id
            regions.append(_region(segment.class_id, rle))
        detections = self._detections(result, things, tuple(rles))
        objects, labels = self._tracked(frame, detections, crops_of(detections), [0.0] * len(self.class_names))
        labels += ("",) * len(regions)
        return Annotated(frame, (*objects, *regions), tuple(areas), stuff, labels)

    def _detections(self, result: PanopticMap, things: Sequence[Any], rles: tuple[Rle, ...]) -> Detections:
        boxes = np.array([mask_utils.toBbox(rle.to_coco()) for rle in rles], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = [1.0 if segment.score is None else segment.score for segment in things]
        return Detections(
            result.height_px,
            result.width_px,
            boxes,
            np.array(scores, np.float32),
            np.array([segment.class_id for segment in things], np.int64),
            rles,
            self.class_names,
        )


def _rle(pixels: NDArray[np.bool_]) -> Rle:
    encoded = mask_utils.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return Rle(pixels.shape[0], pixels.shape[1], encoded["counts"].decode())


def _region(class_id: int, rle: Rle) -> SeenObject:
    coco = rle.to_coco()
    box = [float(side) for side in mask_utils.toBbox(coco)]
    mask = MaskCrop(0, 0, np.zeros((0, 0), bool), int(mask_utils.area(coco)), np.zeros(2))
    row = {"bbox": box, "segmentation": coco, "area": float(mask.area_px2)}
    return SeenObject(class_id, None, mask, row, None, is_region=True)


def annotator_of(
    predictor: Any,
    result: Detections | LabelMap | PanopticMap,
    tracks: TrackTable,
    tracker: Tracker,
    least: Any,
    background: str | None = None,
) -> Annotator[Any]:
    """The annotator for the results of a predictor.

    Args:
        predictor: The predictor.
        result: Its first result.
        tracks: The table of tracks.
        tracker: The tracker.
        least: Lowest score of objects, for each class.
        background: The class of label maps whose pixels are drawn as they are; None for none.
    """
    if isinstance(result, Detections):
        return DetectionAnnotator(predictor.class_names, tracks, tracker, min_scores=least)
    if isinstance(result, LabelMap):
        return LabelAnnotator(predictor.class_names, tracks, tracker, background=background)
    return PanopticAnnotator(predictor.class_names, tracks, tracker, things=predictor.things)
