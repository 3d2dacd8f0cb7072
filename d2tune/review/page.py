"""The page of a report: one HTML file that loads nothing from elsewhere; text from files is escaped."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from markupsafe import Markup

from d2tune.evaluation.images.base import MISTAKE_KINDS
from d2tune.metrics.coco.summary import SHOWN_SCORE
from d2tune.report.axes import number
from d2tune.report.check_page.advice import short
from d2tune.report.templates import filled, readable, ticked
from d2tune.report.thumbnails import Album
from d2tune.review import plots, tables
from d2tune.review.advice import advice
from d2tune.review.charts import IntervalRow, interval_chart, words
from d2tune.review.classical import classical_rows
from d2tune.review.data_summary import DataSummary, summarize_data
from d2tune.review.gallery import FALSE, MISSED, RIGHT, Gallery, Group, SliderImage, Thumbnail
from d2tune.review.sources import Side, section
from d2tune.review.standing import Standing
from d2tune.text import counted, reason_of
from d2tune.versions import versions

GENERATOR = "d2tune report"
"""The program that the page's first lines name, by which the page is recognized."""

LIMIT_BYTES = 10_000_000
"""Most bytes of a page."""

_ROOM_BYTES = {"images": 6_000_000, "mistakes": 2_000_000, "pairs": 900_000, "twins": 300_000}
"""Bytes of images and outlines in each section; together with all text they stay below the limit."""

_COUNTED_FROM = f"Counted from score {SHOWN_SCORE:g} on, at IoU 0.5: the numbers differ from those of the table."

MOST_THUMBNAILS = 400
_PAIRS = 6
_TEXT_LENGTH = 600

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShownImages:
    """All images of a page."""

    groups: tuple[Group, ...]
    thumbnails: tuple[Thumbnail, ...]
    without_thumbnail: int
    pairs: tuple[SliderImage, ...]
    pair_names: tuple[str, str]


