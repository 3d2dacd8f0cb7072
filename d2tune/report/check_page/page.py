"""The page of a check: one HTML file that shows what is in a dataset and what is wrong with it.

Everything that comes from files is escaped, images are embedded, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from d2tune.annotations.model.findings import Finding
from d2tune.annotations.splitting.duplicates import HASH_BITS, DuplicateGroup, duplicate_groups
from d2tune.errors import DataError, printable
from d2tune.files import write_text
from d2tune.report.check_page.advice import advice, listed, plural, short, verdict
from d2tune.report.check_page.charts import Line, Range, count_bars, heat_map, histogram, number, ranges, size_scatter
from d2tune.report.check_page.exhibits import Exhibit, Exhibits, view_of
from d2tune.report.check_page.finding_words import WORDS
from d2tune.report.check_page.photos import SheetTile, contact_tiles
from d2tune.report.check_page.survey import FEW_INSTANCES, MEDIUM_PX, SMALL_PX, Checked, Survey, survey
from d2tune.report.check_page.thumbnails import Album, Frame, PhotoError
from d2tune.report.sheets.drawing import instance_colors

GENERATOR = "d2tune check"
"""What the page's first lines name as its maker, by which it is known again."""

EXHIBITS_PER_CODE = 12
"""How many places of one code are shown."""

_ROOM_BYTES = {"sheet": 3_000_000, "findings": 3_000_000, "duplicates": 1_000_000}
_CLASSES_SHOWN, _CLASSES_LISTED, _LEGEND, _RANGES = 30, 300, 40, 8
_GROUPS_SHOWN, _TWINS_SHOWN = 24, 6
_TEXT_LENGTH = 300
_LEVELS = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its heading and what it says in words."""

    title: str
    svg: Markup
    words: str


@dataclass(frozen=True, slots=True)
class PartRow:
    """What is in one part."""

    name: str
    images: int
    negatives: int
    instances: int
    mean: float


@dataclass(frozen=True, slots=True)
class Twins:
    """A group of near-duplicates, with a frame, a name and a part for each image that is shown."""

    title: str
    words: str
    is_leak: bool
    frames: tuple[tuple[Frame | None, str, str], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class ShownExhibit:
    """A finding as the page shows it."""

    part: str
    place: str
    message: str
    hint: str | None
    note: str
    frame: Frame | None
    lines: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """All findings of one code and level."""

    level: str
    code: str
    count_words: str
    meaning: str
    remedy: str
    exhibits: tuple[ShownExhibit, ...]
    left_out: int


def refuse_foreign(path: Path) -> None:
    """Stop where a page would overwrite a file that is no page of this kind.

    Raises:
        DataError: The file is there and was made by something or somebody else.
    """
    if path.is_dir():
        raise DataError("the report is a file, and this is a folder", file=path, hint="Name a file: check.html.")
    if path.exists():
        with path.open("rb") as stream:
            start = stream.read(2000)
        if f'<meta name="generator" content="{GENERATOR}"'.encode() not in start:
            raise DataError(
                "the file is already there, is no page of d2tune check, and is not overwritten",
                file=path,
                hint="Name another file.",
            )


def write_check_page(
    path: str | Path, checked: Sequence[Checked], *, title: str, part_of: Mapping[str, str] | None = None
) -> None:
    """Write the page, atomically; an earlier page is replaced.

    The images must still be there: those that were restored from annotation files live only as long as
    `annotations.convert.checked`.

    Args:
        path: The HTML file.
        checked: What was read; each source once.
        title: Name of the whole, for the heading.
        part_of: Part by ``Image.file_name``; see `survey.survey`.

    Raises:
        DataError: A file of somebody else's is there.
        OSError: The file cannot be written.
    """
    path = Path(path)
    refuse_foreign(path)
    write_text(path, check_page(checked, title=title, part_of=part_of))


def check_page(checked: Sequence[Checked], *, title: str, part_of: Mapping[str, str] | None = None) -> str:
    """The page as text; see `write_check_page`."""
    from tqdm import tqdm

    from d2tune.versions import versions

    figures = survey(checked, part_of=part_of)
    groups = duplicate_groups([photo.image for photo in figures.photos])
    leaks = [group for group in groups if len(_parts_of(group, figures)) > 1]
    shades = instance_colors(len(figures.class_names)).tolist()
    colors = {
        name: f"#{red:02x}{green:02x}{blue:02x}"
        for name, (red, green, blue) in zip(figures.class_names, shades, strict=True)
    }
    by_code = _by_code(checked)
    total = sum(min(EXHIBITS_PER_CODE, len(members)) for members in by_code.values()) + 60
    with tqdm(total=total, desc="drawing", unit="image", leave=False, delay=2, disable=None) as bar:
        finding_groups = _finding_groups(checked, by_code, bar)
        tiles = contact_tiles(figures, colors, Album(_ROOM_BYTES["sheet"]), bar)
    twins = _twins(groups, leaks, figures)
    context = {
        "generator": GENERATOR,
        "title": title,
        "origin": " + ".join(str(one.source) for one in checked),
        "version": versions()["d2tune"],
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d at %H:%M"),
        "verdict": verdict(figures, leaks=len(leaks), groups=len(groups)),
        "advice": advice(figures, leaks=len(leaks)),
        "parts": figures.parts,
        "part_rows": _part_rows(figures),
        "colors": colors,
        "few": FEW_INSTANCES,
        "number": number,
        "short": short,
        "ticked": ticked,
        "twins": twins,
        "twins_left_out": len(groups) - len(twins),
        "duplicate_words": _duplicate_words(groups, leaks, figures),
        "groups": finding_groups,
        "finding_words": _finding_words(figures),
    }
    context |= (
        _head(figures, leaks) | _class_parts(figures) | _chart_parts(figures, colors) | _sheet_parts(figures, tiles)
    )
    context["sections"] = _sections(context)
    return _render(context)


def _render(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("d2tune.report.check_page", "templates"),
        autoescape=True,
        finalize=_finalised,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("check_page.html").render(context)


def _finalised(value: Any) -> Any:
    """Text from files without control characters, lone surrogates and endless lengths; all else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.startswith("data:image/jpeg;base64,"):
        return value
    return printable(value if len(value) <= _TEXT_LENGTH else f"{value[: _TEXT_LENGTH - 1]}…")


