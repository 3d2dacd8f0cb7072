"""The dataset that the units of a reader add up to.

A reader turns each image's annotations into a `Unit` and hands all units to `assemble`. A unit is the smallest
amount that can be excluded for its errors; its findings never stop another unit from being read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.objects import note_repeated
from d2tune.annotations.formats.shared.parts import crowds_to_objects
from d2tune.annotations.formats.shared.units import Draft, ImageDraft, Unit, rows_of
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.ledger import LedgerRow
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError, nearest


def assemble(
    units: Sequence[Unit],
    options: ReadOptions,
    *,
    root: Path,
    names: Sequence[str] | None = None,
    stuff: Iterable[str] = (),
    category_ids: Mapping[str, int | str] | None = None,
) -> Dataset:
    """Number images, categories and instances, and gather the findings.

    Args:
        units: In the order of the files.
        options: How to read.
        root: The folder that images are named relative to.
        names: Class names in order; None takes those of ``options.labels``, else the sorted ones that occur.
        stuff: Classes that the file marks as stuff.
        category_ids: The ids of classes in the file, where it has ids.

    Raises:
        DataError: ``options.stuff`` names a class that does not exist.
    """
    _note_duplicates(units)
    for unit in units:
        if options.crowds == "objects":
            crowds_to_objects(unit)
        if len(unit.drafts) > 1:
            note_repeated(unit)
    kept = [_excluded(unit) if options.skip_bad and unit.is_bad else unit for unit in units]
    known = Labels(options).names if names is None else tuple(names)
    if known is None:
        known = tuple(sorted({label for unit in kept for label in unit.labels}))
    _note_case(kept)
    categories = _categories(known, (*options.stuff, *stuff), options, category_ids or {})
    id_of = {category.name: category.id for category in categories}
    shown = sorted(((unit.image, unit) for unit in kept if unit.image is not None), key=lambda pair: pair[0].file_name)
    images: list[Image] = []
    instances: list[Instance] = []
    ids: dict[int, range] = {}
    for draft, unit in shown:
        measured = draft.width_px, draft.height_px, draft.path
        source = unit.file, draft.source_id
        images.append(Image(len(images) + 1, draft.file_name, *measured, *source, draft.pixel_format))
        ids[id(unit)] = range(len(instances) + 1, len(instances) + 1 + len(unit.drafts))
        for instance in unit.drafts:
            instances.append(_number(instance, len(instances) + 1, images[-1].id, id_of[instance.label]))
    ledger: list[LedgerRow] = []
    for unit in kept:
        ledger += rows_of(unit, ids.get(id(unit), ()))
        unit.drafts = []  # those of a large folder would take as much memory as its instances
    findings = [finding for unit in kept for finding in unit.findings]
    findings.sort(key=lambda finding: (finding.file, finding.line or 0, -1 if finding.shape is None else finding.shape))
    return Dataset(tuple(images), categories, tuple(instances), tuple(findings), root, tuple(ledger))


def _number(draft: Draft, instance_id: int, image_id: int, category_id: int) -> Instance:
    return Instance(
        id=instance_id,
        image_id=image_id,
        category_id=category_id,
        segmentation=draft.segmentation,
        bbox_xywh=draft.bbox_xywh,
        area_px2=draft.area_px2,
        iscrowd=draft.iscrowd,
        score=draft.score,
        shapes=draft.shapes,
        part_shapes=draft.part_shapes,
        difficult=draft.difficult,
        layers=draft.layers,
        is_disjoint=draft.is_disjoint,
        is_box=draft.is_box,
    )


def _note_duplicates(units: Sequence[Unit]) -> None:
    """Note errors for all units of an image but one: each would become an image with some of its objects.

    The first unit whose file names the image keeps it. Where it is a detour for all of them, none does.
    """
    groups: dict[str, list[tuple[Unit, ImageDraft]]] = {}
    for unit in units:
        if unit.image is not None:
            groups.setdefault(unit.image.file_name, []).append((unit, unit.image))
    for name, members in groups.items():
        if len(members) == 1:
            continue
        first = next((unit for unit, image in members if not image.is_detour), None)
        for unit, _ in members:
            if unit is not first:
                other = first or next(one for one, _ in members if one is not unit)
                message = f"the image {name} is already annotated in {other.file}"
                unit.note("error", "duplicate_image", message, also=(other.file,), hint="keep one of the two")
                unit.image = None


def _excluded(unit: Unit) -> Unit:
    """A bad unit without its image, its errors turned into warnings."""
    findings = [
        dataclasses.replace(finding, level="warning", message=f"{finding.message}; the file is excluded")
        if finding.level == "error"
        else finding
        for finding in unit.findings
    ]
    excluded = {shape: "the file is excluded" for draft in unit.drafts for shape in draft.shapes}
    return Unit(unit.file, findings=findings, excluded=excluded | unit.excluded)


def _note_case(units: Sequence[Unit]) -> None:
    """Note a warning for every spelling that differs from an earlier spelling by case alone."""
    spelled: dict[str, dict[str, tuple[Unit, int | None]]] = {}
    for unit in units:
        for label, shape in unit.labels.items():
            spelled.setdefault(label.casefold(), {}).setdefault(label, (unit, shape))
    for spellings in spelled.values():
        first, *later = spellings
        for label in later:
            unit, shape = spellings[label]
            message = f"the labels {first!r} and {label!r} differ by case alone and are two classes"
            unit.note("warning", "labels_differ_by_case", message, shape=shape, also=(spellings[first][0].file,))


def _categories(
    names: Sequence[str], stuff: Sequence[str], options: ReadOptions, ids: Mapping[str, int | str]
) -> tuple[Category, ...]:
    for name in options.stuff:
        if name not in names:
            hint = nearest(name, names)
            raise DataError(
                "a stuff class is not among the classes",
                found=repr(name),
                expected=", ".join(names) or "a class that occurs",
                hint=f"Did you mean {hint!r}?" if hint else None,
            )
    return tuple(Category(number, name, name not in stuff, ids.get(name)) for number, name in enumerate(names, start=1))
