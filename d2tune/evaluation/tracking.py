"""The evaluator of tracking models: objects followed through videos, or found again in moved photos."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune import files
from d2tune.annotations.formats.coco import to_coco
from d2tune.annotations.geometry.masks import decode_mask, encode_mask, rle_bbox_xywh, to_rle
from d2tune.annotations.io.photos.reading import read_photo_of
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.data.image_reader import Pixels
from d2tune.data.tracking_crops import SEARCH_PX, ObjectBox, Square, box_of
from d2tune.data.tracking_sequences import Track, instance_mask, tracks_of
from d2tune.errors import RunError
from d2tune.evaluation.comparison import MapSide
from d2tune.evaluation.contact_sheet import write_images
from d2tune.evaluation.evaluator import Evaluator, Quick, Scoring
from d2tune.evaluation.images.instance import InstanceImages
from d2tune.evaluation.map_metrics import MapOutcome, spanned_main
from d2tune.evaluation.predicted_images import check_predicted_images, write_predicted_images
from d2tune.evaluation.tracking_metrics import TrackingMetrics, tracking_metrics
from d2tune.inference.loop import inference_mode
from d2tune.inference.object_tracker import ObjectTracker, Tracked, resolved
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.predictors.tracking import TrackingPredictor
from d2tune.metrics.mask_tracking import MaskTrackScorer, box_iou, mask_iou
from d2tune.timing import StageTimes

PREDICTIONS = "predictions.json"
"""File with the followed objects in a run folder."""

_SHIFT_PX, _SCALE = 32.0, 0.1
"""How far an object of a photo is moved in its search image, and how much it is resized, at most."""

Followed = dict[str, Any]
"""An object that was followed to an image: its ``instance_id``, and the keys of COCO's results format."""