def ticked(text: str) -> Markup:
    """Text with its backquoted words as HTML code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _parts_of(group: DuplicateGroup, figures: Survey) -> set[str]:
    return {figures.photos[number - 1].part for number in group.image_ids} - {""}


def _head(figures: Survey, leaks: Sequence[DuplicateGroup]) -> dict[str, Any]:
    errors, warnings = figures.level("error"), figures.level("warning")
    status, words = "good", "Ready to train"
    if warnings or leaks or not figures.labels:
        status, words = "warning", "Look before you train" if figures.labels else "Nothing to learn from yet"
    if errors:
        status, words = "error", "Not ready to train"
    shapes = [row.fate for one in figures.checked for row in one.dataset.ledger]
    tiles = [
        (len(figures.photos), "images", ""),
        (int(np.count_nonzero(figures.objects_per_image == 0)), "images without objects", ""),
        (len(figures.labels), "instances", ""),
        (len(figures.class_names), "classes", ""),
        (shapes.count("clipped"), "shapes clipped", ""),
        (shapes.count("dropped"), "shapes dropped", "warning"),
        (warnings, "warnings", "warning"),
        (errors, "errors", "error"),
    ]
    return {
        "status": status,
        "status_words": words,
        "tiles": [
            {"value": f"{value:,}", "name": _one(name, value), "kind": kind if value else ""}
            for value, name, kind in tiles
        ],
    }


def _one(name: str, count: int) -> str:
    """The plural name of a tile, in the singular where there is one."""
    first, _, rest = name.partition(" ")
    noun = plural(count, {"classes": "class"}.get(first, first.removesuffix("s"))).partition(" ")[2]
    return f"{noun} {rest}".strip()


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = [
        ("advice", "What to do", context["advice"]),
        ("classes", "Classes", True),
        ("objects", "Objects", context["object_charts"]),
        ("images", "Images", context["image_charts"]),
        ("duplicates", "Near-duplicates", True),
        ("findings", "Findings", True),
        ("sheet", "Contact sheet", context["sheet"]),
    ]
    return [(anchor, name) for anchor, name, is_there in names if is_there]


def _class_parts(figures: Survey) -> dict[str, Any]:
    rows = figures.class_rows
    words = ""
    if len(rows) > 1 and figures.labels:
        words = f"The most frequent class has {100 * rows[0].share:.0f} % of all instances."
    return {
        "class_rows": rows[:_CLASSES_SHOWN],
        "more_class_rows": rows[_CLASSES_SHOWN:_CLASSES_LISTED],
        "class_rows_left_out": max(0, len(rows) - _CLASSES_LISTED),
        "class_words": words,
    }


def _part_rows(figures: Survey) -> list[PartRow]:
    if not figures.parts:
        return []
    rows = []
    for part in (*figures.parts, ""):
        counts = [len(photo.instances) for photo in figures.photos if photo.part == part]
        if counts or part:
            name = part or "in no part"
            rows.append(PartRow(name, len(counts), counts.count(0), sum(counts), sum(counts) / max(1, len(counts))))
    return rows


def _chart_parts(figures: Survey, colors: Mapping[str, str]) -> dict[str, Any]:
    return {
        "object_charts": _object_charts(figures, colors) if figures.labels else [],
        "image_charts": _photo_charts(figures) if figures.photos else [],
        "image_words": _photo_words(figures),
    }


def _object_charts(figures: Survey, colors: Mapping[str, str]) -> list[Chart]:
    sizes, relative = figures.sizes_px, 100 * figures.relative_sizes
    small, large = float(np.mean(sizes < SMALL_PX)), float(np.mean(sizes >= MEDIUM_PX))
    boxes, frames = figures.boxes_xywh, figures.image_sizes_of_instances_px
    counts = figures.objects_per_image
    ratios = figures.aspect_ratios
    return [
        Chart(
            "Size in pixels",
            histogram(
                sizes,
                x_label="square root of the area (px)",
                things="objects",
                unit=" px",
                lines=(Line(SMALL_PX, "medium"), Line(MEDIUM_PX, "large")),
            ),
            f"COCO calls {_percent(small)} of them small (under 32 px), {_percent(1 - small - large)} medium and "
            f"{_percent(large)} large (96 px and up). The median is {number(float(np.median(sizes)))} px.",
        ),
        Chart(
            "Size relative to the image",
            histogram(
                relative,
                x_label="square root of the share of the image (%)",
                things="objects",
                unit=" %",
            ),
            f"The median object is a square of {number(float(np.median(relative)))} % of the image's side.",
        ),
        Chart(
            "Objects in an image",
            count_bars(counts, x_label="objects in an image", things="images"),
            f"{number(float(counts.mean()))} on average, {int(counts.max()):,} at most; "
            f"{plural(int(np.count_nonzero(counts == 0)), 'photo')} without any.",
        ),
        Chart(
            "Shape of objects",
            histogram(
                ratios, x_label="width / height of the box", things="objects", lines=(Line(1.0, "as wide as high"),)
            ),
            f"{_percent(float(np.mean((ratios > 0.5) & (ratios < 2.0))))} are less than twice as long as wide.",
        ),
        Chart(
            "Size of each class",
            ranges(_ranges(figures, colors), x_label="square root of the area (px)", unit=" px"),
            f"From the smallest to the largest, with a dot at the median"
            f"{f'; the {_RANGES} most frequent classes' if len(figures.class_names) > _RANGES else ''}.",
        ),
        Chart(
            "Where they lie",
            heat_map((boxes[:, :2] + boxes[:, 2:] / 2) / frames),
            "A model learns where things usually are; objects that come in one place only are missed in others.",
        ),
    ]


def _ranges(figures: Survey, colors: Mapping[str, str]) -> list[Range]:
    return [
        Range(row.name, colors[row.name], row.smallest_px, row.median_px, row.largest_px)
        for row in figures.class_rows[:_RANGES]
        if row.smallest_px is not None and row.median_px is not None and row.largest_px is not None
    ]


def _photo_charts(figures: Survey) -> list[Chart]:
    sizes = figures.image_sizes_px
    different, counts = np.unique(sizes, axis=0, return_counts=True)
    width, height = different[counts.argmax()].astype(int).tolist()
    ratios = sizes[:, 0] / sizes[:, 1]
    lying, square = float(np.mean(ratios > 1)), float(np.mean(ratios == 1))
    return [
        Chart(
            "Sizes",
            size_scatter(sizes),
            f"{plural(len(different), 'size')}; the commonest is {width} x {height} px "
            f"({plural(int(counts.max()), 'photo')}).",
        ),
        Chart(
            "Aspect ratios",
            histogram(ratios, x_label="width / height", things="images", lines=(Line(1.0, "square"),)),
            f"{_percent(lying)} landscape, {_percent(square)} square, {_percent(1 - lying - square)} portrait.",
        ),
    ]


def _photo_words(figures: Survey) -> str:
    if not figures.photos:
        return ""
    low, high = figures.image_sizes_px.min(axis=0).astype(int), figures.image_sizes_px.max(axis=0).astype(int)
    if (low == high).all():
        return f"All have {low[0]} x {low[1]} px, as they are shown after EXIF orientation."
    return (
        f"From {low[0]} to {high[0]} px wide and from {low[1]} to {high[1]} px high, as they are shown after EXIF "
        "orientation."
    )


def _percent(share: float) -> str:
    return f"{100 * abs(share):.0f} %"


def _duplicate_words(groups: Sequence[DuplicateGroup], leaks: Sequence[DuplicateGroup], figures: Survey) -> str:
    apart = (
        f"The parts are {listed(figures.parts)}."
        if figures.parts
        else "No parts are known: name text lists with --splits, or check a project file."
    )
    if len(figures.photos) < 2:
        return "There are no two images to compare."
    if not groups:
        return f"No two images look alike. {apart}"
    held = sum(len(group.image_ids) for group in groups)
    across = f"{plural(len(leaks), 'group')} across parts, which make scores too good. " if leaks else ""
    return f"{plural(len(groups), 'group')} of images that look alike, {held:,} images in all. {across}{apart}"


def _twins(groups: Sequence[DuplicateGroup], leaks: Sequence[DuplicateGroup], figures: Survey) -> list[Twins]:
    album, shown = Album(_ROOM_BYTES["duplicates"]), []
    rest = [group for group in groups if group not in leaks]
    for group in [*leaks, *rest][:_GROUPS_SHOWN]:
        members = [figures.photos[number - 1] for number in group.image_ids]
        if group in leaks:
            members = _alternating(members)
        frames = []
        for member in members[:_TWINS_SHOWN]:
            frame = None
            if not album.is_full:
                try:
                    view, _ = view_of(member.image, None)
                    frame = album.frame(member.image, view, side_px=220)
                except PhotoError:
                    frame = None
            frames.append((frame, member.image.file_name, member.part))
        parts = sorted(_parts_of(group, figures), key=figures.parts.index)
        title = plural(len(members), "image") + (f" in {listed(parts)}" if parts else "")
        words = "alike to the last detail"
        if group.largest_distance:
            words = f"at most {group.largest_distance} of {HASH_BITS} bits of their hashes differ"
        shown.append(Twins(title, words, group in leaks, tuple(frames), len(members) - len(frames)))
    return shown


def _alternating(members: Sequence[Any]) -> list[Any]:
    """Images of different parts by turns, so that the first few show the leak."""
    by_part: dict[str, list[Any]] = {}
    for member in members:
        by_part.setdefault(member.part, []).append(member)
    longest = max(len(group) for group in by_part.values())
    return [group[turn] for turn in range(longest) for group in by_part.values() if turn < len(group)]


def _finding_words(figures: Survey) -> str:
    counts = [figures.level(level) for level in _LEVELS]
    if not sum(counts):
        return "Nothing to report: every shape is used as it was drawn."
    told = [plural(count, name) for count, name in zip(counts, ("error", "warning", "note"), strict=True) if count]
    stops = " Errors stop training; warnings say what was read differently from how it was drawn." if counts[0] else ""
    return f"{listed(told)}. Pink is the shape that is meant, dashed blue what lies around it.{stops}"


def _by_code(checked: Sequence[Checked]) -> dict[tuple[str, str], list[tuple[Checked, Finding]]]:
    """Findings by level and code, errors first, the commonest code first."""
    groups: dict[tuple[str, str], list[tuple[Checked, Finding]]] = {}
    for one in checked:
        for finding in one.findings:
            groups.setdefault((finding.level, finding.code), []).append((one, finding))
    return dict(sorted(groups.items(), key=lambda item: (_LEVELS.index(item[0][0]), -len(item[1]), item[0][1])))


def _finding_groups(
    checked: Sequence[Checked], by_code: Mapping[tuple[str, str], Sequence[tuple[Checked, Finding]]], bar: Any
) -> list[FindingGroup]:
    album = Album(_ROOM_BYTES["findings"])
    exhibits = {id(one): Exhibits(one, album) for one in checked}
    shown = []
    for (level, code), members in by_code.items():
        rows = []
        for one, finding in members[:EXHIBITS_PER_CODE]:
            exhibit = Exhibit(finding) if album.is_full else exhibits[id(one)].show(finding)
            rows.append(_shown(exhibit, one.part))
            bar.update()
        files = plural(len({(id(one), finding.file) for one, finding in members}), "file")
        words = f"{plural(len(members), 'time')} in {files}"
        meaning, remedy = WORDS.get(code, ("", ""))
        shown.append(FindingGroup(level, code, words, meaning, remedy, tuple(rows), len(members) - len(rows)))
    return shown


def _shown(exhibit: Exhibit, part: str) -> ShownExhibit:
    finding = exhibit.finding
    return ShownExhibit(
        part, finding.place(), finding.message, finding.hint, exhibit.note, exhibit.frame, exhibit.lines
    )


def _sheet_parts(figures: Survey, tiles: Sequence[SheetTile]) -> dict[str, Any]:
    seen = {label for photo in figures.photos for label in photo.labels}
    names = [row.name for row in figures.class_rows if row.name in seen]
    left_out = len(figures.photos) - len(tiles)
    words = f"All {plural(len(tiles), 'photo')}." if len(tiles) > 1 else "The one image."
    if left_out:
        words = f"{len(tiles)} images, chosen so that every class has its turn, and {left_out:,} more not shown."
    return {
        "sheet": tiles,
        "sheet_words": f"{words} Rest the pointer on an outline to see what it is.",
        "legend": names[:_LEGEND],
        "legend_left_out": max(0, len(names) - _LEGEND),
    }
