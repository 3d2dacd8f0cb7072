"""The ids of COCO files, which tie annotations to images and categories."""

from __future__ import annotations

from typing import Generic, TypeVar

from d2tune.annotations.formats.coco.loose import Loose, is_other_type, matching_id, plain_id, read_id
from d2tune.text import describe

Row = TypeVar("Row")


class ById(Generic[Row]):
    """What the rows of a list stand for, by their ids.

    Args:
        what: The rows in words: ``images``.
        loose: Takes down ids of other types than the format has.
    """

    def __init__(self, what: str, loose: Loose) -> None:
        self._what = what
        self._loose = loose
        self._exact: dict[int | str, Row] = {}
        self._plain: dict[int | str, list[int | str]] = {}

    def __contains__(self, row_id: int | str) -> bool:
        return row_id in self._exact

    def add(self, raw: object, row: Row, index: int) -> None:
        """Add a row under the id that `read_id` reads from ``raw``; the id must be new."""
        row_id = read_id(raw)
        assert row_id is not None
        if not isinstance(raw, int):
            read_as = "text" if isinstance(row_id, str) else f"the number {row_id}"
            self._loose.add(f"the id of {self._what}", raw, read_as=read_as, row=index, kind="")
        self._exact[row_id] = row
        self._plain.setdefault(plain_id(row_id), []).append(row_id)

    def get(self, raw: object, *, key: str, index: int) -> Row | None:
        """The row that an annotation refers to, None where there is none, or several.

        Args:
            raw: The value in the annotation.
            key: Its key, for messages.
            index: Index of the annotation.
        """
        row_id = matching_id(raw, self._exact, self._plain)
        if row_id is None:
            return None
        if is_other_type(raw, row_id):
            self._loose.add(f"the {key} of annotations", raw, read_as=f"the id {describe(row_id)}", row=index, kind="")
        return self._exact[row_id]
