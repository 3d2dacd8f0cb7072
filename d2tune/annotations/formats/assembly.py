"""What every reader shares: labels, regions, instances, and the dataset they add up to.

A reader turns each image's annotations into a `Unit` and hands all units to `assemble`. A unit is the least that
can be left out when it is bad; its findings never stop another unit from being read.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2tune.annotations.formats.units import Draft, ImageDraft, Unit, rows_of
from d2tune.annotations.geometry import tracing
from d2tune.annotations.geometry.masks import (
    Patch,
    decode_mask,
    encode_mask,
    rasterize,
    rle_area_px2,
    rle_bbox_xywh,
    to_rle,
    union_rles,
)
from d2tune.annotations.geometry.nesting import CrowdedGroupError, nesting
from d2tune.annotations.geometry.polygons import (
    PointError,
    clean_points,
    clip_polygon,
    ellipse_points,
    has_no_area,
    polygons_bbox_xywh,
    self_intersects,
)
from d2tune.annotations.io.images import Header, ImageError, ImageFinder, Place, is_image_name, read_header, walk_files
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.ledger import LedgerRow
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Mask, Points, Polygons, RawRle, Rle
from d2tune.errors import DataError, nearest
from d2tune.text import describe

SPECIAL_LABELS = frozenset({"__ignore__", "_background_"})
"""Labels that never become a category."""

_SUFFIX = re.compile(r"(.+)-(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """A label after all rules: the class name, and the number behind it in the old ``person-1`` style."""

    label: str
    number: str | None = None


class Labels:
    """The rules that turn what was typed as a label into a class name."""

    def __init__(self, options: ReadOptions) -> None:
        self.names: tuple[str, ...] | None = None
        if options.labels is not None:
            self.names = tuple(dict.fromkeys(name for name in options.labels if name not in SPECIAL_LABELS))
        self._known = frozenset(self.names or ())
        self._rename = options.rename
        self._strip = options.instance_suffix == "strip"

    def read(self, raw: object, unit: Unit, shape: int | None, *, line: int | None = None) -> Name | None:
        """The class name for a label, or None with the finding that says why there is none."""
        if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
            message = f"the label is {describe(raw)}, expected text"
            unit.note("error", "bad_shape", message, shape=shape, line=line)
            return None
        if not isinstance(raw, str):
            text = describe(raw)
            message = f"the label is the number {text}; it is read as the text {text!r}"
            unit.note("warning", "label_not_string", message, shape=shape, line=line)
            raw = text
        label = raw.strip()
        if label != raw:
            message = f"the label {raw!r} has blanks around it; it is read as {label!r}"
            unit.note("warning", "label_whitespace", message, shape=shape, line=line)
        if not label:
            unit.note("error", "bad_shape", "the label is empty", shape=shape, line=line)
            return None
        return self._known_name(label, unit, shape, line)

    def class_of(self, label: str) -> tuple[str | None, str | None]:
        """The class that a label without blanks around it stands for, None where it is left out, and its number."""
        number = None
        drawn: str | None = label
        if (
            self._strip
            and label not in self._known
            and label not in self._rename
            and (match := _SUFFIX.fullmatch(label))
        ):
            drawn, number = match[1], match[2]
        if drawn in self._rename:
            drawn = self._rename[drawn]
        return (None if drawn in SPECIAL_LABELS else drawn), number

    def _known_name(self, label: str, unit: Unit, shape: int | None, line: int | None) -> Name | None:
        drawn, number = self.class_of(label)
        if drawn is None:
            unit.note("info", "ignored_label", f"{label!r} is not read", shape=shape, line=line)
            return None
        if self.names is not None and drawn not in self._known:
            message = f"the label {drawn!r} is not one of the {len(self.names)} classes"
            hint = nearest(drawn, self.names)
            unit.note("error", "unknown_label", message, shape=shape, line=line, hint=hint)
            return None
        unit.labels.setdefault(drawn, shape)
        return Name(drawn, number)


@dataclass(slots=True, eq=False)
class Part:
    """One shape that takes part in an instance.

    Attributes:
        shape: Index in the annotation file.
        rle: Its pixels, on the whole image.
        area_px2: How many there are.
        polygons: Its outlines on the image; empty where only the pixels say what it is.
        is_mask: Whether it was given as pixels.
        bbox_xywh: The box around the polygons, where it is known already.
    """

    shape: int
    rle: RawRle
    area_px2: float
    polygons: Polygons
    is_mask: bool = False
    bbox_xywh: tuple[float, float, float, float] | None = None


def polygon_part(
    points: Points, unit: Unit, shape: int, *, is_polygon: bool = True, extent: Points | None = None
) -> Part | None:
    """Check, clip and rasterize an outline.

    Args:
        points: Checked vertices, shape ``(V, 2)``.
        unit: Where it belongs; its image gives the size and its findings take what is noticed.
        shape: Index in the annotation file.
        is_polygon: False for outlines that were computed, which need no check for crossing themselves.
        extent: Two corners ``(2, 2)`` of what was drawn, where the outline only approximates it.

    Returns:
        The part, or None with the finding that says why there is none.
    """
    try:
        return _polygon_part(points, unit, shape, is_polygon=is_polygon, extent=extent)
    except PointError as error:
        unit.note("error", error.code, f"the outline is too much to check: {error}", shape=shape)
        return None


def _polygon_part(points: Points, unit: Unit, shape: int, *, is_polygon: bool, extent: Points | None) -> Part | None:
    assert unit.image is not None
    width_px, height_px = unit.image.width_px, unit.image.height_px
    if len(points) < 3:
        message = f"a polygon needs three points, it has {len(points)}; dropped"
        return dropped(unit, "too_few_points", message, shape)
    points = clean_points(points)
    if has_no_area(points):
        return dropped(unit, "zero_area", "the shape encloses nothing; dropped", shape)
    polygons = clip_polygon(points, width_px=width_px, height_px=height_px)
    if not polygons:
        message = f"the shape lies outside the {width_px} x {height_px} px image; dropped"
        return dropped(unit, "outside_image", message, shape)
    drawn = points if extent is None else extent
    if polygons[0] is not points and _sticks_out(drawn, width_px, height_px):
        message = f"the shape sticks out of the {width_px} x {height_px} px image and was clipped"
        unit.note("warning", "clipped", message, shape=shape)
    rle = union_rles(rasterize(polygons, width_px=width_px, height_px=height_px))
    if is_polygon and self_intersects(points):
        message = "the outline crosses itself; it is filled by the even-odd rule"
        unit.note("warning", "self_intersection", message, shape=shape)
    area_px2 = rle_area_px2(rle)
    if not area_px2:
        return dropped(unit, "rasterizes_empty", "the shape is too small to cover a pixel; dropped", shape)
    return Part(shape, rle, area_px2, polygons)


def round_part(
    center: list[float], radius_x_px: float, radius_y_px: float, unit: Unit, index: int, *, theta_rad: float = 0.0
) -> Part | None:
    """A circle or an ellipse as a part; see `geometry.ellipse`."""
    if min(radius_x_px, radius_y_px) <= 0:
        return dropped(unit, "zero_area", "the shape has no radius and encloses nothing; dropped", index)
    cos, sin = math.cos(theta_rad), math.sin(theta_rad)
    reach = np.array(
        [math.hypot(radius_x_px * cos, radius_y_px * sin), math.hypot(radius_x_px * sin, radius_y_px * cos)]
    )
    outline = ellipse_points(center, radius_x_px, radius_y_px, theta_rad=theta_rad)
    return polygon_part(outline, unit, index, is_polygon=False, extent=np.array([center - reach, center + reach]))


def dropped(unit: Unit, code: str, message: str, shape: int) -> Part | None:
    """Note that a shape is left out; gives None, for readers to return."""
    unit.note("warning", code, message, shape=shape)
    return None


def _sticks_out(points: Points, width_px: int, height_px: int) -> bool:
    low, high = points.min(axis=0), points.max(axis=0)
    return bool(low[0] < 0 or low[1] < 0 or high[0] > width_px or high[1] > height_px)


def mask_part(patch: Patch, unit: Unit, shape: int) -> Part | None:
    """Clip a mask and find its outlines; None with a warning where nothing of it is on the image."""
    assert unit.image is not None
    width_px, height_px = unit.image.width_px, unit.image.height_px
    if not patch.mask.any():
        return dropped(unit, "rasterizes_empty", "the mask has no pixel; dropped", shape)
    clipped = patch.clipped(width_px=width_px, height_px=height_px)
    if not clipped.mask.size:
        message = f"the mask lies outside the {width_px} x {height_px} px image; dropped"
        return dropped(unit, "outside_image", message, shape)
    rle = clipped.rle(width_px=width_px, height_px=height_px)
    try:
        outer, holes = tracing.patch_outlines(clipped)
    except tracing.RaggedMaskError as error:
        unit.note("warning", "mask_ragged", f"{error}; it is kept as run-length mask", shape=shape)
        outer, holes = [], []
    return Part(shape, rle, rle_area_px2(rle), () if holes else tuple(outer), is_mask=True)


def instance(
    name: str,
    parts: Sequence[Part],
    unit: Unit,
    *,
    nested: str = "union",
    iscrowd: bool = False,
    score: float | None = None,
    difficult: bool = False,
) -> Draft:
    """Unite the parts of one instance.

    A part inside another one is united with a warning or, where ``nested`` is ``hole``, cut out of it.
    """
    if len(parts) == 1 and parts[0].polygons and not iscrowd:
        return _lone(name, parts[0], score, difficult)
    depths = _nesting(parts, unit)
    if len(parts) > 1 and nested == "union":
        for part, around in zip(parts, depths, strict=True):
            if around:
                message = "the part lies inside another part of its group and is united with it"
                unit.note("warning", "group_part_nested", message, shape=part.shape, also=tuple(around))
    shapes = tuple(sorted(part.shape for part in parts))
    cut_out = nested == "hole" and any(depths)
    rle = _punched(parts, depths) if cut_out else union_rles([part.rle for part in parts])
    area_px2 = parts[0].area_px2 if len(parts) == 1 else rle_area_px2(rle)
    needs_pixels = iscrowd or cut_out or any(not part.polygons for part in parts)
    if needs_pixels or (len(parts) > 1 and any(part.is_mask for part in parts)):
        box = rle_bbox_xywh(rle)
        layers = _layers(parts, depths, rle if cut_out else None)
        return Draft(name, shapes, to_rle(rle), box, area_px2, iscrowd, score, difficult=difficult, layers=layers)
    polygons = tuple(polygon for part in parts for polygon in part.polygons)
    return Draft(
        name,
        shapes,
        polygons,
        polygons_bbox_xywh(polygons),
        area_px2,
        iscrowd,
        score,
        tuple(part.shape for part in parts for _ in part.polygons),
        difficult,
    )


def _lone(name: str, part: Part, score: float | None, difficult: bool) -> Draft:
    """An instance of one part with outlines."""
    box = part.bbox_xywh or polygons_bbox_xywh(part.polygons)
    alone = (part.shape,)
    shapes = alone if len(part.polygons) == 1 else alone * len(part.polygons)
    return Draft(name, alone, part.polygons, box, part.area_px2, False, score, shapes, difficult)


def _layers(
    parts: Sequence[Part], depths: Sequence[Sequence[int]], punched: RawRle | None
) -> tuple[tuple[int, Rle], ...]:
    """What each of several parts adds to their union, or to ``punched``, where parts at odd depth are holes."""
    if len(parts) < 2:
        return ()
    if punched is None:
        return tuple((part.shape, to_rle(part.rle)) for part in parts)
    stays = decode_mask(punched)
    solid = [part for part, around in zip(parts, depths, strict=True) if not len(around) % 2]
    return tuple((part.shape, to_rle(encode_mask(decode_mask(part.rle) & stays))) for part in solid)


def _nesting(parts: Sequence[Part], unit: Unit) -> list[list[int]]:
    """For each part, the shapes of those parts that it lies inside of; of two equal parts the later lies inside."""
    try:
        around = nesting([part.rle for part in parts], [part.area_px2 for part in parts])
    except CrowdedGroupError as error:
        hint = "give separate objects group numbers of their own"
        unit.note("error", "group_too_large", str(error), shape=parts[0].shape, hint=hint)
        return [[] for _ in parts]
    return [[parts[outer].shape for outer in members] for members in around]


def _punched(parts: Sequence[Part], depths: Sequence[Sequence[int]]) -> RawRle:
    """Parts at even depth filled, parts at odd depth cut out, from the outside in."""
    levels: dict[int, list[RawRle]] = {}
    for part, around in zip(parts, depths, strict=True):
        levels.setdefault(len(around), []).append(part.rle)
    mask: Mask | None = None
    for depth, rles in sorted(levels.items()):
        pixels = decode_mask(union_rles(rles))
        mask = pixels if mask is None else mask & ~pixels if depth % 2 else mask | pixels
    assert mask is not None
    return encode_mask(mask)


def measure(place: Place, unit: Unit, *, shape: int | None = None, line: int | None = None) -> Header | None:
    """Read the header of an image that was looked for and make it the unit's image.

    Returns:
        The header, or None with the error that says why there is none.
    """
    if place.path is None:
        unit.note("error", "image_missing", str(place.problem), hint=place.hint, shape=shape, line=line)
        return None
    try:
        header = read_header(place.path)
    except ImageError as error:
        unit.note("error", "image_unreadable", f"{place.path}: {error}", shape=shape, line=line)
        return None
    unit.image = ImageDraft(place.file_name, header.width_px, header.height_px, place.path)
    return header


def check_size(unit: Unit, header: Header, width_px: object, height_px: object, *, what: str) -> bool:
    """Compare the size that an annotation file states with the image's; without a stated size all is well."""
    sizes = [_whole(width_px), _whole(height_px)]
    stated = (sizes[0], sizes[1])
    if not all(stated) or stated == (header.width_px, header.height_px):
        return True
    shown = f"{header.width_px} x {header.height_px}"
    if header.swapped and stated == (header.height_px, header.width_px):
        message = (
            f"{what} says {stated[0]} x {stated[1]} px, the image is shown as {shown}: its EXIF orientation "
            f"{header.orientation} turns it, and the shapes were drawn on the unturned image"
        )
        unit.note("error", "size_swapped_exif", message, hint="annotate the image as it is shown")
    else:
        message = f"{what} says {stated[0]} x {stated[1]} px, the image has {shown}"
        unit.note("error", "size_mismatch", message, hint="find the image that was annotated")
    return False


