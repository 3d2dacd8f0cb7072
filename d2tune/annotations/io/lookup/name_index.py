"""An index of image files by their base names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property

from d2tune.annotations.io.lookup.names import folded, stem_of
from d2tune.text import nearest

_NEIGHBORS = 20


class NameIndex:
    """Image files by base name, by stem, and by both without regard to case and Unicode form.

    Args:
        names: Paths of the images, with forward slashes.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)

    def same_name(self, name: str) -> list[str]:
        """The files with this base name."""
        return self._by_name.get(name, [])

    def same_stem(self, stem: str) -> list[str]:
        """The files with this base name but for the suffix."""
        return self._by_stem.get(stem, [])

    def same_folded_name(self, name: str) -> list[str]:
        """The files whose base name differs by case or Unicode form alone."""
        return self._by_folded_name.get(folded(name), [])

    def same_folded_stem(self, stem: str) -> list[str]:
        """The files whose base name without suffix differs by case or Unicode form alone."""
        return self._by_folded_stem.get(folded(stem), [])

    def nearest(self, name: str) -> str | None:
        """A file whose base name is similar; None where there is none.

        Only names beside it in the order of names, read forward and backward, are compared: an index can be large.
        """
        near = []
        for ordered, key in ((self._forward, name), (self._backward, name[::-1])):
            at = bisect_left(ordered, key)
            near += ordered[max(0, at - _NEIGHBORS) : at + _NEIGHBORS]
        forward = [one for one in near if one in self._by_name]
        backward = [one[::-1] for one in near if one[::-1] in self._by_name]
        like = nearest(name, dict.fromkeys([*forward, *backward]))
        return None if like is None else self._by_name[like][0]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: name)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return self._grouped(stem_of)

    @cached_property
    def _by_folded_name(self) -> dict[str, list[str]]:
        return self._grouped(folded)

    @cached_property
    def _by_folded_stem(self) -> dict[str, list[str]]:
        return self._grouped(lambda name: folded(stem_of(name)))

    @cached_property
    def _forward(self) -> list[str]:
        return sorted(self._by_name)

    @cached_property
    def _backward(self) -> list[str]:
        return sorted(name[::-1] for name in self._by_name)

    def _grouped(self, key_of: Callable[[str], str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in self._names:
            groups.setdefault(key_of(name.rpartition("/")[2]), []).append(name)
        return groups
