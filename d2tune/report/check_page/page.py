"""The page of a check: one HTML file with the contents of a dataset and its problems.

Text from files is escaped, images are embedded, and the page loads nothing from elsewhere.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from d2tune.annotations.model.findings import Finding
from d2tune.annotations.splitting.duplicates import HASH_BITS, DuplicateGroup, duplicate_groups
from d2tune.files import write_text
from d2tune.report.axes import number
from d2tune.report.check_page.advice import advice, listed, short, verdict
from d2tune.report.check_page.charts import Line, Range, count_bars, heat_map, histogram, ranges, size_scatter
from d2tune.report.check_page.exhibits import Exhibit, Exhibits, view_of
from d2tune.report.check_page.finding_words import WORDS
from d2tune.report.check_page.survey import FEW_INSTANCES, MEDIUM_PX, SMALL_PX, Checked, Setting, Survey, survey
from d2tune.report.check_page.tiles import SheetTile, contact_tiles
from d2tune.report.sheets.drawing import instance_colors
from d2tune.report.templates import filled, readable, refuse_foreign_page, ticked
from d2tune.report.thumbnails import Album, Frame, ThumbnailError
from d2tune.text import counted

GENERATOR = "d2tune check"
"""The program that the page's first lines name, by which the page is recognized."""

EXHIBITS_PER_CODE = 12
"""How many places of one code are shown."""

