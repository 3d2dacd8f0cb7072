"""The contact sheet of a page: pictures that show every class, with the outlines of their objects."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2tune.report.check_page.advice import listed, short
from d2tune.report.check_page.charts import number
from d2tune.report.check_page.survey import Picture, Survey
from d2tune.report.check_page.thumbnails import Album, Frame, PictureError, sketch_of

TILES = 60
"""How many pictures a sheet has at most."""

_NEGATIVES = 6
_SIDE_PX = 400
_OUTLINES = 120


@dataclass(frozen=True, slots=True)
class SheetTile:
    """A picture of the sheet.

    Attributes:
        name: Its file name.
        part: Its part; empty where it has none.
        ratio: Width divided by height, kept between those of a tall and a wide tile.
        words: What is on it.
        frame: The picture with its outlines; None where it cannot be shown.
        problem: Why not.
    """

    name: str
    part: str
    ratio: float
    words: str
    frame: Frame | None
    problem: str = ""


def choose(survey: Survey, *, limit: int = TILES, seed: int = 0) -> list[Picture]:
    """Pictures for the sheet, in the order of the dataset.

    Each class in turn, the rarest first, gets a picture that has it, drawn from ``seed``; some pictures without an
    object are among them.

    Args:
        survey: Where to choose from.
        limit: How many.
        seed: Seed of the draw.
    """
    pictures = list(survey.pictures)
    if len(pictures) <= limit:
        return pictures
    random.Random(seed).shuffle(pictures)
    negatives = [picture for picture in pictures if not picture.instances][:_NEGATIVES]
    queues: dict[str, list[Picture]] = {row.name: [] for row in reversed(survey.class_rows) if row.instances}
    for picture in pictures:
        for label in set(picture.labels):
            if len(queues[label]) < limit:
                queues[label].append(picture)
    chosen = {picture.image.id: picture for picture in negatives}
    while len(chosen) < limit and any(queues.values()):
        for queue in queues.values():
            while queue and queue[0].image.id in chosen:
                queue.pop(0)
            if queue and len(chosen) < limit:
                picture = queue.pop(0)
                chosen[picture.image.id] = picture
    for picture in pictures:
        if len(chosen) >= limit:
            break
        chosen.setdefault(picture.image.id, picture)
    return [chosen[image_id] for image_id in sorted(chosen)]


def contact_tiles(survey: Survey, colours: Mapping[str, str], album: Album, bar: Any) -> list[SheetTile]:
    """Draw the sheet.

    Args:
        survey: Where the pictures come from.
        colours: CSS colour by class name.
        album: Makes the frames; the sheet ends where it is full.
        bar: A progress bar to move on by one for each picture.
    """
    tiles = []
    for picture in choose(survey):
        if album.is_full:
            break
        tiles.append(_tile(picture, colours, album))
        bar.update()
    return tiles


def _tile(picture: Picture, colours: Mapping[str, str], album: Album) -> SheetTile:
    image = picture.image
    ratio = min(max(image.width_px / image.height_px, 0.4), 3.0)
    counts = Counter(picture.labels)
    words = listed([f"{count} {short(name)}" for name, count in counts.most_common()], limit=3) or "no objects"
    named = sorted(zip(picture.instances, picture.labels, strict=True), key=lambda pair: -pair[0].area_px)
    outlines = [
        (sketch_of(one), colours[label], f"{label}, {number(one.area_px**0.5)} px", "object")
        for one, label in named[:_OUTLINES]
    ]
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
    except PictureError as error:
        return SheetTile(image.file_name, picture.part, ratio, words, None, f"The picture {error}.")
    return SheetTile(image.file_name, picture.part, ratio, words, frame)
