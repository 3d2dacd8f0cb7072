"""Images and classes of predictions and those of the ground truth: the same by their names, or by their ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from d2tune.annotations.formats.coco.loose import is_other_type, matching_id, plain_id, read_id
from d2tune.errors import DataError
from d2tune.evaluation.from_files.loose import Notes
from d2tune.text import counted, describe, nearest_hint

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is matched.

    Attributes:
        word: In messages: ``image``.
        key: The key of its id in a row of detections.
        name_key: The key of its name in its own row.
        row_name_key: The key of its name in a row of detections.
        are_paths: Whether names are paths, of which one may begin in a folder further down.
    """

    word: str
    key: str
    name_key: str
    row_name_key: str
    are_paths: bool = False


IMAGES = Kind("image", "image_id", "file_name", "file_name", are_paths=True)
CLASSES = Kind("class", "category_id", "name", "category_name")


class Names:
    """Rows by their names.

    Args:
        names: The name of each row by its number, as far as it has one.
        are_paths: See `Kind`.
    """

    def __init__(self, names: Mapping[int, str], *, are_paths: bool) -> None:
        self._are_paths = are_paths
        self._steps = {number: self._split(name) for number, name in names.items()}
        self._by_last: dict[str, list[int]] = {}
        for number, steps in self._steps.items():
            self._by_last.setdefault(steps[-1], []).append(number)

    def find(self, name: str) -> list[int]:
        """The rows of this name; of paths, those that end as it does where none is equal."""
        steps = self._split(name)
        similar = self._by_last.get(steps[-1], [])
        exact = [number for number in similar if self._steps[number] == steps]
        return exact or [number for number in similar if _is_end_of(self._steps[number], steps)]

    def _split(self, name: str) -> tuple[str, ...]:
        plain = unicodedata.normalize("NFC", name)
        if not self._are_paths:
            return (plain.strip(),)
        return PurePosixPath(plain.replace("\\", "/")).parts or ("",)