def _whole(value: object) -> int | None:
    """A positive whole number, also when it was written as a decimal or as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
        return int(number) if number >= 1 and number == int(number) else None
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a reader reads.

    Attributes:
        source: The folder that annotation files are named relative to, absolute.
        root: The folder that images are named relative to, absolute.
        finder: Finds images.
    """

    source: Path
    root: Path
    finder: ImageFinder

    def search_from(self, annotation: Path) -> tuple[Path, ...]:
        """The folders to look for an image in: that of the annotation file, then the image root."""
        return tuple(dict.fromkeys((annotation.parent, self.root)))


def folders_of(source: Path, options: ReadOptions) -> Folders:
    """The folders for a source that is a folder or a file."""
    source = Path(source).absolute()
    folder = source if source.is_dir() else source.parent
    root = folder if options.image_root is None else Path(options.image_root).absolute()
    if not root.is_dir():
        raise DataError("the image root is no folder", file=root, hint="Name the folder that holds the images.")
    return Folders(folder, root, ImageFinder(root, allow_outside=options.allow_outside))


def unlabeled_units(folders: Folders, options: ReadOptions, claimed: Iterable[str]) -> list[Unit]:
    """A unit for every image under the image root that no annotation file speaks of.

    Args:
        folders: Where to look.
        options: ``include_unlabeled`` makes the images negatives; else they are only named.
        claimed: File names that are spoken of, relative to the image root.
    """
    known = set(claimed)
    units = []
    for name in walk_files(folders.root, skip=options.restore_dir):
        if not is_image_name(name) or name in known:
            continue
        unit = Unit(name)
        if options.include_unlabeled:
            measure(Place(folders.root / name, name), unit)
            unit.note("info", "unlabeled_image", "the image has no annotation; it is a negative")
        else:
            unit.note("info", "unlabeled_image", "the image has no annotation; it is left out")
        units.append(unit)
    return units


