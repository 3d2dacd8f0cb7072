"""The acceptance report and the report of a blind comparison: one HTML file each, to be kept and printed."""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from d2tune.acceptance.image_list import ImageList
from d2tune.acceptance.judgments import KIND_WORDS, Kind
from d2tune.acceptance.objects import ShownObject
from d2tune.acceptance.session import Acceptance
from d2tune.acceptance.statistics import Share
from d2tune.acceptance.store import SavedPair, StoredImage
from d2tune.acceptance.summary import JudgedImage, Summary
from d2tune.errors import DataError
from d2tune.report.templates import filled, readable
from d2tune.text import counted, printable
from d2tune.versions import versions

WORST = 12
"""How many of the worst images are shown."""
COMMENTS = 200
"""How many comments are listed."""

_SHOWN_PX = 900
_TEXT_LENGTH = 2_000
_MARKED_KINDS: tuple[Kind, ...] = ("missed", "false_alarm", "wrong_class", "bad_outline")
_DECISIONS = {
    "accepted": "Accepted",
    "accepted_with_conditions": "Accepted with conditions",
    "refused": "Not accepted",
}


@dataclass(frozen=True, slots=True)
class WorstImage:
    """An image with what is wrong on it.

    Attributes:
        name: Its name.
        words: What is wrong, in numbers.
        drawing: The image with the marks over it; None where it cannot be decoded.
        notes: A line for each mark, with its number on the image.
        comment: The comment on the image.
        judged: By whom and when.
    """

    name: str
    words: str
    drawing: Markup | None
    notes: tuple[str, ...]
    comment: str
    judged: str


def judged_report(acceptance: Acceptance, index: int) -> tuple[str, str]:
    """The acceptance report of a model.

    Args:
        acceptance: The page's data.
        index: The model.

    Returns:
        The HTML file, and the hash of its style for a content security policy.
    """
    summary = acceptance.summary(index)
    signed = acceptance.saved_sign_off(index)
    sha256 = acceptance.judgments_sha256(index)
    judged = acceptance.judged_images(index)
    commented = [one for one in judged if one.saved.judgment.comment]
    context = {
        "summary": summary,
        "model": acceptance.model(index),
        "signed": signed,
        "decision": None if signed is None else _DECISIONS[signed.sign_off.decision],
        "is_current": signed is not None and signed.judgments_sha256 == sha256,
        "judgments_sha256": sha256,
        "images_sha256": _images_sha256([one.image for one in judged if one.saved.judgment.verdict]),
        "kinds": [(KIND_WORDS[kind], kind) for kind in _MARKED_KINDS],
        "tables": [("Class", "By class", summary.by_class), ("Size", "By size", summary.by_size)],
        "worst": [_worst(one, acceptance.images) for one in summary.worst[:WORST]],
        "worst_more": max(0, len(summary.worst) - WORST),
        "comments": commented[:COMMENTS],
        "comments_more": max(0, len(commented) - COMMENTS),
        "headline": _headline(summary),
        "lowest_scores": _lowest_scores(judged),
    }
    return _made("report.html", acceptance, context)


def comparison_report(acceptance: Acceptance) -> tuple[str, str]:
    """The report of a blind comparison.

    Args:
        acceptance: The page's data.

    Returns:
        The HTML file, and the hash of its style.

    Raises:
        StillBlindError: The result may not be shown yet.
    """
    result = acceptance.comparison()
    pairs = acceptance.pairs()
    rows = [(image, pairs[image.id]) for image in acceptance.images.all() if image.id in pairs]
    names = [model.name for model in acceptance.models]
    better = None if not result.is_real else names[0] if result.first > result.second else names[1]
    context = {
        "result": result,
        "models": acceptance.models,
        "better": better,
        "rows": [(image, saved, _preferred(saved, names)) for image, saved in rows],
        "images": len(acceptance.images),
        "images_sha256": _images_sha256([image for image, _ in rows]),
        "revealed_at": acceptance.revealed_at,
    }
    return _made("comparison.html", acceptance, context)


def _made(template: str, acceptance: Acceptance, context: dict[str, Any]) -> tuple[str, str]:
    now = datetime.datetime.now().astimezone()
    shared = {
        "title": acceptance.settings.title,
        "version": versions()["d2tune"],
        "made": now.strftime("%Y-%m-%d at %H:%M %Z"),
        "percent": percent,
        "interval": interval,
        "counted": counted,
        "date": _date,
    }
    text = filled("d2tune.acceptance", template, shared | context, finalize=readable(_TEXT_LENGTH))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    return text, f"sha256-{digest}"


