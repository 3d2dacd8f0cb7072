"""The images of a report: ground truth and predictions under a slider, and a thumbnail of each mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from d2tune.annotations.model.dataset import Image
from d2tune.evaluation.images.base import ImageResult, Images, Mistake, Shape
from d2tune.report.sheets.drawing import instance_colors
from d2tune.report.thumbnails import Album, Frame, Sketch, ThumbnailError, View
from d2tune.text import counted

RIGHT, MISSED, FALSE = "#2fe6c1", "#ff5470", "#ffb224"
"""Colors of shapes on photos; missed ones are dashed and false ones dotted as well."""

_SIDE_PX, _PAIR_SIDE_PX, _THUMB_PX, _LEAST_SIDE_PX = 1000, 800, 168, 320
_LEAST_VIEW_PX, _MARGIN = 24.0, 0.45
_TAGS, _TAG_LENGTH = 24, 26
_SHAPES = 300


@dataclass(frozen=True, slots=True)
class Tag:
    """A word on an image.

    Attributes:
        x: Its left end, in the units of the frame.
        y: Its base line.
        text: The word.
        layer: ``left`` or ``right``: on which side of the slider it is.
        color: A CSS color.
    """

    x: float
    y: float
    text: str
    layer: str
    color: str


@dataclass(frozen=True, slots=True)
class SliderImage:
    """An image with two layers of outlines.

    Attributes:
        anchor: Its id on the page.
        name: Its file name.
        words: What is right and wrong on it.
        quality: See `Images.quality_name`; None where two predictions are compared.
        frame: The image with the outlines of both layers; None where it cannot be shown.
        tags: Words on it.
        alt: Text in place of it.
        problem: Why it cannot be shown.
    """

    anchor: str
    name: str
    words: str
    quality: float | None
    frame: Frame | None
    tags: tuple[Tag, ...]
    alt: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the images, with a heading."""

    title: str
    images: tuple[SliderImage, ...]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A mistake as the page shows it.

    Attributes:
        kind: See `MISTAKE_KINDS`.
        class_name: Its class.
        score: Its score from 0 to 1; None where it has none.
        side_px: The side of a square of its area.
        image: File name of its image.
        anchor: Where its image is on the page; empty where it is not.
        note: More about it.
        frame: A crop of its image; None where it cannot be shown.
        alt: Text in place of the crop.
    """

    kind: str
    class_name: str
    score: float | None
    side_px: float
    image: str
    anchor: str
    note: str
    frame: Frame | None
    alt: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One side of a slider: shapes, and whether they are the annotated ones."""

    shapes: Sequence[Shape]
    is_truth: bool


@dataclass(frozen=True, slots=True)
class SliderText:
    """What is written to an image: the beginning of its id, what is right and wrong, the text in its place."""

    prefix: str
    words: str
    alt: str
    quality: float | None


class _Sizes:
    """Reduces images so that all of them fit.

    Args:
        album: Makes the frames.
        images: How many there will be.
    """

    def __init__(self, album: Album, images: int) -> None:
        self.album = album
        self._left = images
        self._side_px = _SIDE_PX
        self._spent_bytes, self._spent_px2 = 0, 0

    @contextmanager
    def next_side_px(self) -> Iterator[int]:
        """The longest side of the image that is made inside: what the bytes of those before allow."""
        before = self.album.left_bytes
        yield self._side_px
        self._spent_bytes += before - self.album.left_bytes
        self._spent_px2 += self._side_px**2
        self._left -= 1
        share_bytes = max(self.album.left_bytes, 0) / max(self._left, 1)
        fitting_px = math.sqrt(share_bytes * self._spent_px2 / max(self._spent_bytes, 1))
        self._side_px = int(min(_SIDE_PX, max(_LEAST_SIDE_PX, fitting_px)))


