"""The annotations of one image as a reader returns them, and the fate of each of their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2tune.annotations.model.findings import Finding, Level
from d2tune.annotations.model.ledger import Fate, LedgerRow
from d2tune.annotations.model.pixel_format import PixelFormat
from d2tune.annotations.model.types import Polygons, Rle


@dataclass(slots=True, eq=False)
class Draft:
    """An instance before images and categories have their ids; the attributes are those of `Instance`.

    ``first_corner`` is that of the only part of a box, see `parts.Part`.
    """

    label: str
    shapes: tuple[int, ...]
    segmentation: Polygons | Rle
    bbox_xywh: tuple[float, float, float, float]
    area_px2: float
    iscrowd: bool = False
    score: float | None = None
    part_shapes: tuple[int, ...] = ()
    difficult: bool = False
    layers: tuple[tuple[int, Rle], ...] = ()
    is_disjoint: bool = False
    is_box: bool = False
    first_corner: tuple[bool, bool] = (False, False)


@dataclass(slots=True, eq=False)
class ImageDraft:
    """An image before it has its id; the attributes are those of `Image`.

    ``is_detour`` is whether the image is not at the path that the annotation file names.
    """

    file_name: str
    width_px: int
    height_px: int
    path: Path | None
    source_id: int | str | None = None
    pixel_format: PixelFormat | None = None
    is_detour: bool = False

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.width_px, self.height_px


@dataclass(slots=True, eq=False)
class Unit:
    """One image's annotations as read from one file.

    Attributes:
        file: The annotation file, relative to the source folder.
        image: The image, None where it is missing or unreadable.
        image_name: The image as findings name it; empty where the file has the annotations of one image alone.
        labels: Class names that occur, with the first shape of each.
        drafts: The instances, in the order of their first shapes.
        findings: In the order in which they were made.
        excluded: The reason by the index of a shape, for excluded shapes without a finding of their own.
    """

    file: str
    image: ImageDraft | None = None
    labels: dict[str, int | None] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    excluded: dict[int, str] = field(default_factory=dict)
    image_name: str = ""

    def note(self, level: Level, code: str, message: str, **place: Any) -> None:
        """Add a finding; ``place`` takes the other fields of `Finding`."""
        if self.image_name:
            place.setdefault("image", self.image_name)
        self.findings.append(Finding(level, code, self.file, message, **place))

    def exclude(self, shapes: Iterable[int]) -> None:
        """Exclude shapes for the reason that the last finding gives."""
        self.excluded |= dict.fromkeys(shapes, self.findings[-1].message if self.findings else "")

    @property
    def is_bad(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.level == "error" for finding in self.findings)


def rows_of(unit: Unit, ids: Sequence[int]) -> Iterator[LedgerRow]:
    """The rows of one image's annotations, in the order of their shapes.

    Args:
        unit: The annotations.
        ids: Ids of the instances made from its drafts, in their order; empty where it has no image.
    """
    image = unit.image.file_name if unit.image is not None else ""
    if len(ids) == len(unit.drafts) and not unit.findings and not unit.excluded:
        shapes = [draft.shapes for draft in unit.drafts]
        if all(len(indices) == 1 for indices in shapes) and len(set(shapes)) == len(shapes):  # as in nearly every file
            for number, draft in zip(ids, unit.drafts, strict=True):
                yield LedgerRow(unit.file, "kept", draft.shapes[0], None, image, draft.label, (number,))
            return
    notes_of: dict[int, list[Finding]] = {}
    for finding in unit.findings:
        if finding.shape is not None:
            notes_of.setdefault(finding.shape, []).append(finding)
    used: dict[int, list[tuple[int, Draft]]] = {}
    for number, draft in zip(ids, unit.drafts, strict=False):
        for shape in draft.shapes:
            used.setdefault(shape, []).append((number, draft))
    lost = dict.fromkeys((shape for draft in unit.drafts for shape in draft.shapes), _reason(unit.findings))
    reasons: Mapping[int, str] = lost | unit.excluded
    for shape in sorted({*notes_of, *used, *reasons}):
        notes = notes_of.get(shape, [])
        codes = tuple(dict.fromkeys(finding.code for finding in notes))
        if shape in used:
            yield _used(unit.file, shape, image, used[shape], codes, notes)
        else:
            message = _reason(notes) or reasons.get(shape, "")
            yield LedgerRow(unit.file, "dropped", shape, None, image, codes=codes, message=message)
    for finding in () if unit.excluded else unit.findings:
        if finding.shape is None and finding.line is not None:
            message = finding.message
            yield LedgerRow(unit.file, "dropped", None, finding.line, image, codes=(finding.code,), message=message)


def _used(
    file: str,
    shape: int,
    image: str,
    used: Sequence[tuple[int, Draft]],
    codes: tuple[str, ...],
    notes: Sequence[Finding],
) -> LedgerRow:
    ids, draft = tuple(number for number, _ in used), used[0][1]
    clipped = next((finding.message for finding in notes if finding.code == "clipped"), "")
    fate: Fate = "merged" if len(draft.shapes) > 1 else "clipped" if clipped else "kept"
    return LedgerRow(file, fate, shape, None, image, draft.label, ids, len(draft.shapes), codes, clipped)


def _reason(findings: Sequence[Finding]) -> str:
    """The message of the first error, else of the last finding."""
    errors = [finding for finding in findings if finding.level == "error"]
    decisive = errors[:1] or list(findings[-1:])
    return decisive[0].message if decisive else ""