class TrackingEvaluator(Evaluator[list[Followed]]):
    """Follows each object from the first frame that shows it, or finds the objects of photos in moved copies.

    What is kept of an image are the objects that were followed to it: not those whose first frame it is.

    Args:
        dataset: See `Evaluator`.
        are_frames: Whether the images of a folder are the frames of a video.
    """

    def __init__(self, dataset: Dataset, *, are_frames: bool) -> None:
        super().__init__(dataset)
        self._are_frames = are_frames
        self._tracks = tracks_of(dataset, are_frames=are_frames)
        self._class_of = {one.id: place for place, one in enumerate(dataset.categories)}
        self._instances = {instance.id: instance for instance in dataset.instances}
        self._image_of = {image.id: image for image in dataset.images}

    def shard(self, predictor: Predictor[Any, Any], number: int, shards: int) -> list[int]:
        """All images for the first process: objects are followed from image to image."""
        return list(range(len(self._dataset.images))) if number == 0 else []

    def predict(
        self,
        predictor: Predictor[Any, Any],
        *,
        times: StageTimes | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        only: Collection[int] | None = None,
    ) -> list[list[Followed]]:
        """Follow the objects; see `Evaluator.predict`. The size of batches has no effect."""
        if only is not None and not only:
            return []
        assert isinstance(predictor, TrackingPredictor)
        kept: list[list[Followed]] = [[] for _ in self._dataset.images]
        videos: dict[str, list[Track]] = defaultdict(list)
        for track in self._tracks:
            image = self._dataset.images[track[0].image]
            videos[str(Path(image.file_name).parent) if self._are_frames else image.file_name].append(track)
        hidden = None if show_progress is None else not show_progress
        bar = tqdm(videos.values(), desc="evaluating", unit=" videos", disable=hidden, leave=False)
        with (times or StageTimes()).running(), inference_mode(predictor.model):
            for tracks in bar:
                if self._are_frames:
                    self._follow(predictor.tracker(), tracks, kept, predictor.options.mask_threshold)
                else:
                    self._find_again(predictor, tracks, kept)
        return kept

    def _follow(
        self, tracker: ObjectTracker, tracks: Sequence[Track], kept: list[list[Followed]], threshold: float
    ) -> None:
        """Follow the objects of a video through its frames."""
        begins: dict[int, list[int]] = defaultdict(list)
        truth: dict[int, dict[int, int]] = defaultdict(dict)
        for number, track in enumerate(tracks):
            begins[track[0].image].append(number)
            for one in track[1:]:
                truth[one.image][number] = one.instance
        for at in sorted({one.image for track in tracks for one in track}):
            image = self._dataset.images[at]
            frame = read_photo_of(image)
            tracked = tracker.step(frame)
            masks = resolved(tracked, threshold=threshold)
            for number, place in truth[at].items():
                own = self._dataset.instances[place]
                kept[at].append(_row(own, masks[number], tracked[number]))
            first = {number: tracks[number][0].instance for number in begins[at]}
            tracker.start(
                frame, {number: instance_mask(self._dataset.instances[place], image) for number, place in first.items()}
            )

    def _find_again(self, predictor: TrackingPredictor, tracks: Sequence[Track], kept: list[list[Followed]]) -> None:
        """Find the objects of a photo again, each at another place of its search image and in another size."""
        at = tracks[0][0].image
        image = self._dataset.images[at]
        photo = read_photo_of(image)
        factor = min(1.0, predictor.short_side_px / min(photo.shape[:2]))
        size = (max(1, round(photo.shape[1] * factor)), max(1, round(photo.shape[0] * factor)))
        reduced = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        tracker, squares = predictor.tracker(), {}
        for (one,) in tracks:
            instance = self._dataset.instances[one.instance]
            mask = _resized(instance_mask(instance, image), size)
            tracker.start(reduced, {instance.id: mask})
            box = box_of(mask)
            if box is not None:
                squares[instance.id] = _moved(Square.around(box, side_px=SEARCH_PX), seed=instance.id)
        tracked = tracker.look(reduced, squares)
        masks = resolved(tracked, threshold=predictor.options.mask_threshold)
        whole = (image.width_px, image.height_px)
        for number, seen in tracked.items():
            numbers = (seen.box.x, seen.box.y, seen.box.width_px, seen.box.height_px)
            box = ObjectBox(*(value / factor for value in numbers))
            mask = _resized(masks[number], whole)
            kept[at].append(_row(self._instances[number], mask, replace(seen, box=box)))

    def _kept(self, index: int, result: Any, pixels: Pixels | None) -> list[Followed]:
        raise TypeError("objects are followed from frame to frame, not predicted image by image")

    def quick(self, predictions: Sequence[list[Followed]]) -> Quick:
        """J and success, without intervals."""
        scorer = self.scorer(predictions)
        metrics = tracking_metrics(scorer, intervals=False)
        spanned = partial(spanned_main, metrics, scorer)
        return Quick(metrics.main.value, metrics.short_line(), metrics.scalars, spanned)

    def evaluate(self, predictions: Sequence[list[Followed]], scoring: Scoring) -> MapOutcome:
        """J and success with their intervals."""
        with scoring.times.scoring():
            return MapOutcome(tracking_metrics(self.scorer(predictions), intervals=True))

    def side(self, predictions: Sequence[list[Followed]], *, name: str, truth_sha256: str) -> MapSide:
        """The followed objects as a side of a comparison."""
        metrics = TrackingMetrics
        return MapSide(name, truth_sha256, self.scorer(predictions), metrics.task, metrics.main_name)

    def images(self, predictions: Sequence[list[Followed]]) -> InstanceImages:
        """What is right and wrong on each image; objects count as predicted in the frame that they are given in."""
        return InstanceImages(to_coco(self._dataset), self._with_given(predictions))

    def _with_given(self, predictions: Sequence[list[Followed]]) -> list[Any]:
        """The followed objects, and those that are given in a frame, as COCO results."""
        followed = {row["instance_id"] for rows in predictions for row in rows}
        given = [one for one in self._dataset.instances if one.id not in followed and not one.iscrowd]
        return [
            *_shown(predictions),
            *(_given_row(one, instance_mask(one, self._image_of[one.image_id])) for one in given),
        ]

    def save(self, predictions: Sequence[list[Followed]], folder: Path) -> str:
        """Write ``predictions.json``."""
        write_predicted_images(folder, self._dataset)
        files.write_json(folder / PREDICTIONS, [row for rows in predictions for row in rows])
        return self.digest(folder)

    def files(self, folder: Path) -> list[Path]:
        """``predictions.json``."""
        return [folder / PREDICTIONS]

    def digest(self, folder: Path) -> str:
        """The SHA-256 of ``predictions.json``."""
        return files.sha256_file(folder / PREDICTIONS)

    def load(self, folder: Path) -> list[list[Followed]]:
        """Read ``predictions.json``.

        Raises:
            RunError: It has an object of another split.
        """
        check_predicted_images(folder, self._dataset)
        number_of = {image.id: number for number, image in enumerate(self._dataset.images)}
        kept: list[list[Followed]] = [[] for _ in number_of]
        for row in json.loads((folder / PREDICTIONS).read_text(encoding="utf-8")):
            if row["instance_id"] not in self._instances or row["image_id"] not in number_of:
                raise RunError("the predictions are of another split", file=folder / PREDICTIONS)
            kept[number_of[row["image_id"]]].append(row)
        return kept

    def draw(self, path: Path, predictions: Sequence[list[Followed]], *, title: str, subtitle: str) -> None:
        """Draw annotated beside predicted masks of up to 16 images; given objects are drawn as in `images`."""
        write_images(path, self._dataset, self._with_given(predictions), title=title, subtitle=subtitle)

    def scorer(self, predictions: Sequence[list[Followed]]) -> MaskTrackScorer:
        """A scorer with all followed objects added."""
        scorer = MaskTrackScorer(self._dataset.class_names, len(self._dataset.images))
        for number, (image, rows) in enumerate(zip(self._dataset.images, predictions, strict=True)):
            for row in rows:
                instance = self._instances[row["instance_id"]]
                truth = instance_mask(instance, image)
                raw = {"size": row["segmentation"]["size"], "counts": row["segmentation"]["counts"].encode()}
                scorer.add(
                    number,
                    self._class_of[instance.category_id],
                    j=mask_iou(decode_mask(raw), truth),
                    box=box_iou(tuple(row["bbox"]), rle_bbox_xywh(encode_mask(truth))),
                )
        return scorer