class Gallery:
    """Draws the images of one model.

    Args:
        images: The images of the split.
        class_names: The classes.
        review: What is right and wrong on them.
        results: Its results.
    """

    def __init__(
        self, images: Sequence[Image], class_names: Sequence[str], review: Images, results: Sequence[ImageResult]
    ) -> None:
        self._images = images
        self._names = tuple(class_names)
        self._review = review
        self._results = results
        self.colors = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in instance_colors(len(self._names))]

    def ordered(self) -> list[int]:
        """Indices of the images, the worst first."""
        return sorted(
            range(len(self._results)), key=lambda at: (self._results[at].quality, -len(self._results[at].mistakes))
        )

    def groups(self, album: Album, *, limit: int) -> list[Group]:
        """The worst, the median and the best images, reduced where the bytes would not be enough for all.

        Args:
            album: Makes the frames; images beyond its limit are not shown.
            limit: How many images are shown at most.
        """
        listed = [(title, indices) for title, indices in chosen(self.ordered(), limit) if indices]
        sizes = _Sizes(album, sum(len(indices) for _, indices in listed))
        return [Group(title, tuple(self._slider(index, sizes) for index in indices)) for title, indices in listed]

    def _slider(self, index: int, sizes: _Sizes) -> SliderImage:
        result, image = self._results[index], self._images[index]
        noun = self._review.noun
        words = f"{counted(result.right, noun)} right, {result.missed} missed, {result.false} false"
        truth, predicted = self._review.shapes(index)
        alt = f"{image.file_name}: annotated and predicted outlines, {words}"
        layers = Layer(truth, True), Layer(predicted, False)
        with sizes.next_side_px() as side_px:
            return self._image(index, sizes.album, layers, SliderText("image", words, alt, result.quality), side_px)

    def pair(
        self, index: int, album: Album, shapes: tuple[Sequence[Shape], Sequence[Shape]], *, words: str
    ) -> SliderImage:
        """An image with the predictions of two models.

        Args:
            index: The image.
            album: Makes the frame.
            shapes: What both predict.
            words: How they differ.
        """
        alt = f"{self._images[index].file_name}: predictions of both models, {words}"
        layers = Layer(shapes[0], False), Layer(shapes[1], False)
        return self._image(index, album, layers, SliderText("pair", words, alt, None), _PAIR_SIDE_PX)

    def _image(
        self, index: int, album: Album, layers: tuple[Layer, Layer], text: SliderText, most_px: int
    ) -> SliderImage:
        image = self._images[index]
        anchor, about = f"{text.prefix}-{index + 1}", (image.file_name, text.words, text.quality)
        if album.is_full:
            problem = "is not shown, because the page would become too large"
            return SliderImage(anchor, *about, None, (), text.alt, problem)
        longest_px = max(image.width_px, image.height_px)
        side_px = max(_LEAST_SIDE_PX, min(most_px, longest_px))
        sides = tuple(zip(("left", "right"), layers, strict=True))
        outlines = [piece for side, layer in sides for piece in self._outlines(layer, side)]
        view = (0.0, 0.0, float(image.width_px), float(image.height_px))
        try:
            frame = album.frame(image, view, side_px=side_px, outlines=outlines)
        except ThumbnailError as error:
            return SliderImage(anchor, *about, None, (), text.alt, str(error))
        tags = [tag for side, layer in sides for tag in self._tags(layer, side, side_px / longest_px, frame)]
        return SliderImage(anchor, *about, frame, tuple(tags), text.alt)

    def _outlines(self, layer: Layer, side: str) -> list[tuple[Sketch, str, str, str]]:
        return [
            (
                shape.sketch,
                self._color(shape, layer.is_truth),
                self._title(shape, layer.is_truth),
                f"{side} {state(shape, layer.is_truth)}",
            )
            for shape in layer.shapes[:_SHAPES]
        ]

    def _color(self, shape: Shape, is_truth: bool) -> str:
        if shape.is_right is None:
            return self.colors[shape.class_number]
        return RIGHT if shape.is_right else MISSED if is_truth else FALSE

    def _title(self, shape: Shape, is_truth: bool) -> str:
        name = self._names[shape.class_number]
        score = "" if shape.score is None else f" {shape.score:.2f}"
        return name + score + {True: ", right", False: ", missed" if is_truth else ", false", None: ""}[shape.is_right]

    def _tags(self, layer: Layer, side: str, scale: float, frame: Frame) -> list[Tag]:
        """The classes and scores of objects; none where they are pixels of classes, or too many."""
        shapes = [shape for shape in layer.shapes if shape.is_right is not None]
        if len(shapes) > _TAGS:
            shapes = [shape for shape in shapes if not shape.is_right][:_TAGS]
        tags = []
        for shape in shapes:
            extent = shape.sketch.extent()
            text = self._names[shape.class_number] if len(self._names) > 1 else ""
            text = f"{text} {shape.score:.2f}".strip() if shape.score is not None else text
            if extent is None or not text:
                continue
            unit = max(frame.width, frame.height) / 1000
            x = max(4 * unit, min(extent[0] * scale, frame.width - 90 * unit))
            y = max(24 * unit, extent[1] * scale - 6 * unit)
            tags.append(Tag(round(x, 1), round(y, 1), text[:_TAG_LENGTH], side, self._color(shape, layer.is_truth)))
        return tags

    def thumbnails(self, album: Album, *, limit: int, shown: frozenset[int]) -> tuple[list[Thumbnail], int]:
        """A thumbnail of each mistake: false ones by falling score, missed ones by falling size, in turn.

        Args:
            album: Makes the crops; the list ends where it is full.
            limit: How many at most.
            shown: Images that are under a slider.

        Returns:
            The thumbnails, and the number of mistakes without one.
        """
        every = [(index, one) for index, result in enumerate(self._results) for one in result.mistakes]
        kept = sorted(_by_weight(every)[:limit], key=lambda pair: pair[0])
        made: dict[int, Thumbnail] = {}
        current = -1
        shapes: tuple[Sequence[Shape], Sequence[Shape]] = ([], [])
        for index, one in kept:
            if album.is_full:
                break
            if index != current:
                current, shapes = index, self._review.shapes(index)
            made[id(one)] = self._thumbnail(index, one, shapes, album, f"image-{index + 1}" if index in shown else "")
        ordered = [made[id(one)] for _, one in _by_weight(every) if id(one) in made]
        return ordered, len(every) - len(ordered)

    def _thumbnail(
        self, index: int, one: Mistake, shapes: tuple[Sequence[Shape], Sequence[Shape]], album: Album, anchor: str
    ) -> Thumbnail:
        image, name = self._images[index], self._names[one.class_number]
        outlines = [
            (shapes[0][at].sketch, MISSED if one.kind == "missed" else RIGHT, "annotated", "truth") for at in one.truth
        ]
        outlines += [(shapes[1][at].sketch, FALSE, "predicted", "predicted") for at in one.predicted]
        score = "" if one.score is None else f", score {one.score:.2f}"
        alt = f"{one.kind}: {name}{score}, in {image.file_name}"
        try:
            frame = album.frame(
                image,
                square_around(one.box_xyxy, image.width_px, image.height_px),
                side_px=_THUMB_PX,
                outlines=outlines,
            )
        except ThumbnailError:
            frame = None
        side_px = float(np.sqrt(one.area_px2))
        return Thumbnail(one.kind, name, one.score, side_px, image.file_name, anchor, one.note, frame, alt)