class Problems:
    """Collects a line about each thing that the page cannot show."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def optional(self, what: str, make: Callable[[], T]) -> T | None:
        """What ``make`` gives; None, and a line, where the values of the files do not allow it.

        Args:
            what: What is missing then.
            make: Makes it.
        """
        try:
            return make()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = reason_of(error)
            self.lines.append(f"{what} cannot be shown: a value in the files of the run is invalid ({reason})")
            return None

    def rows(self, what: str, make: Callable[[], Sequence[T]]) -> Sequence[T]:
        """The rows that ``make`` gives; none, and a line, where the values of the files do not allow it."""
        return self.optional(what, make) or ()


def report_page(sides: Sequence[Side], standing: Standing, *, title: str, images: int) -> tuple[str, list[str]]:
    """The page.

    Args:
        sides: The models, at least one; the first one is what the others are compared with.
        standing: Which of them is best.
        title: The heading.
        images: How many images are shown under a slider at most.

    Returns:
        The HTML, and a line about each thing that it cannot show.
    """
    problems = Problems()
    focus = standing.best or sides[0]
    colors = [plots.COLORS[number % len(plots.COLORS)] for number in range(len(sides))]
    nothing = DataSummary((), None, None, "", (), 0)
    data = problems.optional("the data", lambda: summarize_data(focus, Album(_ROOM_BYTES["twins"]))) or nothing
    chosen = _chosen(focus, standing, images)
    ordered = [focus, *(side for side in sides if side is not focus and side.metrics is not None)]
    own = [colors[list(map(id, sides)).index(id(side))] for side in ordered]
    same = _on_same_images(focus, sides)
    error_rows = problems.rows("the types of error", lambda: tables.error_rows(ordered))
    without_network, lines = classical_rows(sides)
    problems.lines += lines
    context = {
        "generator": GENERATOR,
        "title": title,
        "version": versions()["d2tune"],
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d at %H:%M"),
        "sides": sides,
        "focus": focus,
        "several": len(sides) > 1,
        "standing": standing,
        "sentence": standing.sentence or focus.sentence,
        "main": focus.main,
        "main_name": focus.main_place.title if focus.main_place else "",
        "tiles": problems.rows("the numbers at the top", lambda: _tiles(focus, data)),
        "advice": problems.rows("what to do next", lambda: advice(focus, leaks=data.leaks)),
        "run_rows": problems.rows("the table of runs", lambda: tables.run_rows(sides, colors, standing.to_first)),
        "run_chart": problems.optional("the chart of runs", lambda: _run_chart(sides, colors)),
        "course": problems.rows("the curves", lambda: plots.course_plots(sides, colors)),
        "class_header": problems.rows("the classes", lambda: tables.class_header(ordered)),
        "class_rows": problems.rows("the classes", lambda: tables.class_rows(ordered)),
        "class_plots": problems.rows("the charts of classes", lambda: _class_plots(ordered, own)),
        "confusion": problems.optional("the confusion of classes", lambda: tables.confusion(focus)),
        "error_rows": error_rows,
        "error_sides": ordered,
        "most_cost": max((cost or 0.0 for row in error_rows for cost in row.costs), default=0.0) or 1.0,
        "classical_rows": without_network,
        "metrics": problems.rows("the metrics", lambda: tables.all_metrics(focus)),
        "shown": chosen,
        "quality": None if focus.images is None else (focus.images.quality_name, focus.images.quality_words),
        "image_rows": _image_rows(focus, same),
        "image_sides": same,
        "layers": ("annotated", "predicted"),
        "legend": _shape_legend(focus),
        "kinds": _kinds(chosen.thumbnails),
        "kind_words": MISTAKE_KINDS,
        "mistake_words": _COUNTED_FROM if error_rows else "",
        "data": data,
        "timings": problems.rows("the timings", lambda: tables.timing_rows(focus)),
        "machine": problems.rows("the machine", lambda: tables.machine_rows(focus)),
        "repeat": problems.rows("the hashes", lambda: tables.repeat_rows(focus)),
        "commands": [(side.name, tables.command_of(side)) for side in sides if tables.command_of(side)],
        "script": _script(),
        "script_hash": _hash(_script()),
        "counted": counted,
        "number": number,
        "short": short,
        "ticked": ticked,
        "words": words,
    }
    lines = _all_problems(sides, standing, problems.lines)
    context["problems"] = lines
    context["sections"] = _sections(context)
    return filled("d2tune.review", "report.html", context, finalize=readable(_TEXT_LENGTH)), lines


def _all_problems(sides: Sequence[Side], standing: Standing, others: Sequence[str]) -> list[str]:
    """All lines, each once; those of several models begin with the name of the model."""
    of_sides = [f"{side.name}: {line}" if len(sides) > 1 else line for side in sides for line in side.problems]
    return list(dict.fromkeys([*of_sides, *standing.problems, *others]))


def _script() -> Markup:
    text = resources.files("d2tune.review").joinpath("templates", "report.js").read_text(encoding="utf-8")
    return Markup(text)


def _hash(text: str) -> str:
    """The hash of a script for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _tiles(side: Side, data: DataSummary) -> list[tuple[str, str, str]]:
    """Value, name and kind of each tile."""
    tiles: list[tuple[str, str, str]] = []
    rows = side.evaluation.get("classes", ())
    if rows and "found" in rows[0]:
        instances, detected, false = (sum(row[key] for row in rows) for key in ("instances", "found", "false"))
        tiles += [
            (f"{detected:,} of {instances:,}", "objects detected", ""),
            (f"{false:,}", "false alarms", "warning" if false else ""),
        ]
    elif rows and "tp" in rows[0]:
        right, false, missed = (sum(row[key] for row in rows) for key in ("tp", "fp", "fn"))
        tiles += [
            (f"{right:,} of {right + missed:,}", "segments matched", ""),
            (f"{false:,}", "false segments", "warning" if false else ""),
        ]
    for name, metric in tables.all_metrics(side):
        if (
            name in ("AP50", "mask AP50", "box AP", "boundary AP", "pACC", "mDice", "SQ", "RQ")
            and metric.value is not None
        ):
            tiles.append((str(metric), {"pACC": "pixel accuracy", "mDice": "mean Dice"}.get(name, name), ""))
    if isinstance(data.train_images, int) and isinstance(data.val_images, int):
        tiles.append((f"{data.train_images:,} + {data.val_images:,}", "images to train and validate on", ""))
    best = section(side.record, "best").get("iteration")
    if best is not None and side.is_by_training:
        tiles.append((f"{best:,}", "best iteration", ""))
    seconds = section(side.record, "durations").get("training_s")
    if isinstance(seconds, (int, float)):
        tiles.append((tables.duration(float(seconds)), "of training", ""))
    return tiles[:8]


def _run_chart(sides: Sequence[Side], colors: Sequence[str]) -> Markup | None:
    rows = [
        IntervalRow(side.name, color, side.main)
        for side, color in zip(sides, colors, strict=True)
        if side.main is not None
    ]
    name = next((side.main_place.title for side in sides if side.main_place is not None), "")
    return interval_chart(rows, x_label=f"{name} with its 95 % interval", name=f"{name} of each run") if rows else None