def _is_end_of(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    shared = min(len(a), len(b))
    return a[-shared:] == b[-shared:]


class Ids:
    """Numbers by ids, so that 1, "1" and 1.0 are one id where only one of them occurs.

    Args:
        number_of: The number of each id.
        notes: Takes down ids that were of another type.
        what: What has them, for the notes: ``the image_id of detections``.
    """

    def __init__(self, number_of: Mapping[int | str, int], notes: Notes, what: str) -> None:
        self._exact = number_of
        self._plain: dict[int | str, list[int | str]] = {}
        for row_id in number_of:
            self._plain.setdefault(plain_id(row_id), []).append(row_id)
        self._notes = notes
        self._what = what

    def get(self, raw: object, index: int) -> int | None:
        """The number of an id as a row has it; None where there is none, or several."""
        row_id = matching_id(raw, self._exact, self._plain)
        if row_id is None:
            return None
        if is_other_type(raw, row_id):
            self._notes.add(self._what, raw, read_as=f"the id {describe(row_id)}", row=index)
        return self._exact[row_id]


class Truth:
    """The images or the classes of the ground truth, with whole numbers as ids.

    Args:
        rows: Its ``images`` or ``categories``.
        kind: Which of them.
        path: The file.
        notes: Takes down ids of other types.

    Attributes:
        rows: The rows with their numbers as ids; as they are where an id is missing or not unique.
        number_of: The number of each id.
        names: The name by number.
        ids: The numbers by the ids in annotations.
    """

    def __init__(self, rows: Sequence[Any], kind: Kind, path: Path, notes: Notes) -> None:
        self.kind = kind
        self.path = path
        self.rows = list(rows)
        self.number_of: dict[int | str, int] = {}
        self.names: dict[int, str] = {}
        self.ids = Ids(self.number_of, notes, f"the {kind.key} of annotations")
        ids = [read_id(row.get("id")) if isinstance(row, dict) else None for row in rows]
        known = [row_id for row_id in ids if row_id is not None]
        if len(known) < len(ids) or len(set(known)) < len(ids):
            return  # the error names the row, see `rows.read_coco`
        order = sorted(known, key=lambda row_id: (isinstance(row_id, str), row_id))
        has_text = any(isinstance(row_id, str) for row_id in known)
        self.number_of = {row_id: at + 1 if has_text else int(row_id) for at, row_id in enumerate(order)}
        for index, (row, row_id) in enumerate(zip(rows, known, strict=True)):
            number = self.number_of[row_id]
            if isinstance(row.get(kind.name_key), str) and row[kind.name_key].strip():
                self.names[number] = row[kind.name_key]
            if type(row["id"]) is not int or number != row["id"]:
                self.rows[index] = row | {"id": number}
        self.ids = Ids(self.number_of, notes, f"the {kind.key} of annotations")
        self._index = Names(self.names, are_paths=kind.are_paths)

    def by_name(self, name: str) -> list[int]:
        """The numbers of all rows of this name."""
        return self._index.find(name) if self.names else []

    def shown(self, number: int) -> str:
        """A row in a message."""
        return repr(self.names[number]) if number in self.names else f"id {number}"


@dataclass(slots=True)
class Matched:
    """The images or classes of a file of predictions.

    Attributes:
        numbers: The number in the ground truth by the id in the file; None where the ground truth has none.
        names: The name by the id in the file.
    """

    numbers: dict[int | str, int | None] = field(default_factory=dict)
    names: dict[int | str, str] = field(default_factory=dict)


def match_table(table: Sequence[Row], truth: Truth, path: Path) -> Matched:
    """Match the ``images`` or ``categories`` of a file of predictions, by their names where both files have names.

    Raises:
        DataError: Several have the same id or name, or none of the names is in the ground truth.
    """
    matched, kind = Matched(), truth.kind
    for index, row in enumerate(table):
        row_id, name = read_id(row.get("id")), row.get(kind.name_key)
        place = f"{kind.word} {index + 1} of {len(table)}"
        if row_id is None or row_id in matched.numbers:
            what = f"the {kind.word} has no id" if row_id is None else f"another {kind.word} has the same id"
            raise DataError(what, file=path, place=place, found=f"id {describe(row.get('id'))}")
        if isinstance(name, str) and name.strip() and truth.names:
            matched.names[row_id] = name
            matched.numbers[row_id] = _only(truth, name, row_id, path, place)
        else:
            matched.numbers[row_id] = truth.ids.get(row["id"], index)
    _refuse_doubles(matched, truth, path)
    if matched.names and not any(number is not None for number in matched.numbers.values()):
        name = next(iter(matched.names.values()))
        some = ", ".join(repr(other) for other in list(truth.names.values())[:3])
        plural = "classes" if kind is CLASSES else "images"
        raise DataError(
            f"none of the {plural} is in the ground truth by its name",
            file=path,
            found=repr(name),
            expected=f"names of {truth.path}, such as {some}",
            hint=nearest_hint(name, truth.names.values()),
        )
    return matched


def _only(truth: Truth, name: str, row_id: int | str, path: Path, place: str) -> int | None:
    """The number of a name, of several that of the same id; None where there is none."""
    hits = truth.by_name(name)
    same_id = truth.number_of.get(row_id)
    if same_id in hits:
        return same_id
    if len(hits) > 1:
        shown = f"{truth.shown(hits[0])} and {truth.shown(hits[1])}"
        raise DataError(
            f"the name of the {truth.kind.word} is that of several in the ground truth",
            file=path,
            place=place,
            found=repr(name),
            hint=f"The ground truth has {shown}; give them different names.",
        )
    return hits[0] if hits else None


def _refuse_doubles(matched: Matched, truth: Truth, path: Path) -> None:
    owners: dict[int, int | str] = {}
    for row_id, number in matched.numbers.items():
        if number is not None and owners.setdefault(number, row_id) != row_id and truth.kind is IMAGES:
            raise DataError(
                "two images of the predictions are the same image of the ground truth",
                file=path,
                found=f"{matched.names.get(owners[number], owners[number])!r} and "
                f"{matched.names.get(row_id, row_id)!r}",
                expected=f"one for {truth.shown(number)}",
            )


class RowMatcher:
    """Finds the image or the class of each detection.

    Args:
        truth: The images or classes of the ground truth.
        matched: Those of the file of predictions; None where it is a list of detections.
        path: The file of predictions.
        rows: Number of its detections.
        notes: Takes down ids of other types.
    """

    def __init__(self, truth: Truth, matched: Matched | None, path: Path, rows: int, notes: Notes) -> None:
        self._truth = truth
        self._ids = Ids(truth.number_of, notes, f"the {truth.kind.key} of detections")
        self._matched = matched
        self._path = path
        self._rows = rows
        self._agreeing: dict[tuple[Any, str], int] = {}

    def number(self, row: Row, index: int) -> Any:
        """The number in the ground truth; None for an image that only the predictions have.

        Where ids of the ground truth are missing or not unique, the id is returned as it is, for the error of
        `rows.read_coco`.

        Raises:
            DataError: The id and the name of the row do not belong together, or neither is in the ground truth.
        """
        kind, raw = self._truth.kind, row.get(self._truth.kind.key)
        if not self._truth.number_of and self._truth.rows:
            return raw
        if self._matched is not None:
            return self._of_table(raw, index)
        name = row.get(kind.row_name_key)
        if isinstance(name, str) and self._truth.names:
            return self._of_name(raw, name, index)
        number = self._ids.get(raw, index)
        hits = self._truth.by_name(raw) if number is None and isinstance(raw, str) else []
        if number is None and len(hits) != 1:
            raise self._unknown(f"{kind.key} {describe(raw)}", index)
        return hits[0] if number is None else number

    def _of_table(self, raw: Any, index: int) -> int | None:
        assert self._matched is not None
        row_id = read_id(raw)
        if row_id is None or row_id not in self._matched.numbers:
            raise DataError(
                f"the {self._truth.kind.word} is not in the file",
                file=self._path,
                place=self._place(index),
                found=f"{self._truth.kind.key} {describe(raw)}",
                expected=f"one of the {'images' if self._truth.kind is IMAGES else 'categories'} of the file",
            )
        number = self._matched.numbers[row_id]
        if number is None and self._truth.kind is CLASSES:
            raise self._unknown(repr(self._matched.names.get(row_id, row_id)), index)
        return number

    def _of_name(self, raw: Any, name: str, index: int) -> int:
        key = raw if isinstance(raw, (int, str)) else None, name
        if key not in self._agreeing:
            self._agreeing[key] = self._checked(raw, name, index)
        return self._agreeing[key]

    def _checked(self, raw: Any, name: str, index: int) -> int:
        kind, hits = self._truth.kind, self._truth.by_name(name)
        number = None if raw is None else self._ids.get(raw, index)
        if raw is None and len(hits) == 1:
            return hits[0]
        if number is not None and number in hits:
            return number
        if number is None and not hits:
            raise self._unknown(f"{kind.row_name_key} {name!r}", index)
        if raw is None:
            raise DataError(
                f"the {kind.row_name_key} is that of several in the ground truth",
                file=self._path,
                place=self._place(index),
                found=repr(name),
                hint=f"Add the {kind.key}.",
            )
        stands_for = "nothing" if number is None else self._truth.shown(number)
        raise DataError(
            f"{kind.key} and {kind.row_name_key} disagree",
            file=self._path,
            place=self._place(index),
            found=f"{kind.key} {describe(raw)}, which is {stands_for} in the ground truth, and {name!r}",
            hint=f"Take the ground truth of these predictions, or remove {kind.key} to match by name alone.",
        )

    def _unknown(self, value: str, index: int) -> DataError:
        known = list(self._truth.number_of)
        names = (self._truth.names.get(self._truth.number_of[row_id]) for row_id in known[:3])
        some = [
            f"{describe(row_id)} ({name})" if name else describe(row_id)
            for row_id, name in zip(known, names, strict=False)
        ]
        return DataError(
            f"the {self._truth.kind.word} is not in the ground truth",
            file=self._path,
            place=self._place(index),
            found=value,
            expected=f"one of {', '.join(some)}{', ...' if len(known) > 3 else ''}" if some else None,
        )

    def _place(self, index: int) -> str:
        return f"result {index + 1} of {self._rows}"


def image_warnings(matched: Matched, truth: Truth, path: Path, objects: Mapping[int, int]) -> list[str]:
    """A line about images that only the ground truth has, and one about images that only the predictions have.

    Args:
        matched: The images of the file of predictions.
        truth: The images of the ground truth.
        path: The file of predictions.
        objects: Number of objects of the ground truth by the number of their image.
    """
    lines = []
    predicted = {number for number in matched.numbers.values() if number is not None}
    missing = [number for number in sorted(truth.number_of.values()) if number not in predicted]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        count = counted(sum(objects.get(number, 0) for number in missing), "object")
        lines.append(
            f"{path}: {len(missing)} of {counted(len(truth.rows), 'image')} of the ground truth {verb} not among the "
            f"predicted images (the first is {truth.shown(missing[0])}); {count} there count as not detected"
        )
    extra = [matched.names.get(row_id, str(row_id)) for row_id, number in matched.numbers.items() if number is None]
    if extra:
        verb = "is" if len(extra) == 1 else "are"
        lines.append(
            f"{path}: {counted(len(extra), 'predicted image')} {verb} not in the ground truth "
            f"(the first is {extra[0]!r}); the detections there are ignored"
        )
    return lines