def state(shape: Shape, is_truth: bool) -> str:
    """The class of an outline in the page's style sheet."""
    return {True: "right-one", False: "missed" if is_truth else "false", None: "pixels"}[shape.is_right]


def chosen(ordered: Sequence[int], limit: int) -> list[tuple[str, list[int]]]:
    """The worst, the median and the best of images that are ordered from worst to best, up to ``limit`` in all.

    >>> chosen(range(10), 6)
    [('Worst', [0, 1]), ('Median', [4, 5]), ('Best', [9, 8])]
    >>> chosen(range(4), 12)
    [('Worst', [0]), ('Median', [1, 2]), ('Best', [3])]
    """
    total = min(limit, len(ordered))
    ends = total // 3
    inner = list(ordered[ends : len(ordered) - ends])
    middle = total - 2 * ends
    start = (len(inner) - middle) // 2
    best = list(ordered[len(ordered) - ends :])[::-1]
    return [("Worst", list(ordered[:ends])), ("Median", inner[start : start + middle]), ("Best", best)]


def square_around(box_xyxy: tuple[float, float, float, float], width_px: int, height_px: int) -> View:
    """A square view around a box, with a margin; inside the image where it fits.

    >>> square_around((0, 40, 20, 60), 200, 100)
    (0.0, 31.0, 38.0, 69.0)
    """
    left, top, right, bottom = box_xyxy
    side = max((right - left) * (1 + 2 * _MARGIN), (bottom - top) * (1 + 2 * _MARGIN), _LEAST_VIEW_PX)
    x, y = (
        max(0.0, min((low + high - side) / 2, length - side)) if side <= length else (length - side) / 2
        for low, high, length in ((left, right, width_px), (top, bottom, height_px))
    )
    return x, y, x + side, y + side


def _by_weight(every: Sequence[tuple[int, Mistake]]) -> list[tuple[int, Mistake]]:
    """False ones by falling score, then size, and missed ones by falling size, in turn."""
    false = sorted(
        (pair for pair in every if pair[1].kind != "missed"),
        key=lambda pair: (-(pair[1].score or 0), -pair[1].area_px2),
    )
    missed = sorted((pair for pair in every if pair[1].kind == "missed"), key=lambda pair: -pair[1].area_px2)
    ranked = [((at + 0.5) / len(rows), pair) for rows in (false, missed) for at, pair in enumerate(rows)]
    return [pair for _, pair in sorted(ranked, key=lambda row: row[0])]