def _row(instance: Instance, mask: NDArray[np.bool_], tracked: Tracked) -> Followed:
    box = tracked.box
    return {
        "instance_id": instance.id,
        "image_id": instance.image_id,
        "category_id": instance.category_id,
        "segmentation": to_rle(encode_mask(mask)).to_coco(),
        "bbox": [box.x - box.width_px / 2, box.y - box.height_px / 2, box.width_px, box.height_px],
        "score": round(tracked.score, 6),
    }


def _given_row(instance: Instance, mask: NDArray[np.bool_]) -> Followed:
    raw = encode_mask(mask)
    return {
        "image_id": instance.image_id,
        "category_id": instance.category_id,
        "segmentation": to_rle(raw).to_coco(),
        "bbox": list(rle_bbox_xywh(raw)),
        "score": 1.0,
    }


def _shown(predictions: Sequence[list[Followed]]) -> list[Any]:
    """The followed objects as COCO results; each is shown, however low the score of its place is."""
    rows = [row for rows in predictions for row in rows]
    return [{key: value for key, value in row.items() if key != "instance_id"} | {"score": 1.0} for row in rows]


def _moved(square: Square, *, seed: int) -> Square:
    """A square in which its object is at another place and of another size, which follow from the seed."""
    rng = np.random.default_rng([seed, *b"moved"])
    factor = 1 + rng.uniform(-_SCALE, _SCALE)
    x, y = rng.uniform(-_SHIFT_PX, _SHIFT_PX, 2) / (square.scale[0] * factor)
    scale = (square.scale[0] * factor, square.scale[1] * factor)
    return replace(square, x=square.x + x, y=square.y + y, scale=scale)


def _resized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at another size (width, height)."""
    resized: NDArray[np.bool_] = cv2.resize(mask.view(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    return resized
