"""One image's annotations as a reader hands them on, and what became of each shape of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2tune.annotations.model.findings import Finding, Level
from d2tune.annotations.model.ledger import Fate, LedgerRow
from d2tune.annotations.model.types import Polygons, Rle


@dataclass(slots=True, eq=False)
class Draft:
    """An instance before images and categories have their ids; the attributes are those of `Instance`."""

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


@dataclass(slots=True, eq=False)
class ImageDraft:
    """An image before it has its id."""

    file_name: str
    width_px: int
    height_px: int
    path: Path | None

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.width_px, self.height_px


@dataclass(slots=True, eq=False)
class Unit:
    """One image's annotations as read from one file.

    Attributes:
        file: The annotation file, relative to the source folder.
        image: The image, None where it cannot be had.
        labels: Class names of the regions seen, with the first shape that has each.
        drafts: The instances, in the order of their first shapes.
        findings: What was noticed.
        left_out: Why a shape takes no part, where no finding about it says so, by its index.
    """

    file: str
    image: ImageDraft | None = None
    labels: dict[str, int | None] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)

    def note(self, level: Level, code: str, message: str, **place: Any) -> None:
        """Add a finding; ``place`` takes the other fields of `Finding`."""
        self.findings.append(Finding(level, code, self.file, message, **place))

    def leave_out(self, shapes: Iterable[int]) -> None:
        """Say of shapes that were not read that the last finding is why."""
        self.left_out |= dict.fromkeys(shapes, self.findings[-1].message if self.findings else "")

    @property
    def is_bad(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.level == "error" for finding in self.findings)


def rows_of(unit: Unit, ids: Sequence[int]) -> Iterator[LedgerRow]:
    """The rows of one image's annotations, in the order of their shapes.

    Args:
        unit: What was read.
        ids: Ids of the instances that its drafts became, in their order; empty where it has no image.
    """
    image = unit.image.file_name if unit.image is not None else ""
    if len(ids) == len(unit.drafts) and not unit.findings and not unit.left_out:
        shapes = [draft.shapes for draft in unit.drafts]
        if all(len(one) == 1 for one in shapes) and len(set(shapes)) == len(shapes):  # as nearly every file is
            for number, draft in zip(ids, unit.drafts, strict=True):
                yield LedgerRow(unit.file, "kept", draft.shapes[0], None, image, draft.label, (number,))
            return
    found: dict[int, list[Finding]] = {}
    for finding in unit.findings:
        if finding.shape is not None:
            found.setdefault(finding.shape, []).append(finding)
    used: dict[int, list[tuple[int, Draft]]] = {}
    for number, draft in zip(ids, unit.drafts, strict=False):
        for shape in draft.shapes:
            used.setdefault(shape, []).append((number, draft))
    lost = dict.fromkeys((shape for draft in unit.drafts for shape in draft.shapes), _reason(unit.findings))
    reasons: Mapping[int, str] = lost | unit.left_out
    for shape in sorted({*found, *used, *reasons}):
        notes = found.get(shape, [])
        codes = tuple(dict.fromkeys(finding.code for finding in notes))
        if shape in used:
            yield _used(unit.file, shape, image, used[shape], codes, notes)
        else:
            message = _reason(notes) or reasons.get(shape, "")
            yield LedgerRow(unit.file, "dropped", shape, None, image, codes=codes, message=message)
    for finding in () if unit.left_out else unit.findings:
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
    """The message of the finding that decided: the first error, else the last one."""
    errors = [finding for finding in findings if finding.level == "error"]
    decisive = errors[:1] or list(findings[-1:])
    return decisive[0].message if decisive else ""