def assemble(
    units: Sequence[Unit],
    options: ReadOptions,
    *,
    root: Path,
    names: Sequence[str] | None = None,
    stuff: Iterable[str] = (),
) -> Dataset:
    """Number images, categories and instances, and gather the findings.

    Args:
        units: In the order of the files.
        options: How to read.
        root: The folder that images are named relative to.
        names: Class names in order; None takes those of ``options.labels``, else the sorted ones that occur.
        stuff: Classes that the file itself calls stuff.

    Raises:
        DataError: ``options.stuff`` names a class that there is not.
    """
    _note_duplicates(units)
    kept = [_left_out(unit) if options.skip_bad and unit.is_bad else unit for unit in units]
    known = Labels(options).names if names is None else tuple(names)
    if known is None:
        known = tuple(sorted({label for unit in kept for label in unit.labels}))
    _note_case(kept)
    categories = _categories(known, (*options.stuff, *stuff), options)
    id_of = {category.name: category.id for category in categories}
    shown = sorted(((unit.image, unit) for unit in kept if unit.image is not None), key=lambda pair: pair[0].file_name)
    images: list[Image] = []
    instances: list[Instance] = []
    ids: dict[int, range] = {}
    for draft, unit in shown:
        images.append(Image(len(images) + 1, draft.file_name, draft.width_px, draft.height_px, draft.path, unit.file))
        ids[id(unit)] = range(len(instances) + 1, len(instances) + 1 + len(unit.drafts))
        for part in unit.drafts:
            instances.append(_number(part, len(instances) + 1, images[-1].id, id_of[part.label]))
    ledger: list[LedgerRow] = []
    for unit in kept:
        ledger += rows_of(unit, ids.get(id(unit), ()))
        unit.drafts = []  # a large folder's would fill as much memory as its instances
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
    )


