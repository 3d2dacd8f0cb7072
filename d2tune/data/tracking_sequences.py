"""Objects followed from frame to frame in annotated images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import decode_mask, union_segmentations
from d2tune.annotations.io.rasters import natural_order
from d2tune.annotations.model.dataset import Dataset, Image, Instance

_LEAST_IOU = 0.05
"""Objects of two frames with less in common are different ones, unless each frame has one object of their class."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """An object in a frame: the places of the image and of the instance in their dataset."""

    image: int
    instance: int


Track = tuple[Appearance, ...]
"""An object in the frames that show it, in their order; a single appearance where images are not frames."""


def instance_mask(instance: Instance, image: Image) -> NDArray[np.bool_]:
    """The pixels ``(H, W)`` of an instance."""
    size = {"width_px": image.width_px, "height_px": image.height_px}
    return decode_mask(union_segmentations([instance.segmentation], **size))


def tracks_of(dataset: Dataset, *, are_frames: bool) -> list[Track]:
    """The objects of a dataset, without crowds.

    Where images are frames, those of a folder are a video in the natural order of their names. An object of a frame
    is the one of the same class in the last frame with which its box overlaps most; where both frames have a single
    object of a class, these are the same.

    Args:
        dataset: The images with their instances.
        are_frames: Whether the images of a folder are the frames of a video.
    """
    rows: dict[int, list[Appearance]] = defaultdict(list)
    number_of = {image.id: number for number, image in enumerate(dataset.images)}
    for at, instance in enumerate(dataset.instances):
        if not instance.iscrowd:
            rows[number_of[instance.image_id]].append(Appearance(number_of[instance.image_id], at))
    if not are_frames:
        return [(one,) for image in sorted(rows) for one in rows[image]]
    folders: dict[PurePosixPath, list[int]] = defaultdict(list)
    for number, image in enumerate(dataset.images):
        folders[PurePosixPath(image.file_name).parent].append(number)
    tracks: list[Track] = []
    for folder in sorted(folders):
        ordered = sorted(folders[folder], key=lambda number: natural_order(dataset.images[number].file_name))
        tracks += _linked([rows[number] for number in ordered], dataset.instances)
    return tracks


def _linked(frames: Sequence[Sequence[Appearance]], instances: Sequence[Instance]) -> list[Track]:
    """The objects of the frames of a video."""
    tracks: list[list[Appearance]] = []
    for frame in frames:
        pairs = sorted(
            (
                (_affinity(instances, track, one, frame, tracks), number, at)
                for number, track in enumerate(tracks)
                for at, one in enumerate(frame)
            ),
            reverse=True,
        )
        free_tracks, free = set(range(len(tracks))), set(range(len(frame)))
        for affinity, number, at in pairs:
            if affinity >= _LEAST_IOU and number in free_tracks and at in free:
                tracks[number].append(frame[at])
                free_tracks.remove(number)
                free.remove(at)
        tracks += [[frame[at]] for at in sorted(free)]
    return [tuple(track) for track in tracks]


def _affinity(
    instances: Sequence[Instance],
    track: Sequence[Appearance],
    one: Appearance,
    frame: Sequence[Appearance],
    tracks: Sequence[Sequence[Appearance]],
) -> float:
    """The IoU of the box of an object with the last box of a track; 0 where their classes differ."""
    last, new = instances[track[-1].instance], instances[one.instance]
    if last.category_id != new.category_id:
        return 0.0
    of_class = sum(instances[other.instance].category_id == new.category_id for other in frame)
    rivals = sum(instances[other[-1].instance].category_id == new.category_id for other in tracks)
    if of_class == rivals == 1:
        return 1.0
    return _box_iou(last.bbox_xywh, new.bbox_xywh)


def _box_iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / max(1e-9, a[2] * a[3] + b[2] * b[3] - common)