_ROOM_BYTES = {"sheet": 3_000_000, "findings": 3_000_000, "duplicates": 1_000_000}
_CLASSES_SHOWN, _CLASSES_LISTED, _LEGEND, _RANGES = 30, 300, 40, 8
_GROUPS_SHOWN, _TWINS_SHOWN = 24, 6
_TEXT_LENGTH = 300
_LEVELS = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its heading and its summary."""

    title: str
    svg: Markup
    words: str


@dataclass(frozen=True, slots=True)
class SplitRow:
    """The counts of one split."""

    name: str
    images: int
    negatives: int
    instances: int
    mean: float


@dataclass(frozen=True, slots=True)
class Twins:
    """A group of near-duplicates, with a frame, a name and a split for each image that is shown."""

    title: str
    words: str
    is_leak: bool
    frames: tuple[tuple[Frame | None, str, str], ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class ShownExhibit:
    """A finding as the page shows it."""

    split: str
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
    """Stop where a page would overwrite a file that is not a check page; see `refuse_foreign_page`."""
    refuse_foreign_page(path, GENERATOR)


def write_check_page(
    path: str | Path,
    checked: Sequence[Checked],
    *,
    title: str,
    split_of: Mapping[str, str] | None = None,
    setting: Setting | None = None,
) -> None:
    """Write the page, atomically; an earlier page is replaced.

    The images must still be there: those that were restored from annotation files live only as long as
    `annotations.convert.checked`.

    Args:
        path: The HTML file.
        checked: What was read; each source once.
        title: Name of the whole, for the heading.
        split_of: Split by ``Image.file_name``; see `survey.survey`.
        setting: What a training does with the data; see `survey.survey`.

    Raises:
        DataError: The file exists and is not a check page.
        OSError: The file cannot be written.
    """
    path = Path(path)
    refuse_foreign(path)
    write_text(path, check_page(checked, title=title, split_of=split_of, setting=setting))


def check_page(
    checked: Sequence[Checked],
    *,
    title: str,
    split_of: Mapping[str, str] | None = None,
    setting: Setting | None = None,
) -> str:
    """The page as text; see `write_check_page`."""
    from tqdm import tqdm

    from d2tune.versions import versions

    data = survey(checked, split_of=split_of, setting=setting)
    groups = duplicate_groups([entry.image for entry in data.entries])
    leaks = [group for group in groups if len(_splits_of(group, data)) > 1]
    shades = instance_colors(len(data.class_names)).tolist()
    colors = {
        name: f"#{red:02x}{green:02x}{blue:02x}"
        for name, (red, green, blue) in zip(data.class_names, shades, strict=True)
    }
    by_code = _by_code(checked)
    total = sum(min(EXHIBITS_PER_CODE, len(members)) for members in by_code.values()) + 60
    with tqdm(total=total, desc="drawing", unit=" images", leave=False, delay=2, disable=None) as bar:
        finding_groups = _finding_groups(checked, by_code, bar)
        tiles = contact_tiles(data, colors, Album(_ROOM_BYTES["sheet"]), bar)
    twins = _twins(groups, leaks, data)
    context = {
        "generator": GENERATOR,
        "title": title,
        "origin": " + ".join(str(one.source) for one in checked),
        "version": versions()["d2tune"],
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d at %H:%M"),
        "verdict": verdict(data, leaks=len(leaks), groups=len(groups)),
        "advice": advice(data, leaks=len(leaks)),
        "noun": data.setting.noun,
        "thing": data.setting.thing,
        "shared": "instances" if data.setting.has_objects else "labeled pixels",
        "splits": data.splits,
        "split_rows": _split_rows(data),
        "colors": colors,
        "few": FEW_INSTANCES,
        "number": number,
        "short": short,
        "ticked": ticked,
        "twins": twins,
        "twins_left_out": len(groups) - len(twins),
        "duplicate_words": _duplicate_words(groups, leaks, data),
        "groups": finding_groups,
        "finding_words": _finding_words(data),
    }
    context |= _head(data, leaks) | _class_context(data) | _chart_context(data, colors) | _sheet_context(data, tiles)
    context["sections"] = _sections(context)
    return filled("d2tune.report.check_page", "check_page.html", context, finalize=readable(_TEXT_LENGTH))


def _splits_of(group: DuplicateGroup, data: Survey) -> set[str]:
    return {data.entries[number - 1].split for number in group.image_ids} - {""}


def _head(data: Survey, leaks: Sequence[DuplicateGroup]) -> dict[str, Any]:
    errors, warnings = data.level("error"), data.level("warning")
    status, words = "good", "Ready to train"
    if warnings or leaks or not data.labels:
        status, words = "warning", "Check before training" if data.labels else f"No {data.setting.noun}s to train on"
    if errors:
        status, words = "error", "Not ready to train"
    shapes = [row.fate for one in data.checked for row in one.dataset.ledger]
    tiles = [
        (len(data.entries), "images", ""),
        (int(np.count_nonzero(data.objects_per_image == 0)), f"images without {data.setting.thing}s", ""),
        (len(data.labels), f"{data.setting.noun}s", ""),
        *([(data.crowds, "crowds", "warning")] if data.crowds else []),
        (len(data.class_names), "classes", ""),
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
    """The name of a tile, in the singular where the count is 1."""
    first, _, rest = name.partition(" ")
    noun = counted(count, {"classes": "class"}.get(first, first.removesuffix("s"))).partition(" ")[2]
    return f"{noun} {rest}".strip()


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = [
        ("advice", "What to do", context["advice"]),
        ("classes", "Classes", True),
        ("objects", f"{context['thing'].capitalize()}s", context["object_charts"]),
        ("images", "Images", context["image_charts"]),
        ("duplicates", "Near-duplicates", True),
        ("findings", "Findings", True),
        ("sheet", "Contact sheet", context["sheet"]),
    ]
    return [(anchor, name) for anchor, name, is_there in names if is_there]


def _class_context(data: Survey) -> dict[str, Any]:
    rows = data.class_rows
    words = ""
    if len(rows) > 1 and data.labels:
        of = "all instances" if data.setting.has_objects else "all labeled pixels"
        words = f"{rows[0].name} has {100 * rows[0].share:.0f} % of {of}, the most of all classes."
    return {
        "class_rows": rows[:_CLASSES_SHOWN],
        "more_class_rows": rows[_CLASSES_SHOWN:_CLASSES_LISTED],
        "class_rows_left_out": max(0, len(rows) - _CLASSES_LISTED),
        "class_words": words,
    }


def _split_rows(data: Survey) -> list[SplitRow]:
    if not data.splits:
        return []
    rows = []
    for split in (*data.splits, ""):
        counts = [len(entry.instances) for entry in data.entries if entry.split == split]
        if counts or split:
            name = split or "in no split"
            rows.append(SplitRow(name, len(counts), counts.count(0), sum(counts), sum(counts) / max(1, len(counts))))
    return rows


def _chart_context(data: Survey, colors: Mapping[str, str]) -> dict[str, Any]:
    return {
        "object_charts": _object_charts(data, colors) if data.labels else [],
        "image_charts": _image_charts(data) if data.entries else [],
        "image_words": _image_words(data),
    }


def _object_charts(data: Survey, colors: Mapping[str, str]) -> list[Chart]:
    sizes, relative = data.sizes_px, 100 * data.relative_sizes
    small, large = float(np.mean(sizes < SMALL_PX)), float(np.mean(sizes >= MEDIUM_PX))
    boxes, frames = data.boxes_xywh, data.image_sizes_of_instances_px
    counts = data.objects_per_image
    ratios, things = data.aspect_ratios, f"{data.setting.thing}s"
    return [
        Chart(
            "Size in pixels",
            histogram(
                sizes,
                x_label="square root of the area (px)",
                things=things,
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
                things=things,
                unit=" %",
            ),
            f"The median is {number(float(np.median(relative)))} %.",
        ),
        Chart(
            f"{things.capitalize()} in an image",
            count_bars(counts, x_label=f"{things} in an image", things="images"),
            f"{number(float(counts.mean()))} on average, {int(counts.max()):,} at most; "
            f"{counted(int(np.count_nonzero(counts == 0)), 'image')} without any.",
        ),
        Chart(
            f"Shape of {things}",
            histogram(
                ratios, x_label="width / height of the box", things=things, lines=(Line(1.0, "as wide as high"),)
            ),
            f"{_percent(float(np.mean((ratios > 0.5) & (ratios < 2.0))))} are less than twice as long as wide.",
        ),
        Chart(
            "Size of each class",
            ranges(_ranges(data, colors), x_label="square root of the area (px)", unit=" px"),
            f"From the smallest to the largest, with a dot at the median"
            f"{f'; the {_RANGES} most frequent classes' if len(data.class_names) > _RANGES else ''}.",
        ),
        Chart(
            "Positions",
            heat_map((boxes[:, :2] + boxes[:, 2:] / 2) / frames, things=things),
            f"A model learns the usual positions of {things}, and misses {things} at other positions.",
        ),
    ]


def _ranges(data: Survey, colors: Mapping[str, str]) -> list[Range]:
    return [
        Range(row.name, colors[row.name], row.smallest_px, row.median_px, row.largest_px)
        for row in data.class_rows[:_RANGES]
        if row.smallest_px is not None and row.median_px is not None and row.largest_px is not None
    ]


def _image_charts(data: Survey) -> list[Chart]:
    sizes = data.image_sizes_px
    different, counts = np.unique(sizes, axis=0, return_counts=True)
    width, height = different[counts.argmax()].astype(int).tolist()
    ratios = sizes[:, 0] / sizes[:, 1]
    lying, square = float(np.mean(ratios > 1)), float(np.mean(ratios == 1))
    return [
        Chart(
            "Sizes",
            size_scatter(sizes),
            f"{counted(len(different), 'size')}; the most common is {width} x {height} px "
            f"({counted(int(counts.max()), 'image')}).",
        ),
        Chart(
            "Aspect ratios",
            histogram(ratios, x_label="width / height", things="images", lines=(Line(1.0, "square"),)),
            f"{_percent(lying)} landscape, {_percent(square)} square, {_percent(1 - lying - square)} portrait.",
        ),
    ]


def _image_words(data: Survey) -> str:
    if not data.entries:
        return ""
    low, high = data.image_sizes_px.min(axis=0).astype(int), data.image_sizes_px.max(axis=0).astype(int)
    if (low == high).all():
        return f"All have {low[0]} x {low[1]} px, after EXIF orientation."
    return f"From {low[0]} to {high[0]} px wide and from {low[1]} to {high[1]} px high, after EXIF orientation."


def _percent(share: float) -> str:
    return f"{100 * abs(share):.0f} %"


def _duplicate_words(groups: Sequence[DuplicateGroup], leaks: Sequence[DuplicateGroup], data: Survey) -> str:
    apart = (
        f"The splits are {listed(data.splits)}."
        if data.splits
        else "The splits are not known: pass a folder of lists with --splits, or check a project file."
    )
    if len(data.entries) < 2:
        return "Fewer than two images: there is nothing to compare."
    if not groups:
        return f"No near-duplicates. {apart}"
    held = sum(len(group.image_ids) for group in groups)
    across = f"{counted(len(leaks), 'group')} across splits, which make scores too high. " if leaks else ""
    return f"{counted(len(groups), 'group')} of near-duplicates, {held:,} images in all. {across}{apart}"


def _twins(groups: Sequence[DuplicateGroup], leaks: Sequence[DuplicateGroup], data: Survey) -> list[Twins]:
    album, shown = Album(_ROOM_BYTES["duplicates"]), []
    rest = [group for group in groups if group not in leaks]
    for group in [*leaks, *rest][:_GROUPS_SHOWN]:
        members = [data.entries[number - 1] for number in group.image_ids]
        if group in leaks:
            members = _alternating(members)
        frames = []
        for member in members[:_TWINS_SHOWN]:
            frame = None
            if not album.is_full:
                try:
                    view, _ = view_of(member.image, None)
                    frame = album.frame(member.image, view, side_px=220)
                except ThumbnailError:
                    frame = None
            frames.append((frame, member.image.file_name, member.split))
        splits = sorted(_splits_of(group, data), key=data.splits.index)
        title = counted(len(members), "image") + (f" in {listed(splits)}" if splits else "")
        words = "their hashes are equal"
        if group.largest_distance:
            words = f"at most {group.largest_distance} of {HASH_BITS} bits of their hashes differ"
        shown.append(Twins(title, words, group in leaks, tuple(frames), len(members) - len(frames)))
    return shown


def _alternating(members: Sequence[Any]) -> list[Any]:
    """Images of different splits in turn, so that the first few show the leak."""
    by_split: dict[str, list[Any]] = {}
    for member in members:
        by_split.setdefault(member.split, []).append(member)
    longest = max(len(group) for group in by_split.values())
    return [group[turn] for turn in range(longest) for group in by_split.values() if turn < len(group)]


def _finding_words(data: Survey) -> str:
    counts = [data.level(level) for level in _LEVELS]
    if not sum(counts):
        return "No findings: every shape is used as it was drawn."
    levels = [counted(count, name) for count, name in zip(counts, ("error", "warning", "note"), strict=True) if count]
    stops = " Errors stop training; warnings are shapes that were changed or dropped." if counts[0] else ""
    return f"{listed(levels)}. The shape of a finding is pink, other shapes are dashed blue.{stops}"


def _by_code(checked: Sequence[Checked]) -> dict[tuple[str, str], list[tuple[Checked, Finding]]]:
    """Findings by level and code, errors first, the most frequent code first."""
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
            rows.append(_shown(exhibit, one.split))
            bar.update()
        files = counted(len({(id(one), finding.file) for one, finding in members}), "file")
        words = f"{counted(len(members), 'time')} in {files}"
        meaning, remedy = WORDS.get(code, ("", ""))
        shown.append(FindingGroup(level, code, words, meaning, remedy, tuple(rows), len(members) - len(rows)))
    return shown


def _shown(exhibit: Exhibit, split: str) -> ShownExhibit:
    finding = exhibit.finding
    return ShownExhibit(
        split, finding.place(), finding.message, finding.hint, exhibit.note, exhibit.frame, exhibit.lines
    )


def _sheet_context(data: Survey, tiles: Sequence[SheetTile]) -> dict[str, Any]:
    seen = {label for entry in data.entries for label in entry.labels}
    names = [row.name for row in data.class_rows if row.name in seen]
    left_out = len(data.entries) - len(tiles)
    words = f"All {counted(len(tiles), 'image')}." if len(tiles) > 1 else "The one image."
    if left_out:
        words = f"{len(tiles)} images, chosen to show every class; {left_out:,} are not shown."
    return {
        "sheet": tiles,
        "sheet_words": f"{words} Point at an outline to see its class.",
        "legend": names[:_LEGEND],
        "legend_left_out": max(0, len(names) - _LEGEND),
    }