def _note_duplicates(units: Sequence[Unit]) -> None:
    """Two units for one image would make it two images with half the objects each."""
    first: dict[str, Unit] = {}
    for unit in units:
        if unit.image is None:
            continue
        other = first.setdefault(unit.image.file_name, unit)
        if other is not unit:
            message = f"the image {unit.image.file_name} was already annotated in {other.file}"
            unit.note("error", "duplicate_image", message, also=(other.file,), hint="keep one of the two")
            unit.image = None


def _left_out(unit: Unit) -> Unit:
    """A bad unit without its image, its errors turned into warnings that say so."""
    findings = [
        dataclasses.replace(finding, level="warning", message=f"{finding.message}; the file is left out")
        if finding.level == "error"
        else finding
        for finding in unit.findings
    ]
    left_out = {shape: "the file is left out" for draft in unit.drafts for shape in draft.shapes}
    return Unit(unit.file, findings=findings, left_out=left_out | unit.left_out)


def _note_case(units: Sequence[Unit]) -> None:
    """Warn once for every spelling that differs from an earlier one by case alone."""
    spelled: dict[str, dict[str, tuple[Unit, int | None]]] = {}
    for unit in units:
        for label, shape in unit.labels.items():
            spelled.setdefault(label.casefold(), {}).setdefault(label, (unit, shape))
    for spellings in spelled.values():
        first, *others = spellings
        for label in others:
            unit, shape = spellings[label]
            message = f"the labels {first!r} and {label!r} differ by case alone and are two classes"
            unit.note("warning", "labels_differ_by_case", message, shape=shape, also=(spellings[first][0].file,))


def _categories(names: Sequence[str], stuff: Sequence[str], options: ReadOptions) -> tuple[Category, ...]:
    for name in options.stuff:
        if name not in names:
            hint = nearest(name, names)
            raise DataError(
                "a stuff class is not among the classes",
                found=repr(name),
                expected=", ".join(names) or "a class that occurs",
                hint=f"Did you mean {hint!r}?" if hint else None,
            )
    return tuple(Category(number, name, name not in stuff) for number, name in enumerate(names, start=1))
