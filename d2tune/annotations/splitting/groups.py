"""Groups of images that a split keeps together: of one folder, one name pattern, one burst, or near-duplicates."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.splitting.duplicates import HASH_BITS, equal_files, group_hashes, perceptual_hashes
from d2tune.errors import DataError, nearest

_KINDS = ("folder", "exif-time", "regex:PATTERN")
_EXIF_IFD, _DATE_TIME_ORIGINAL = 0x8769, 0x9003


@dataclass(frozen=True, slots=True)
class Grouping:
    """Images sorted into groups.

    Attributes:
        groups: Image ids; each image is in exactly one group. Groups and their members are ordered by file name.
        notes: One line for each rule: how many groups it formed, and how many images it does not apply to.
        rule_applies: Whether the rule applies to any image.
    """

    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    rule_applies: bool = True


def group_images(
    images: Sequence[Image], *, group_by: str | None, gap_s: float, duplicate_distance: int | None
) -> Grouping:
    """Group images by a rule, and join the groups of near-duplicates and of files with the same content.

    Args:
        images: What to group.
        group_by: ``folder``: the folder of ``file_name``; ``regex:PATTERN``: what the pattern, or its first group,
            matches in ``file_name``; ``exif-time``: photos taken in one burst; None: no rule.
        gap_s: Most seconds between two consecutive photos of a burst.
        duplicate_distance: Most bits in which the hashes of near-duplicates differ; None does not look for them.

    Raises:
        DataError: The rule or its pattern is invalid.
    """
    notes = []
    rule_applies = True
    links: list[Sequence[int]] = []
    if group_by is not None:
        keys, note = _keys(images, group_by, gap_s)
        members: dict[Hashable, list[int]] = {}
        for image, key in zip(images, keys, strict=True):
            members.setdefault(("alone", image.id) if key is None else ("key", key), []).append(image.id)
        links += members.values()
        notes.append(note)
        rule_applies = any(key is not None for key in keys)
    copies = equal_files(images)
    links += [[image.id for image in group] for group in copies]
    if copies:
        count = sum(map(len, copies))
        notes.append(
            f"{count} images are copies of one another and are kept together in {counted(len(copies), 'group')}"
        )
    if duplicate_distance is not None:
        hashes = perceptual_hashes(images)
        duplicates = group_hashes(images, hashes, max_distance=duplicate_distance)
        links += [group.image_ids for group in duplicates]
        in_groups = sum(len(group.image_ids) for group in duplicates)
        together = f"{in_groups} images in {counted(len(duplicates), 'group')} are kept together"
        unknown = hashes.count(None)
        skipped = f"; {unknown} cannot be compared (unreadable, or with too little detail)" if unknown else ""
        notes.append(
            f"near-duplicates, up to {duplicate_distance} of {HASH_BITS} bits apart: "
            f"{together if duplicates else 'none'}{skipped}"
        )
    return Grouping(_joined(images, links), tuple(notes), rule_applies)


def _joined(images: Sequence[Image], links: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """The finest groups in which every link's images are together."""
    above = {image.id: image.id for image in images}

    def top(image_id: int) -> int:
        while above[image_id] != image_id:
            above[image_id] = above[above[image_id]]
            image_id = above[image_id]
        return image_id

    for first, *linked in links:
        for image_id in linked:
            above[top(image_id)] = top(first)
    groups: dict[int, list[int]] = {}
    for image in sorted(images, key=lambda image: image.file_name):
        groups.setdefault(top(image.id), []).append(image.id)
    return tuple(map(tuple, groups.values()))


def _keys(images: Sequence[Image], group_by: str, gap_s: float) -> tuple[list[Hashable | None], str]:
    """What each image shares with its group, None where it is alone, and a line about all of them."""
    if group_by == "folder":
        folders: list[Hashable | None] = [str(PurePosixPath(image.file_name).parent) for image in images]
        return folders, f"by folder: {_count(folders, 'folder')}"
    if group_by == "exif-time":
        if not gap_s >= 0:
            raise DataError("the gap within a burst must be 0 s or more", found=f"{gap_s} s")
        bursts = _bursts(images, gap_s)
        return (
            bursts,
            f"by EXIF time: {_count(bursts, 'burst')}, gaps up to {gap_s:g} s{_alone(bursts, 'without the time')}",
        )
    kind, colon, text = group_by.partition(":")
    if kind != "regex" or not colon:
        like = nearest(group_by, _KINDS)
        hint = "For example --group-by 'regex:^(board[0-9]+)_'." if kind == "regex" else None
        hint = hint or (f"Did you mean {like!r}?" if like else None)
        raise DataError(
            "unknown rule for groups of images", found=repr(group_by), expected=", ".join(_KINDS), hint=hint
        )
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"the pattern is not a valid regular expression: {error}", found=repr(text)) from None
    hits = [pattern.search(image.file_name) for image in images]
    matched: list[Hashable | None] = [hit and (hit[1] if pattern.groups and hit[1] else hit[0]) for hit in hits]
    return matched, f"by {text}: {_count(matched, 'group')}{_alone(matched, 'without a match')}"


def counted(number: int, what: str) -> str:
    """A number and its noun: ``1 group``, ``2 groups``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _count(keys: Sequence[Hashable | None], what: str) -> str:
    return counted(len(set(keys) - {None}), what)


def _alone(keys: Sequence[Hashable | None], why: str) -> str:
    number = Counter(keys)[None]
    return f"; {counted(number, 'image')} {why}, each a group of its own" if number else ""


def _bursts(images: Sequence[Image], gap_s: float) -> list[Hashable | None]:
    """The time that the burst of each image began; None where an image has no time."""
    from tqdm import tqdm

    bar = tqdm(images, "reading times", leave=False, unit=" images", delay=2, disable=None)
    times = [None if image.path is None else taken_at(image.path) for image in bar]
    began: dict[datetime, datetime] = {}
    last = None
    for time in sorted({time for time in times if time is not None}):
        follows = last is not None and (time - last).total_seconds() <= gap_s
        began[time] = began[last] if follows and last is not None else time
        last = time
    return [None if time is None else began[time] for time in times]


def taken_at(path: Path) -> datetime | None:
    """When a photo was taken, by its EXIF field DateTimeOriginal in whole seconds; None where it has none."""
    from PIL import Image as PilImage

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(path) as image:
                text = image.getexif().get_ifd(_EXIF_IFD).get(_DATE_TIME_ORIGINAL)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S")
    except Exception:  # Pillow raises nearly anything on a hostile file; such a photo has no time
        return None
