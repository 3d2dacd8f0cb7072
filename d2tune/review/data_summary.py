"""The data of a run: what was trained and validated on, and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.splitting.duplicates import duplicate_groups
from d2tune.data.splits import load_splits
from d2tune.report.thumbnails import Album, Frame, ThumbnailError
from d2tune.review.sources import Side, section
from d2tune.text import counted

MOST_COMPARED = 3000
"""Images up to which near-duplicates are looked for."""

_GROUPS, _TWINS, _SIDE_PX = 8, 4, 200


@dataclass(frozen=True, slots=True)
class Twin:
    """An image of a group of near-duplicates."""

    name: str
    split: str
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Twins:
    """A group of near-duplicates.

    Attributes:
        words: How many they are, and where.
        is_leak: Whether they lie in both splits.
        shown: Some of them.
    """

    words: str
    is_leak: bool
    shown: tuple[Twin, ...]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """The data of a run.

    Attributes:
        rows: Name, training and validation count of each class; None where it is not known.
        train_images: Images to train on; None where it is not known.
        val_images: Images to validate on.
        words: What was found about near-duplicates.
        twins: Some groups of them.
        leaks: Groups that lie in both splits.
    """

    rows: tuple[tuple[str, int | None, int | None], ...]
    train_images: int | None
    val_images: int | None
    words: str
    twins: tuple[Twins, ...]
    leaks: int


def summarize_data(side: Side, album: Album) -> DataSummary:
    """The data of a run, as its record has them, and near-duplicates among its images.

    Args:
        side: The run.
        album: Makes the frames.
    """
    data = section(side.record, "data")
    counts = section(data, "train_instances"), section(data, "val_instances")
    names = list(dict.fromkeys([*counts[0], *counts[1]]))
    rows = tuple((name, _whole(counts[0].get(name)), _whole(counts[1].get(name))) for name in names)
    sizes = _whole(data.get("train_images")), _whole(data.get("val_images"))
    words, twins, leaks = _near_duplicates(side, sizes, album)
    return DataSummary(rows, *sizes, words, tuple(twins), leaks)


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _near_duplicates(side: Side, sizes: Sequence[int | None], album: Album) -> tuple[str, list[Twins], int]:
    total = sum(size or 0 for size in sizes)
    if side.project is None or side.evaluated is None:
        return "Near-duplicates were not looked for, because the data are not read.", [], 0
    if total > MOST_COMPARED:
        return f"Near-duplicates were not looked for among {total:,} images; `d2tune check` does it.", [], 0
    project = side.project
    splits = side.attempt(lambda: load_splits(project, sample=False))
    if splits is None:
        return "Near-duplicates were not looked for, because the data are not read.", [], 0
    split_of: dict[int, str] = {}
    images: list[Image] = []
    for name, dataset in (("train", splits.train), ("val", splits.val)):
        for image in dataset.images:
            images.append(replace(image, id=len(images) + 1))
            split_of[len(images)] = name
    groups = duplicate_groups(images)
    leaking = [group for group in groups if len({split_of[number] for number in group.image_ids}) > 1]
    ordered = [*leaking, *(group for group in groups if group not in leaking)]
    twins = [_twins(group.image_ids, images, split_of, album, is_leak=group in leaking) for group in ordered[:_GROUPS]]
    return _words(len(images), len(groups), len(leaking)), twins, len(leaking)


def _words(images: int, groups: int, leaks: int) -> str:
    among = f"among {counted(images, 'image')} of both splits"
    if not groups:
        return f"No near-duplicates {among}."
    across = f"; {leaks} of them {'lies' if leaks == 1 else 'lie'} in both splits" if leaks else ", none in both splits"
    return f"{counted(groups, 'group')} of near-duplicates {among}{across}."


def _twins(
    numbers: Sequence[int], images: Sequence[Image], split_of: Mapping[int, str], album: Album, *, is_leak: bool
) -> Twins:
    shown = []
    for number in _from_each_split(numbers, split_of)[:_TWINS]:
        image, frame = images[number - 1], None
        if not album.is_full:
            try:
                view = (0.0, 0.0, float(image.width_px), float(image.height_px))
                frame = album.frame(image, view, side_px=_SIDE_PX)
            except ThumbnailError:
                frame = None
        shown.append(Twin(image.file_name, split_of[number], frame))
    places = " and ".join(dict.fromkeys(split_of[number] for number in numbers))
    return Twins(f"{counted(len(numbers), 'image')} in {places}", is_leak, tuple(shown))


def _from_each_split(numbers: Sequence[int], split_of: Mapping[int, str]) -> list[int]:
    """The images in turn from both splits, so that the first ones show both."""
    sides = [[number for number in numbers if split_of[number] == name] for name in ("train", "val")]
    longest = max(len(side) for side in sides)
    return [side[at] for at in range(longest) for side in sides if at < len(side)]
