"""Judgments as a table and as Labelme files."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from d2tune.acceptance.image_list import ImageList
from d2tune.acceptance.judgments import Mark
from d2tune.acceptance.objects import ShownObject, to_dataset
from d2tune.acceptance.statistics import SignTest
from d2tune.acceptance.store import SavedPair, StoredImage
from d2tune.acceptance.summary import JudgedImage
from d2tune.annotations.formats import labelme
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.model.dataset import Image
from d2tune.text import printable_lines

COLUMNS = (
    *("image", "image_sha256", "model", "model_sha256", "row", "verdict", "object", "class", "score", "x_px", "y_px"),
    *("width_px", "height_px", "area_px2", "class_should_be", "comment", "min_score", "judged_by", "judged_at"),
)
"""The columns of the table; ``row`` is ``image``, ``object`` or ``missed``."""

PAIR_COLUMNS = ("image", "preferred", "shown_as_a", "comment", "judged_by", "judged_at")
FOLDER = "judged"
"""The folder of the Labelme files in their archive, to be unpacked in the folder of the images."""

_FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[ \t]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""Where a cell may begin for a spreadsheet, also for one that separates cells by semicolons."""


def to_csv(judged: Sequence[JudgedImage], *, model: str, model_sha256: str) -> str:
    """A table with a row for each judged image, each object shown on it, and each missed object."""
    rows = []
    for one in judged:
        head = [one.image.name, one.image.sha256, model, model_sha256]
        judgment = one.saved.judgment
        tail = [judgment.min_score, judgment.judged_by, one.saved.judged_at]
        rows.append([*head, "image", judgment.verdict, *[""] * 9, judgment.comment, *tail])
        for shown in one.shown:
            mark = judgment.mark_of(shown.number)
            own = [shown.number, shown.class_name, shown.score, *shown.box_xywh, shown.area_px2]
            stated = ["", ""] if mark is None else [mark.class_name, mark.comment]
            rows.append([*head, "object", _object_verdict(one, shown.number), *own, *stated, *tail])
        for mark in judgment.missed:
            place = [mark.x, mark.y, *[""] * 3]
            rows.append([*head, "missed", "missed", "", "", "", *place, mark.class_name, mark.comment, *tail])
    return _table(COLUMNS, rows)


def pairs_to_csv(
    images: Sequence[StoredImage], pairs: dict[int, SavedPair], *, names: tuple[str, str], result: SignTest
) -> str:
    """A table with a row for each compared image, and the result as its last line."""
    rows: list[list[Any]] = []
    for image in images:
        saved = pairs.get(image.id)
        if saved is None:
            continue
        first = saved.first_is_better
        preferred = "same" if first is None else names[0] if first else names[1]
        left = names[0] if saved.first_is_left else names[1]
        rows.append([image.name, preferred, left, saved.pair.comment, saved.pair.judged_by, saved.judged_at])
    counts = f"{names[0]} {result.first}, {names[1]} {result.second}, same {result.ties}"
    rows.append(["", counts, "", f"exact sign test: p = {result.p_value:.4g}", "", ""])
    return _table(PAIR_COLUMNS, rows)


def _object_verdict(one: JudgedImage, number: int) -> str:
    judgment = one.saved.judgment
    mark, is_right = judgment.mark_of(number), judgment.is_right(number)
    if mark is not None:
        return mark.kind
    return "" if is_right is None else "right"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """A value of a cell: an apostrophe before text that a spreadsheet would compute, escapes for control characters."""
    if value is None:
        return ""
    return _FORMULA.sub("'", printable_lines(value)) if isinstance(value, str) else value


def labelme_archive(judged: Sequence[JudgedImage], class_names: Sequence[str], images: ImageList) -> bytes:
    """A ZIP archive with a Labelme file for each judged image; added images are in it too.

    The shapes have what was judged of them as flags, and missed objects are points with the flag ``missed``.
    """
    stored = [Image(one.image.id, one.image.name, one.image.width_px, one.image.height_px) for one in judged]
    places = beside(stored, Path(FOLDER), ".json")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, image in zip(judged, stored, strict=True):
            place = PurePosixPath(places[image.id].as_posix())
            content = _labelme_content(one, image, class_names)
            content["imagePath"] = _image_path(one.image, place)
            archive.writestr(str(place), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            if one.image.is_added:
                archive.write(images.path(one.image), str(place.parent / PurePosixPath(one.image.name).name))
    return stream.getvalue()


def _image_path(image: StoredImage, place: PurePosixPath) -> str:
    """The image as seen from its Labelme file: beside it where it was added, else in the folder of images."""
    if image.is_added:
        return PurePosixPath(image.name).name
    return "../" * (len(place.parts) - 1) + image.name


def _labelme_content(one: JudgedImage, image: Image, class_names: Sequence[str]) -> dict[str, Any]:
    judgment = one.saved.judgment
    shapes = list(_shapes(one, image, class_names))
    flags = {"image_right": judgment.verdict == "right", "image_wrong": judgment.verdict == "wrong"}
    empty = labelme.file_content(to_dataset((), image, class_names), Path(image.file_name))
    about = {"comment": judgment.comment, "judged_by": judgment.judged_by, "judged_at": one.saved.judged_at}
    return empty | {"flags": flags, "shapes": shapes, "judgment": about}


def _shapes(one: JudgedImage, image: Image, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    judgment = one.saved.judgment
    for group, shown in enumerate(one.shown, start=1):
        mark = judgment.mark_of(shown.number)
        verdict = _object_verdict(one, shown.number)
        for shape in _shapes_of(shown, image, class_names):
            shape["group_id"] = None if shape["group_id"] is None else group
            if verdict:
                shape["flags"] = shape["flags"] | {verdict: True}
            stated = [] if mark is None else [mark.comment, f"should be {mark.class_name}" if mark.class_name else ""]
            shape["description"] = "; ".join(text for text in (shape.get("description") or "", *stated) if text)
            yield shape
    for mark in judgment.missed:
        yield _missed_shape(mark)


def _shapes_of(shown: ShownObject, image: Image, class_names: Sequence[str]) -> list[dict[str, Any]]:
    shapes: list[dict[str, Any]] = labelme.file_content(to_dataset([shown], image, class_names), Path(image.file_name))[
        "shapes"
    ]
    return shapes


def _missed_shape(mark: Mark) -> dict[str, Any]:
    return {
        "label": mark.class_name or "missed",
        "points": [[mark.x, mark.y]],
        "group_id": None,
        "description": mark.comment,
        "shape_type": "point",
        "flags": {"missed": True},
        "mask": None,
    }