def _class_plots(ordered: Sequence[Side], colors: Sequence[str]) -> list[plots.Plot]:
    made = [
        plots.precision_plot(ordered, colors),
        plots.size_plot(ordered, colors),
        plots.class_plot(ordered[0]) if len(ordered) == 1 else None,
        plots.reliability_plot(ordered[0]),
    ]
    return [plot for plot in made if plot is not None]


def _chosen(focus: Side, standing: Standing, images: int) -> ShownImages:
    """The images of a model, and those where it differs from the next one."""
    dataset, review = focus.dataset, focus.images
    if dataset is None or review is None:
        return ShownImages((), (), 0, (), ("", ""))
    gallery = Gallery(dataset.images, dataset.class_names, review, focus.results)
    groups = gallery.groups(Album(_ROOM_BYTES["images"]), limit=images)
    shown = frozenset(
        int(one.anchor.rsplit("-", 1)[1]) - 1 for group in groups for one in group.images if one.frame is not None
    )
    thumbnails, without = gallery.thumbnails(Album(_ROOM_BYTES["mistakes"]), limit=MOST_THUMBNAILS, shown=shown)
    second = standing.second
    pairs: list[SliderImage] = []
    if second is not None and second.images is not None and len(second.results) == len(focus.results):
        album = Album(_ROOM_BYTES["pairs"])
        qualities = ([one.quality for one in side.results] for side in (focus, second))
        for index in most_different(*qualities)[:_PAIRS]:
            if album.is_full:
                break
            a, b = second.results[index], focus.results[index]
            text = f"{review.quality_name} {a.quality:.0f} against {b.quality:.0f}"
            shapes = second.images.shapes(index)[1], review.shapes(index)[1]
            pairs.append(gallery.pair(index, album, shapes, words=text))
    names = ("" if second is None else second.name, focus.name)
    return ShownImages(tuple(groups), tuple(thumbnails), without, tuple(pairs), names)


def most_different(a: Sequence[float], b: Sequence[float]) -> list[int]:
    """The images whose quality differs by a point or more, those with the largest difference first.

    >>> most_different([50, 80, 20], [50.5, 60, 90])
    [2, 1]
    """
    differences = [abs(one - other) for one, other in zip(a, b, strict=True)]
    return sorted((at for at, value in enumerate(differences) if value >= 1), key=lambda at: -differences[at])


def _on_same_images(side: Side, others: Sequence[Side]) -> list[Side]:
    """The other models whose predictions are of the same data."""
    if side.compared is None:
        return []
    digest, number = side.compared.truth_sha256, len(side.results)
    read = [other for other in others if other is not side and other.compared is not None]
    return [one for one in read if one.compared and one.compared.truth_sha256 == digest and len(one.results) == number]


def _image_rows(side: Side, others: Sequence[Side]) -> list[tuple[str, Any, list[float]]]:
    """File name and result of each image, with the quality of the other models, the worst first."""
    if side.dataset is None or not side.results:
        return []
    rows = [
        (image.file_name, side.results[at], [other.results[at].quality for other in others])
        for at, image in enumerate(side.dataset.images)
    ]
    return sorted(rows, key=lambda row: row[1].quality)[:500]


def _shape_legend(side: Side) -> list[tuple[str, str, str]]:
    """Name, color and style of what is drawn on images."""
    if side.images is None or side.dataset is None:
        return []
    if side.images.classes_in_color:
        names, colors = side.dataset.class_names, Gallery((), side.dataset.class_names, side.images, ()).colors
        return [(names[at], colors[at], "") for at in side.images.classes_in_color][:40]
    return [("right", RIGHT, ""), ("missed", MISSED, "dashed"), ("false", FALSE, "dotted")]


def _kinds(thumbnails: Sequence[Thumbnail]) -> list[tuple[str, int]]:
    """The kinds of mistakes that occur, with their numbers."""
    counts = {kind: sum(one.kind == kind for one in thumbnails) for kind in MISTAKE_KINDS}
    return [(kind, count) for kind, count in counts.items() if count]


def _sections(context: dict[str, Any]) -> list[tuple[str, str]]:
    names = [
        ("next", "What to do next", context["advice"]),
        ("runs", "Side by side", context["several"]),
        ("curves", "Curves", context["course"]),
        ("classes", "Classes", context["class_rows"] or context["class_plots"]),
        ("classical", "Without a network", context["classical_rows"]),
        ("errors", "Errors", context["error_rows"] or context["shown"].thumbnails),
        ("images", "Images", context["shown"].groups),
        ("differences", "Differences", context["shown"].pairs),
        ("data", "Data", True),
        ("timings", "Timings", context["timings"] or context["machine"]),
        ("repeat", "Repeat it", True),
    ]
    return [(anchor, name) for anchor, name, is_shown in names if is_shown]
