"""The categories of a COCO file under the rules for labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from d2tune.annotations.formats.coco.ids import ById
from d2tune.annotations.formats.coco.loose import Loose, plain_id, read_flag, read_id
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.model.options import ReadOptions
from d2tune.text import describe


class Classes:
    """The categories of a COCO file under the rules for labels.

    Args:
        raw: The list ``categories``.
        unit: Takes the findings.
        options: How to read.
        loose: Takes down values of other types than the format has.
        used: Gives the ``category_id`` of all annotations; it is called only where a category may have none.

    Attributes:
        labels: The rules for labels.
        names: Class names in order; where no labels are given, the order of the ids.
        stuff: Classes that the file marks as stuff.
        ids: The ids of the classes in the file; a class that several categories became has none.
    """

    def __init__(
        self, raw: object, unit: Unit, options: ReadOptions, loose: Loose, *, used: Callable[[], Iterable[object]]
    ) -> None:
        self.labels = Labels(options)
        self._name_of: ById[str] = ById("categories", loose)
        rows = _read_rows(raw, unit, loose)
        if self.labels.names is None:
            rows = _without_roots(rows, unit, used)
        names: list[str] = []
        self.stuff: list[str] = []
        ids: dict[str, list[int | str]] = {}
        for category_id, name, index, row in rows:
            self._name_of.add(row["id"], name, index)
            final, _ = self.labels.class_of(name.strip())
            if final is not None:
                names.append(final)
                ids.setdefault(final, []).append(category_id)
                self.stuff += [final] if _is_stuff(row, loose, index) else []
        self.names = self.labels.names if self.labels.names is not None else tuple(dict.fromkeys(names))
        self.ids = {name: members[0] for name, members in ids.items() if len(members) == 1}

    def read(self, category_id: object, unit: Unit, index: int) -> str | None:
        """The class name of an annotation, or None with a finding."""
        raw = self._name_of.get(category_id, key="category_id", index=index)
        if raw is None:
            message = f"the category {describe(category_id)} does not exist"
            unit.note("error", "unknown_label", message, shape=index)
            return None
        name = self.labels.read(raw, unit, index)
        return None if name is None else name.label


_Row = tuple[int | str, str, int, dict[str, Any]]
"""The id, the name and the index of a category, and its row."""


def _read_rows(raw: object, unit: Unit, loose: Loose) -> list[_Row]:
    """The valid categories in the order of their ids."""
    rows: list[_Row] = []
    seen: set[int | str] = set()
    for index, row in enumerate(raw if isinstance(raw, list) else []):
        category_id = read_id(row.get("id")) if isinstance(row, dict) else None
        name = row.get("name") if isinstance(row, dict) else None
        if isinstance(name, (int, float)) and not isinstance(name, bool):
            text = str(read_id(name)) if read_id(name) is not None else str(name)
            loose.add("the name of categories", name, read_as=f"the text {text!r}", row=index, kind="")
            name = text
        if category_id is None or not isinstance(name, str) or not name.strip():
            unit.note("error", "bad_shape", f"a category needs an id and a name, found {describe(row)}")
        elif category_id in seen:
            unit.note("error", "bad_shape", f"the category id {category_id} occurs twice")
        else:
            seen.add(category_id)
            rows.append((category_id, name, index, row))
    return sorted(rows, key=_order)


def _order(row: _Row) -> tuple[int, int, str]:
    number = plain_id(row[0])
    return (0, number, "") if isinstance(number, int) else (1, 0, number)


def _without_roots(rows: list[_Row], unit: Unit, used: Callable[[], Iterable[object]]) -> list[_Row]:
    """The categories without those that are only the supercategory of others and have no annotation."""
    roots = {name for _, name, _, _ in rows} & {
        row["supercategory"]
        for _, name, _, row in rows
        if isinstance(row.get("supercategory"), str) and row["supercategory"] != name
    }
    if not roots:
        return rows
    occurring = {plain_id(row_id) for raw in used() if (row_id := read_id(raw)) is not None}
    kept = []
    for row in rows:
        if row[1] in roots and plain_id(row[0]) not in occurring:
            message = f"the category {row[1]!r} is only the supercategory of others; it is not a class"
            unit.note("info", "root_category", message, hint="to keep it, name it among the classes")
        else:
            kept.append(row)
    return kept


def _is_stuff(row: dict[str, Any], loose: Loose, index: int) -> bool:
    isthing = read_flag(row.get("isthing", 1))
    if isinstance(row.get("isthing"), str) and isthing is not None:
        loose.add("the isthing of categories", row["isthing"], read_as=str(int(isthing)), row=index, kind="")
    return row.get("isthing") is not None and isthing is False
