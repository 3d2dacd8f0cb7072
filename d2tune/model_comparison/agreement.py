"""How far two predictions of one image agree, from arrays alone.

Predictions of any task become maps of classes with the same ids: masks of instances are painted with the highest score
on top, and pixels of no object are background. Classes are the same where their names are, apart from case, underscores
and the words that Pascal VOC and COCO have for the same things. Pixels without data in one of the maps do not count.
The agreement of (A, B) is that of (B, A) with the sides exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from d2tune.inference.results import Detections, LabelMap, PanopticMap, decode_rle

BACKGROUND = "background"
IGNORED = -1
"""The id of pixels without data."""

_BACKGROUNDS = frozenset({"background"})
_SAME = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's names of classes of Pascal VOC."""

Ids = NDArray[np.int16]
Knows = Literal["both", "a", "b"]


@dataclass(frozen=True, slots=True, eq=False)
class NamedMap:
    """A prediction as a map of classes.

    Attributes:
        ids: ``(H, W)`` int16, indices of ``names``; -1 for pixels without data.
        names: The classes.
    """

    ids: Ids
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """How far two predictions agree on a class.

    Attributes:
        name: The class.
        known_by: Which of the models have the class.
        a_px: Its pixels in the prediction of A.
        b_px: Its pixels in the prediction of B.
        both_px: Pixels that have it in both.
    """

    name: str
    known_by: Knows
    a_px: int
    b_px: int
    both_px: int

    @property
    def iou(self) -> float:
        """Intersection over union of the class in A and in B, from 0 to 1."""
        return self.both_px / (self.a_px + self.b_px - self.both_px)

    def mirrored(self) -> ClassAgreement:
        """The same with A and B exchanged."""
        exchanged: dict[Knows, Knows] = {"a": "b", "b": "a", "both": "both"}
        return replace(self, known_by=exchanged[self.known_by], a_px=self.b_px, b_px=self.a_px)


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """The maps of two predictions with common classes, and how far they agree.

    Attributes:
        names: The classes of both models, background first.
        a: ``(H, W)`` int16, indices of ``names`` in the prediction of A; -1 for pixels without data.
        b: The same of B.
        classes: The classes that have pixels in A or B, the largest first.
        pixels: Pixels that have data in both.
        same_px: Those of them that have the same class in both.
    """

    names: tuple[str, ...]
    a: Ids
    b: Ids
    classes: tuple[ClassAgreement, ...]
    pixels: int
    same_px: int

    @property
    def share(self) -> float | None:
        """Share of pixels with the same class, from 0 to 1; None without pixels."""
        return self.same_px / self.pixels if self.pixels else None

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU of the classes that both models have and that have pixels; None where there are none."""
        values = [row.iou for row in self.classes if row.known_by == "both"]
        return sum(values) / len(values) if values else None

    def mirrored(self) -> Agreement:
        """The same with A and B exchanged."""
        rows = tuple(row.mirrored() for row in self.classes)
        return replace(self, a=self.b, b=self.a, classes=rows)


def named_map(result: Detections | LabelMap | PanopticMap, *, background: str | None = None) -> NamedMap:
    """A prediction of any task as a map of classes.

    Args:
        result: The prediction.
        background: The class of a label map that has no objects; None for none.
    """
    names = tuple(BACKGROUND if is_background(name, background) else name for name in result.class_names)
    if isinstance(result, LabelMap):
        ids = result.class_ids.astype(np.int16)
        ids[result.class_ids == 255] = IGNORED
        return NamedMap(ids, names)
    ids = np.full((result.height_px, result.width_px), len(names), np.int16)
    if isinstance(result, Detections):
        for index in reversed(range(len(result))):
            if result.rles is not None:
                ids[decode_rle(result.rles[index])] = result.class_ids[index]
    else:
        for segment in result.segments:
            ids[result.segment_ids == segment.id] = segment.class_id
    return NamedMap(ids, (*names, BACKGROUND))


def is_background(name: str, background: str | None) -> bool:
    """Whether a class stands for pixels without an object."""
    return name == background or _key(name) in _BACKGROUNDS


def agreement(a: NamedMap, b: NamedMap) -> Agreement:
    """How far two predictions of one image agree.

    Raises:
        ValueError: The maps are of different sizes.
    """
    if a.ids.shape != b.ids.shape:
        raise ValueError(f"maps of different sizes: {a.ids.shape} and {b.ids.shape}")
    names = _common_names(a.names, b.names)
    place = {_key(name): index for index, name in enumerate(names)}
    ids_a, ids_b = _with_ids(a, place), _with_ids(b, place)
    count = len(names)
    counted = (ids_a >= 0) & (ids_b >= 0)
    pairs = count * ids_a[counted].astype(np.int64) + ids_b[counted]
    table = np.bincount(pairs, minlength=count**2).reshape(count, count)
    in_a, in_b, both = table.sum(axis=1), table.sum(axis=0), np.diag(table)
    keys_a, keys_b = set(map(_key, a.names)), set(map(_key, b.names))
    rows = [
        ClassAgreement(name, _known_by(_key(name), keys_a, keys_b), int(in_a[at]), int(in_b[at]), int(both[at]))
        for at, name in enumerate(names)
        if in_a[at] or in_b[at]
    ]
    rows.sort(key=lambda row: (-(row.a_px + row.b_px), row.name))
    return Agreement(names, ids_a, ids_b, tuple(rows), int(counted.sum()), int(both.sum()))


def _key(name: str) -> str:
    plain = " ".join(name.casefold().replace("_", " ").split())
    return _SAME.get(plain, plain)


def _common_names(a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    """The classes of both in an order that does not depend on which is A: background, then by name."""
    words: dict[str, set[str]] = {}
    for name in (*a, *b):
        words.setdefault(_key(name), set()).add(name)
    keys = sorted(words, key=lambda key: (key != BACKGROUND, key))
    return tuple(min(words[key]) for key in keys)


def _with_ids(given: NamedMap, place: dict[str, int]) -> Ids:
    table = np.array([*(place[_key(name)] for name in given.names), IGNORED], np.int16)
    ids: Ids = table[given.ids]  # -1 is the last
    return ids


def _known_by(key: str, a: set[str], b: set[str]) -> Knows:
    return "both" if key in a and key in b else "a" if key in a else "b"
