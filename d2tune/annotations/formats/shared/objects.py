"""Checks on the objects of an image together: the same object twice, and boxes in place of outlines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from d2tune.annotations.formats.shared.units import Draft, Unit
from d2tune.annotations.geometry.masks import rasterize, union_rles
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.types import Rle
from d2tune.text import counted

_NEAR_PX = 1.0
"""How far the boxes of two objects with the same pixels, or of an outline and the box around it, may differ."""


def note_repeated(unit: Unit) -> None:
    """Drop objects that are annotated twice, and note objects at the same place.

    Of two objects with the same class and the same pixels one stays, with the warning ``duplicate_shape``. The first
    stays, except where an object of another class covers it before the second, so that label maps stay as they are.
    Objects of different classes both stay, with the info ``same_place``. A box around an outline of the same class
    stays as well, with the warning ``box_of_shape``. Crowds are compared with crowds alone.

    Two rectangles that were drawn from different corners are not copies of each other and both stay.

    The pixels are compared only where areas are equal and boxes nearly so.
    """
    drafts = unit.drafts
    if len({draft.area_px2 for draft in drafts}) < len(drafts) and not all(draft.is_disjoint for draft in drafts):
        gone = _note_equal(unit)
        if gone:
            unit.drafts = [draft for index, draft in enumerate(drafts) if index not in gone]
    if any(draft.is_box for draft in unit.drafts) and not all(draft.is_box for draft in unit.drafts):
        _note_boxes_around(unit)


def _note_equal(unit: Unit) -> set[int]:
    """Note the objects with the same pixels; returns the indices of the drafts to drop."""
    gone: set[int] = set()
    for members in _equal_pixels(unit):
        first_of: dict[tuple[str, bool], int] = {}
        for index in members:
            draft = unit.drafts[index]
            key = draft.label, draft.iscrowd
            if key not in first_of:
                first_of[key] = index
                continue
            earlier = first_of[key]
            if draft.is_box and draft.first_corner != unit.drafts[earlier].first_corner:
                continue
            kept, dropped = (index, earlier) if _is_covered(unit.drafts, earlier, index) else (earlier, index)
            _note_duplicate(unit, unit.drafts[kept], unit.drafts[dropped])
            first_of[key] = kept
            gone.add(dropped)
        kinds = sorted(index for (_, iscrowd), index in first_of.items() if not iscrowd)
        for index in kinds[1:]:
            _note_same_place(unit, unit.drafts[kinds[0]], unit.drafts[index])
    return gone


def _note_duplicate(unit: Unit, kept: Draft, dropped: Draft) -> None:
    message = (
        f"the shape has the same class {dropped.label!r} and the same pixels as shape {kept.shapes[0]}; it is dropped"
    )
    also, hint = tuple(kept.shapes), "remove one of the two"
    unit.note("warning", "duplicate_shape", message, shape=dropped.shapes[0], also=also, hint=hint)
    for shape in dropped.shapes:
        unit.excluded[shape] = message


def _note_same_place(unit: Unit, first: Draft, later: Draft) -> None:
    message = f"the shape has the same pixels as shape {first.shapes[0]} of the class {first.label!r}; both are kept"
    unit.note("info", "same_place", message, shape=later.shapes[0], also=tuple(first.shapes))


def _is_covered(drafts: Sequence[Draft], earlier: int, later: int) -> bool:
    """Whether an object of another class lies over the place of the earlier of two objects, and below the later."""
    x, y, width, height = drafts[earlier].bbox_xywh
    for draft in drafts[earlier + 1 : later]:
        left, top, wide, high = draft.bbox_xywh
        is_near = left < x + width and x < left + wide and top < y + height and y < top + high
        if is_near and draft.label != drafts[earlier].label:
            return True
    return False


def _equal_pixels(unit: Unit) -> list[list[int]]:
    """The indices of drafts that have exactly the same pixels, for each such set of pixels."""
    of_area: dict[float, list[int]] = {}
    for index, draft in enumerate(unit.drafts):
        of_area.setdefault(draft.area_px2, []).append(index)
    sets: dict[bytes | str, list[int]] = {}
    for members in of_area.values():
        for index in _near_another(unit.drafts, members):
            sets.setdefault(_counts(unit, unit.drafts[index]), []).append(index)
    return [members for members in sets.values() if len(members) > 1]


def _near_another(drafts: Sequence[Draft], members: list[int]) -> list[int]:
    """Those of several drafts whose box is nearly that of another one of them."""
    if len(members) < 2:
        return []
    boxes = np.array([drafts[index].bbox_xywh for index in members])
    order = np.argsort(boxes[:, 0], kind="stable")
    last = np.searchsorted(boxes[order, 0], boxes[order, 0] + _NEAR_PX, side="right")
    near: set[int] = set()
    for place, stop in enumerate(last.tolist()):
        rivals = order[place + 1 : stop]
        if len(rivals):
            close = rivals[(np.abs(boxes[rivals] - boxes[order[place]]) <= 2 * _NEAR_PX).all(axis=1)]
            near.update(close.tolist(), order[place : place + 1].tolist() if len(close) else ())
    return [members[place] for place in sorted(near)]


def _counts(unit: Unit, draft: Draft) -> str:
    """The compressed run lengths of a draft's pixels."""
    if isinstance(draft.segmentation, Rle):
        return draft.segmentation.counts
    assert unit.image is not None
    width_px, height_px = unit.image.size_px
    counts: bytes = union_rles(rasterize(draft.segmentation, width_px=width_px, height_px=height_px))["counts"]
    return counts.decode("ascii")


