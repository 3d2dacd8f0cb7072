"""The results of judgments: shares with intervals, by class and by size, and the worst images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d2tune.acceptance.judgments import Kind, SavedJudgment
from d2tune.acceptance.objects import ShownObject
from d2tune.acceptance.statistics import Share, share_of_images, share_of_objects
from d2tune.acceptance.store import StoredImage

SIZES = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, float("inf")))
"""COCO's ranges of the area of an object: name, from, and up to but without, in square pixels."""


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """An image with what was predicted on it and how it was judged."""

    image: StoredImage
    objects: list[ShownObject]
    saved: SavedJudgment

    @property
    def shown(self) -> list[ShownObject]:
        """The objects that were shown to the person."""
        return self.saved.judgment.shown(self.objects)

    @property
    def wrong_marks(self) -> int:
        """How many things are marked wrong."""
        return sum(mark.is_wrong for mark in self.saved.judgment.marks)


@dataclass(frozen=True, slots=True)
class Row:
    """The results of the objects of a class or a size.

    Attributes:
        name: The class or the size.
        right: The share of judged objects that are right.
        kinds: How many are wrong, by kind.
    """

    name: str
    right: Share
    kinds: dict[Kind, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """The results of all judgments of a model.

    Attributes:
        images: How many images there are.
        right_images: The share of judged images that are right.
        all_objects: The results of all objects.
        by_class: The results of each class that has judged or missed objects.
        by_size: The results of each size; missed objects have none.
        missed_without_class: Missed objects whose class is not known.
        worst: Images with something wrong, the most first.
        people: How many images each person judged, most first.
    """

    images: int
    right_images: Share
    all_objects: Row
    by_class: tuple[Row, ...]
    by_size: tuple[Row, ...]
    missed_without_class: int
    worst: tuple[JudgedImage, ...]
    people: tuple[tuple[str, int], ...]

    @property
    def judged(self) -> int:
        """How many images are judged."""
        return self.right_images.total


def summarize(judged: Sequence[JudgedImage], class_names: Sequence[str], *, images: int) -> Summary:
    """The results of judgments.

    Args:
        judged: The images with a judgment, of which those with a verdict count.
        class_names: All classes.
        images: How many images there are.
    """
    counted = [one for one in judged if one.saved.judgment.verdict is not None]
    right = sum(one.saved.judgment.verdict == "right" for one in counted)
    by_class = [_row(name, counted, _is_of_class(name), missed_class=name) for name in class_names]
    by_size = [_row(name, counted, _is_of_size(low, high)) for name, low, high in SIZES]
    wrong = [one for one in counted if one.saved.judgment.verdict == "wrong" or one.wrong_marks]
    worst = sorted(wrong, key=lambda one: (-one.wrong_marks, one.saved.judgment.verdict == "right", one.image.name))
    missed = [mark for one in counted for mark in one.saved.judgment.missed]
    people = Counter(one.saved.judgment.judged_by for one in counted)
    return Summary(
        images=images,
        right_images=share_of_images(right, len(counted)),
        all_objects=_row("all", counted, lambda _: True, missed_class=None, all_missed=True),
        by_class=tuple(row for row in by_class if row.right.total or any(row.kinds.values())),
        by_size=tuple(row for row in by_size if row.right.total),
        missed_without_class=sum(mark.class_name is None for mark in missed),
        worst=tuple(worst),
        people=tuple(people.most_common()),
    )


def _is_of_class(name: str) -> Callable[[ShownObject], bool]:
    return lambda one: one.class_name == name


def _is_of_size(low: float, high: float) -> Callable[[ShownObject], bool]:
    return lambda one: low <= one.area_px2 < high


def _row(
    name: str,
    judged: Sequence[JudgedImage],
    counts: Callable[[ShownObject], bool],
    *,
    missed_class: str | None = None,
    all_missed: bool = False,
) -> Row:
    """The results of those objects that count."""
    by_image = []
    kinds: Counter[Kind] = Counter()
    for one in judged:
        judgment = one.saved.judgment
        answers = [(shown, judgment.is_right(shown.number)) for shown in one.shown if counts(shown)]
        known = [answer for _, answer in answers if answer is not None]
        by_image.append((known.count(True), len(known)))
        for shown, answer in answers:
            mark = judgment.mark_of(shown.number)
            if answer is False and mark is not None:
                kinds[mark.kind] += 1
        kinds["missed"] += sum(
            all_missed or (missed_class is not None and mark.class_name == missed_class) for mark in judgment.missed
        )
    return Row(name, share_of_objects(by_image), {kind: count for kind, count in kinds.items() if count})
