"""What is right and wrong on the images of an evaluation, the same for all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from d2tune.metrics.analysis.tide import KINDS
from d2tune.metrics.metric import Metric
from d2tune.report.thumbnails import Sketch

T = TypeVar("T")

MistakeKind = Literal["missed", "false alarm", "bad outline", "wrong class", "wrong class and outline", "duplicate"]
MISTAKE_KINDS: dict[MistakeKind, str] = {
    "missed": "annotated, but not predicted",
    "false alarm": "predicted where nothing like it is annotated",
    "bad outline": "at the right place, but less than half of it overlaps (IoU below 0.5)",
    "wrong class": "well outlined, but of another class",
    "wrong class and outline": "overlaps an object of another class",
    "duplicate": "a second prediction of an object",
}
"""The kinds of mistakes with what they mean."""

_IN_TIDES_ORDER: tuple[MistakeKind, ...] = (
    "wrong class",
    "bad outline",
    "wrong class and outline",
    "duplicate",
    "false alarm",
    "missed",
)
OF_TIDE: dict[str, MistakeKind] = dict(zip(KINDS, _IN_TIDES_ORDER, strict=True))
"""The kinds by the names of the errors in ``evaluation.json``."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """An annotated or predicted object, or the pixels of a class.

    Attributes:
        class_number: Its class, from 0.
        sketch: Its outline.
        score: Its score; None where it has none.
        is_right: Whether it was matched; None where that is not known of the whole, as of the pixels of a class.
    """

    class_number: int
    sketch: Sketch
    score: float | None = None
    is_right: bool | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """An object or region that is missed or false.

    Attributes:
        kind: What is wrong.
        class_number: The class, from 0: annotated of what is missed, predicted of the rest.
        box_xyxy: Left, top, right, bottom in pixels.
        area_px2: Its pixels.
        score: Its score; None where it has none.
        note: More about it; may be empty.
        truth: Which of the annotated shapes of its image it is about.
        predicted: Which of the predicted shapes it is about.
    """

    kind: MistakeKind
    class_number: int
    box_xyxy: tuple[float, float, float, float]
    area_px2: float
    score: float | None
    note: str
    truth: tuple[int, ...]
    predicted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The result on one image.

    Attributes:
        quality: From 0 to 100; see `Images.quality_name`.
        right: Objects or regions that are annotated and predicted.
        mistakes: What is wrong.
    """

    quality: float
    right: int
    mistakes: tuple[Mistake, ...]

    @property
    def missed(self) -> int:
        """Number of missed objects or regions."""
        return sum(one.kind == "missed" for one in self.mistakes)

    @property
    def false(self) -> int:
        """Number of false objects or regions."""
        return len(self.mistakes) - self.missed


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionCurve:
    """Precision over recall of a class.

    Attributes:
        name: The class.
        recall: ``(R,)``, from 0 to 1.
        precision: ``(R,)``, from 0 to 1; NaN where it is not defined.
        AP50: The area below it, from 0 to 100.
    """

    name: str
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    AP50: Metric


class Images(ABC):
    """The predictions of a split, image by image."""

    quality_name: str
    """Name of the quality of an image."""
    quality_words: str
    """What it is."""
    noun: str
    """What is counted as right or wrong, in the singular: object or region."""
    classes_in_color: tuple[int, ...] = ()
    """The classes, from 0, whose pixels are drawn in the color of the class; empty where objects are outlined."""

    @abstractmethod
    def results(self) -> list[ImageResult]:
        """The result on each image, in the order of the split."""

    @abstractmethod
    def shapes(self, index: int) -> tuple[list[Shape], list[Shape]]:
        """The annotated and the predicted shapes of an image; `Mistake` refers to them by their places.

        Args:
            index: The image.
        """

    def curves(self) -> Sequence[PrecisionCurve]:
        """Precision over recall of each class; empty where predictions have no scores."""
        return ()


def shown_progress(images: Iterable[T], *, total: int | None = None) -> Iterable[T]:
    """The same images; a bar on a terminal shows where they are, if they take over two seconds.

    Args:
        images: What is gone through.
        total: How many there are, where ``images`` has no length.
    """
    bar: Iterable[T] = tqdm(images, total=total, desc="matching", unit="image", leave=False, delay=2, disable=None)
    return bar
