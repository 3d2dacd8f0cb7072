"""The contact sheet of a page: images of every class, with the outlines of their objects."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2tune.report.axes import number
from d2tune.report.check_page.advice import listed, short
from d2tune.report.check_page.survey import ImageEntry, Survey
from d2tune.report.thumbnails import Album, Frame, ThumbnailError, sketch_of
from d2tune.text import counted

TILES = 60
"""How many images a sheet has at most."""

_NEGATIVES = 6
_SIDE_PX = 400
_OUTLINES = 120


@dataclass(frozen=True, slots=True)
class SheetTile:
    """An image of the sheet.

    Attributes:
        name: Its file name.
        split: Its split; empty where it has none.
        ratio: Width divided by height, kept between those of a tall and a wide tile.
        words: Its objects, counted.
        frame: The image with its outlines; None where it cannot be shown.
        problem: Why not.
    """

    name: str
    split: str
    ratio: float
    words: str
    frame: Frame | None
    problem: str = ""


def choose(survey: Survey, *, limit: int = TILES, seed: int = 0) -> list[ImageEntry]:
    """Images for the sheet, in the order of the dataset.

    Each class in turn, the rarest first, gets an image that has it, drawn from ``seed``; some images without an
    object are among them.

    Args:
        survey: Where to choose from.
        limit: How many.
        seed: Seed of the draw.
    """
    entries = list(survey.entries)
    if len(entries) <= limit:
        return entries
    random.Random(seed).shuffle(entries)
    negatives = [entry for entry in entries if not entry.instances and not entry.crowds][:_NEGATIVES]
    queues: dict[str, list[ImageEntry]] = {row.name: [] for row in reversed(survey.class_rows) if row.instances}
    for entry in entries:
        for label in set(entry.labels):
            if len(queues[label]) < limit:
                queues[label].append(entry)
    chosen = {entry.image.id: entry for entry in negatives}
    while len(chosen) < limit and any(queues.values()):
        for queue in queues.values():
            while queue and queue[0].image.id in chosen:
                queue.pop(0)
            if queue and len(chosen) < limit:
                entry = queue.pop(0)
                chosen[entry.image.id] = entry
    for entry in entries:
        if len(chosen) >= limit:
            break
        chosen.setdefault(entry.image.id, entry)
    return [chosen[image_id] for image_id in sorted(chosen)]


def contact_tiles(survey: Survey, colors: Mapping[str, str], album: Album, bar: Any) -> list[SheetTile]:
    """Draw the sheet.

    Args:
        survey: Where the images come from.
        colors: CSS color by class name.
        album: Makes the frames; the sheet ends where it is full.
        bar: A progress bar, which advances by 1 for each image.
    """
    tiles = []
    for entry in choose(survey):
        if album.is_full:
            break
        tiles.append(_tile(entry, colors, album, survey.setting.thing))
        bar.update()
    return tiles


def _tile(entry: ImageEntry, colors: Mapping[str, str], album: Album, thing: str) -> SheetTile:
    image = entry.image
    ratio = min(max(image.width_px / image.height_px, 0.4), 3.0)
    counts = Counter(entry.labels)
    words = listed([f"{count} {short(name)}" for name, count in counts.most_common()], limit=3) or f"no {thing}s"
    words += f"; {counted(len(entry.crowds), 'crowd')}" if entry.crowds else ""
    named = sorted(zip(entry.instances, entry.labels, strict=True), key=lambda pair: -pair[0].area_px2)
    outlines = [
        (sketch_of(one), colors[label], f"{label}, {number(one.area_px2**0.5)} px", "object")
        for one, label in named[:_OUTLINES]
    ]
    outlines += [(sketch_of(one), colors[label], f"crowd of {label}", "object") for one, label in entry.crowds]
    if len(named) > _OUTLINES:
        words += f"; the {_OUTLINES} largest are drawn"
    width, height = float(image.width_px), float(image.height_px)
    if width / height != ratio:
        view_width, view_height = max(width, height * ratio), max(height, width / ratio)
        left, top = (width - view_width) / 2, (height - view_height) / 2
        view = (left, top, left + view_width, top + view_height)
    else:
        view = (0.0, 0.0, width, height)
    try:
        frame = album.frame(image, view, side_px=_SIDE_PX, outlines=outlines)
    except ThumbnailError as error:
        return SheetTile(image.file_name, entry.split, ratio, words, None, f"The image {error}.")
    return SheetTile(image.file_name, entry.split, ratio, words, frame)