def percent(value: float | None) -> str:
    """A share as whole percents, with a digit where it would be rounded to none or all; "none" where there is none."""
    if value is None:
        return "none"
    whole = f"{100 * value:.0f}"
    return f"{100 * value:.1f} %" if whole in ("0", "100") and value not in (0.0, 1.0) else f"{whole} %"


def interval(share: Share) -> str:
    """The interval of a share: ``71 to 92 %``."""
    if share.low is None or share.high is None:
        return "none"
    return f"{100 * share.low:.0f} to {100 * share.high:.0f} %"


def _date(text: str) -> str:
    return datetime.datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")


def _headline(summary: Summary) -> str:
    share = summary.right_images
    if not share.total:
        return "No image is judged yet."
    return (
        f"{share.count} of {counted(share.total, 'judged image')} "
        f"{'is' if share.count == 1 else 'are'} right: {percent(share.value)}"
    )


def _lowest_scores(judged: list[JudgedImage]) -> str:
    """The lowest score that an object needed to be shown, on most images first; empty where objects have no scores."""
    counts = Counter(
        f"{one.saved.judgment.min_score:.2f}"
        for one in judged
        if one.saved.judgment.verdict and any(item.score is not None for item in one.objects)
    )
    if len(counts) < 2:
        return "".join(counts)
    return ", ".join(f"{score} on {counted(count, 'image')}" for score, count in counts.most_common())


def _images_sha256(images: list[StoredImage]) -> str:
    """A hash over the names and the contents of images."""
    digest = hashlib.sha256()
    for image in sorted(images, key=lambda one: one.name):
        digest.update(f"{image.name}\0{image.sha256}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _preferred(saved: SavedPair, names: list[str]) -> str:
    if saved.first_is_better is None:
        return "no difference"
    return names[0] if saved.first_is_better else names[1]


def _worst(one: JudgedImage, images: ImageList) -> WorstImage:
    judgment = one.saved.judgment
    shown = {item.number: item for item in one.shown}
    notes, places = [], []
    for number, mark in enumerate((mark for mark in judgment.marks if mark.is_wrong), start=1):
        note = f"{number}: {KIND_WORDS[mark.kind]}"
        item = None if mark.object is None else shown.get(mark.object)
        if item is not None:
            note += f", {item.class_name}" + ("" if item.score is None else f" {item.score:.2f}")
        if mark.class_name:
            note += f", {'is' if mark.object else 'a'} {mark.class_name}"
        notes.append(f"{note}. {mark.comment}" if mark.comment else note)
        places.append((number, item, (mark.x or 0.0, mark.y or 0.0)))
    words = counted(one.wrong_marks, "mark") if one.wrong_marks else "the whole image"
    judged = f"{judgment.judged_by}, {_date(one.saved.judged_at)}"
    drawing = _drawing(one, places, images)
    return WorstImage(one.image.name, words, drawing, tuple(notes), judgment.comment, judged)


def _drawing(
    one: JudgedImage, places: list[tuple[int, ShownObject | None, tuple[float, float]]], images: ImageList
) -> Markup | None:
    """The image, the outlines of its objects and the numbers of its marks."""
    try:
        content = images.jpeg(one.image, longest_px=_SHOWN_PX)
    except DataError:
        return None
    width, height = one.image.width_px, one.image.height_px
    unit = max(width, height) / 100
    marked = {item.number for _, item, _ in places if item is not None}
    pieces = [_outline(item, "plain", unit) for item in one.shown if item.number not in marked]
    pieces += [_outline(item, "marked", unit) for _, item, _ in places if item is not None]
    for number, item, place in places:
        x, y = place if item is None else (item.box_xywh[0] + item.box_xywh[2] / 2, item.box_xywh[1])
        x, y = min(max(x, 2 * unit), width - 2 * unit), min(max(y, 2 * unit), height - 2 * unit)
        kind = "missed" if item is None else "badge"
        pieces.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{1.9 * unit:.1f}"/>')
        pieces.append(f'<text x="{x:.1f}" y="{y + 0.9 * unit:.1f}" font-size="{2.5 * unit:.1f}">{number}</text>')
    uri = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    label = escape(printable(f"{one.image.name} with {counted(len(places), 'mark')}"))
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f'<image width="{width}" height="{height}" href="{uri}"/>{"".join(pieces)}</svg>'
    )


def _outline(item: ShownObject, kind: str, unit: float) -> str:
    rings = []
    for ring in item.rings:
        points = zip(ring[::2], ring[1::2], strict=True)
        rings.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z")
    return f'<path class="{kind}" d="{"".join(rings)}" stroke-width="{0.3 * unit:.2f}"/>'