def _note_boxes_around(unit: Unit) -> None:
    """Note boxes that are the box around an outline of the same class."""
    outlines: dict[str, list[Draft]] = {}
    for draft in unit.drafts:
        if not draft.is_box and not draft.iscrowd:
            outlines.setdefault(draft.label, []).append(draft)
    boxes_of = {label: np.array([draft.bbox_xywh for draft in drafts]) for label, drafts in outlines.items()}
    for box in (draft for draft in unit.drafts if draft.is_box and draft.label in outlines):
        distance_px = np.abs(boxes_of[box.label] - box.bbox_xywh).max(axis=1)
        nearest = int(distance_px.argmin())
        if distance_px[nearest] <= _NEAR_PX:
            outline = outlines[box.label][nearest]
            message = f"the box is that around shape {outline.shapes[0]} of the same class; both are kept as objects"
            also, hint = tuple(outline.shapes), "if they are the same object, remove the box"
            unit.note("warning", "box_of_shape", message, shape=box.shapes[0], also=also, hint=hint)


def dataset_findings(dataset: Dataset, *, trains_objects: bool = False) -> tuple[Finding, ...]:
    """What a person has to know of the objects of a dataset before training: crowds, and boxes without outlines.

    Args:
        dataset: The dataset.
        trains_objects: Whether a model of objects is trained or evaluated on it, so that crowds alone are an error.
    """
    crowds, objects = dataset.crowds, len(dataset.instances) - dataset.crowds
    boxes = sum(instance.is_box for instance in dataset.instances)
    files = {image.id: image.annotation_file or image.file_name for image in dataset.images}
    first = next((files[one.image_id] for one in dataset.instances if one.iscrowd), "")
    unit = Unit(first)
    if crowds and not objects and trains_objects:
        unit.note("error", "only_crowds", only_crowds_message(crowds), hint=CROWDS_HINT)
    elif crowds:
        message = f"{crowds:,} of {counted(crowds + objects, 'annotation')} marked as crowds (iscrowd), which training"
        unit.note("warning", "crowds", f"{message} excludes", hint=CROWDS_HINT)
    if boxes and not any(finding.code == "box_as_mask" for finding in dataset.findings):
        unit.file = next(files[one.image_id] for one in dataset.instances if one.is_box)
        unit.note("info", "box_as_mask", box_message(boxes, crowds + objects))
    return tuple(unit.findings)


CROWDS_HINT = "if they are single objects, read them as objects: --crowds objects, in a project data.crowds: objects"
"""The way out where objects are marked as crowds."""


def only_crowds_message(crowds: int) -> str:
    """What is wrong with a split of crowds alone."""
    return f"0 objects, {counted(crowds, 'crowd')}: all are marked as crowds (iscrowd), which training excludes"


def note_boxes(units: Iterable[Unit], file: Unit) -> None:
    """Note the info with the number of objects that have a box and no segmentation.

    Args:
        units: The images of the file.
        file: Takes the finding.
    """
    drafts = [draft for unit in units for draft in unit.drafts]
    boxes = sum(draft.is_box for draft in drafts)
    if boxes:
        file.note("info", "box_as_mask", box_message(boxes, len(drafts)))


def box_message(boxes: int, objects: int) -> str:
    """What the info ``box_as_mask`` says."""
    have = "has" if boxes == 1 else "have"
    return f"{boxes:,} of {counted(objects, 'object')} {have} a box and no outline; the mask is the whole rectangle"
