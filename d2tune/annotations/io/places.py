"""The images that annotation files name, looked up inside the data root.

Paths are text here: ``Path`` takes several times as long for tens of thousands of files.
"""

# ruff: noqa: PTH100, PTH113, PTH114, PTH118, PTH119

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from d2tune.annotations.io.lookup.name_index import NameIndex
from d2tune.annotations.io.lookup.names import base_names, folded, path_ends, stem_of
from d2tune.annotations.io.lookup.walking import Walk, is_below, walk_files
from d2tune.annotations.io.suffixes import is_image_name
from d2tune.text import shortened

__all__ = ["ImageFinder", "Place", "is_file", "walk_files"]

LINK_HINT = "follow links with --follow-links or data.follow_links: true"
OUTSIDE_HINT = "set its folder with --image-root, or allow it with --allow-outside"
_MISSING_HINT = "name the folder of the images with --image-root or data.images"
_LISTED = 4
_MASK_FOLDERS = frozenset(
    {
        *("annotation", "annotations", "gt", "groundtruth", "label", "labels", "mask", "masks"),
        *("segmentation", "segmentationclass", "segmentationobject", "semantic", "scribbles", "stuff"),
    }
)

Lookup = Callable[[NameIndex, str], list[str]]


@dataclass(frozen=True, slots=True)
class Place:
    """The location of an image.

    Attributes:
        path: The file, absolute; None where there is none or it must not be used.
        file_name: Path relative to the data root, with forward slashes.
        problem: The reason with the path tried where ``path`` is None.
        hint: What to do.
        code: Of the finding where ``path`` is None.
        detour: The path named and the file that is used instead, where the image is not at the path named.
    """

    path: Path | None
    file_name: str
    problem: str | None = None
    hint: str | None = None
    code: Literal["image_missing", "image_ambiguous"] = "image_missing"
    detour: str | None = None


class ImageFinder:
    """Looks up the images that annotation files name, and refuses those outside the data root.

    Args:
        root: The folder that ``file_name`` is relative to.
        allow_outside: Whether images outside the root are allowed.
        follow_links: Whether links below the root may lead out of it.
        limits: Further folders whose images are allowed.
        skip: A folder whose images are not looked up by their names alone.
    """

    def __init__(
        self,
        root: Path,
        *,
        allow_outside: bool = False,
        follow_links: bool = False,
        limits: Iterable[Path] = (),
        skip: Path | None = None,
    ) -> None:
        self.root = os.path.abspath(root)
        self.limits = tuple(dict.fromkeys([self.root, *(os.path.abspath(limit) for limit in limits)]))
        self._real_root = os.path.realpath(self.root)
        self._real_limits = [os.path.realpath(limit) for limit in self.limits]
        self._allow_outside = allow_outside
        self._follow_links = follow_links
        self._skip = skip
        self._real_folders: dict[str, str] = {}
        self._absolute_folders: dict[Path, str] = {}
        self._listings: dict[str, NameIndex] = {}
        self._index: NameIndex | None = None
        self._walks: list[Walk] = []

    def find(
        self,
        text: object,
        *,
        folders: tuple[Path, ...],
        stem: str | None = None,
        in_subfolders: bool = False,
        without_suffix: bool = False,
    ) -> Place:
        """Look up the image named ``text``.

        The path is tried relative to each of ``folders``; then its end and its base name there and under the root; then
        another suffix; then another case or Unicode form. Windows backslashes, ``..``, URLs and the names of media
        servers are understood. From the second way on the place has a ``detour``; several candidates are a problem.

        Args:
            text: What the annotation file has for a path.
            folders: The folders that it may be relative to, that of the annotation file first.
            stem: The name of the annotation file without suffix, where the file belongs to one image.
            in_subfolders: Whether the format has base names alone, so that a subfolder of the root is not a detour.
            without_suffix: Whether the format may name images without suffix or not at all, so that an image of the
                same stem is not a detour.
        """
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            problem = f"the file does not name an image, found {text!r:.60}"
            place = (None if stem is None else self._of_stem(problem, folders, stem)) or Place(None, "", problem)
            return replace(place, detour=None) if without_suffix else place
        name = text.replace("\\", "/")
        first, outside = None, None
        for path in (name,) if name[1:3] == ":/" else (os.path.join(self._absolute(one), name) for one in folders):
            path = os.path.normpath(path)
            first = first or path
            if is_file(path):
                file_name = self.file_name(path)
                if file_name is not None:
                    return Place(Path(path), file_name)
                outside = outside or path
        search = [self._absolute(folder) for folder in folders]
        detour = self._elsewhere(text, first or name, search, stem, is_outside=outside is not None)
        if detour is None:
            return self._missing(text, first or name, outside, search)
        base = detour.file_name.rpartition("/")[2]
        is_expected = (in_subfolders and base == text) or (without_suffix and stem_of(base) == text)
        return replace(detour, detour=None) if is_expected else detour

    def file_name(self, path: str) -> str | None:
        """``path`` relative to the root with forward slashes, or None where it must not be used."""
        folder, base = os.path.split(path)
        real_folder = self._real_folders.get(folder)
        if real_folder is None:
            real_folder = self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folder, base)
        is_inside = is_below(path, self.root)
        if is_below(real, self._real_root):
            return _posix(_relative(path, self.root) if is_inside else _relative(real, self._real_root))
        if self._allow_outside or any(is_below(real, limit) for limit in self._real_limits):
            return _posix(_relative(path, self.root) if is_inside else os.path.relpath(path, self.root))
        if self._follow_links and any(is_below(path, limit) for limit in self.limits):
            return _posix(os.path.relpath(path, self.root))
        return None

    def name_of(self, text: object, *, folders: tuple[Path, ...]) -> str:
        """The name that an image has where it is at the path ``text``; empty where that is not a path."""
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            return ""
        name, search = text.replace("\\", "/"), [self._absolute(folder) for folder in folders]
        tried = os.path.normpath(name if name[1:3] == ":/" else os.path.join(search[0], name))
        return self._wanted(text, tried, search)

    def existing(self, folder: Path, name: str) -> Place:
        """The place of a file that was found in a folder, refused where a link leads out of the root."""
        path = os.path.join(self._absolute(folder), name)
        file_name = self.file_name(path)
        if file_name is None:
            return self._missing(name, path, path, [self.root])
        return Place(Path(path), file_name)

    def walk(self, folder: Path, *, skip: Path | None = None) -> Walk:
        """The files below a folder, with the rule for links of this finder."""
        limits = [Path(limit) for limit in (*self.limits, self._absolute(folder))]
        walk = Walk(folder, skip=skip, limits=limits, follow_links=self._follow_links)
        self._walks.append(walk)
        return walk

    def refused_links(self) -> dict[str, str]:
        """The links to folders that the walks so far did not follow, with their targets."""
        return dict(link for walk in self._walks for link in walk.refused)

    def _absolute(self, folder: Path) -> str:
        known = self._absolute_folders.get(folder)
        if known is None:
            known = self._absolute_folders[folder] = os.path.abspath(folder)
        return known

    def _elsewhere(
        self, text: str, named: str, search: Sequence[str], stem: str | None, *, is_outside: bool
    ) -> Place | None:
        """The image in the first way but the path as given that has candidates; None where no way has any."""
        names, wanted = base_names(text), self._wanted(text, named, search)
        state = f"lies outside the data root {self.root}" if is_outside else "does not exist"
        problem = f"the image {text.strip()} {state}"
        for end in path_ends(text):
            hits = self._usable(os.path.join(folder, *end) for folder in search)
            if hits:
                return _chosen(hits, problem, wanted, lambda name: "which has the end of that path")
        for name in names:
            hits = self._beside(name, search) or self._indexed(NameIndex.same_name, [name])
            if hits:
                return _chosen(hits, problem, wanted, lambda name: "which has that name")
        if is_outside:  # an image of another name is less likely to be meant than the one that exists
            return None
        stems = list(dict.fromkeys([*map(stem_of, names), *([] if stem is None else [stem])]))
        ways: tuple[tuple[Lookup, list[str]], ...] = (
            (NameIndex.same_stem, stems),
            (NameIndex.same_folded_name, names),
            (NameIndex.same_folded_stem, stems),
        )
        for lookup, keys in ways:
            hits = self._listed(lookup, keys, search) or self._indexed(lookup, keys)
            if hits:
                return _chosen(hits, problem, wanted, lambda name: _difference(name, names))
        return None

    def _of_stem(self, problem: str, folders: tuple[Path, ...], stem: str) -> Place | None:
        """The image with the name of the annotation file."""
        search = [self._absolute(folder) for folder in folders]
        for lookup in (NameIndex.same_stem, NameIndex.same_folded_stem):
            hits = self._listed(lookup, [stem], search) or self._indexed(lookup, [stem])
            if hits:
                return _chosen(hits, problem, "", lambda name: _difference(name, ()))
        return None

    def _tiers(self, search: Sequence[str]) -> tuple[Sequence[str], ...]:
        """The folders of a search in the order in which they decide: first that of an annotation file in the root."""
        return (search[:1], search[1:]) if search and is_below(search[0], self.root) else (search,)

    def _beside(self, name: str, search: Sequence[str]) -> dict[str, str]:
        """The files with a base name directly in the folders of a search."""
        tiers = (self._usable(os.path.join(folder, name) for folder in tier) for tier in self._tiers(search))
        return next((hits for hits in tiers if hits), {})

    def _usable(self, paths: Iterable[str]) -> dict[str, str]:
        """The files among ``paths`` that may be used, with their names; a file reached in two ways counts once."""
        hits: dict[str, tuple[str, str]] = {}
        for path in map(os.path.normpath, paths):
            if is_file(path):
                file_name = self.file_name(path)
                if file_name is not None:
                    hits.setdefault(os.path.realpath(path), (path, file_name))
        return dict(hits.values())

    def _listed(self, lookup: Lookup, keys: Sequence[str], search: Sequence[str]) -> dict[str, str]:
        """The images directly in the folders of a search that a lookup gives for any of some keys."""
        for tier in self._tiers(search):
            named = ((folder, lookup(self._listing(folder), key)) for folder in tier for key in keys)
            hits = self._usable(os.path.join(folder, name) for folder, names in named for name in names)
            if hits:
                return hits
        return {}

    def _listing(self, folder: str) -> NameIndex:
        """The images directly in a folder, listed once."""
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = NameIndex(_images_in(folder))
        return listing

    def _indexed(self, lookup: Lookup, keys: Sequence[str]) -> dict[str, str]:
        """The images under the root that a lookup gives for any of some keys."""
        index = self._below_root()
        return self._usable(os.path.join(self.root, name) for key in keys for name in lookup(index, key))

    def _below_root(self) -> NameIndex:
        """The images under the root, listed once; masks in folders of their own are not listed."""
        if self._index is None:
            names = self.walk(Path(self.root), skip=self._skip)
            self._index = NameIndex(name for name in names if is_image_name(name) and not _is_mask(name))
        return self._index

    def _missing(self, text: str, tried: str, outside: str | None, search: Sequence[str]) -> Place:
        base = next(iter(base_names(text)), "image")
        file_name = self._wanted(text, tried, search)
        if outside is not None:
            through_link = any(is_below(outside, limit) for limit in self.limits)
            if through_link:
                target = os.path.realpath(outside)
                message = f"the image {outside} is reached by a link to {target}, outside the data root {self.root}"
                return Place(None, file_name, message, LINK_HINT)
            return Place(None, file_name, f"the image {outside} lies outside the data root {self.root}", OUTSIDE_HINT)
        if os.path.islink(tried):
            message = f"the image {tried} is a link to {os.path.realpath(tried)}, which does not exist"
            return Place(None, file_name, message, "fetch the file that the link stands for")
        folders = dict.fromkeys(folder for folder in search if folder != self.root)
        others = shortened(", ".join(_posix(os.path.relpath(folder, self.root)) for folder in folders), 160)
        places = f"below {self.root}" + (f" or in {others}" if others else "")
        message = f"the image {tried} does not exist, nor does an image {base} {places}"
        like = self._below_root().nearest(base)
        return Place(None, file_name, message, _MISSING_HINT if like is None else f"the nearest name is {like}")

    def _wanted(self, text: str, tried: str, search: Sequence[str]) -> str:
        """The name of an image that does not exist: at the path tried, or in the first folder of the search."""
        base = next(iter(base_names(text)), "image")
        return self._inside(tried) or self._inside(os.path.join(search[0], base)) or base

    def _inside(self, path: str) -> str | None:
        """``path`` relative to the root, by its text alone; None where it is outside."""
        if not is_below(path, self.root) or ":" in os.path.basename(path):
            return None
        return _posix(os.path.relpath(path, self.root))


def _chosen(hits: dict[str, str], problem: str, wanted: str, relation: Callable[[str], str]) -> Place:
    """The place of the only candidate; a problem where there are several.

    Args:
        hits: Names by path.
        problem: What is wrong with the path named.
        wanted: The name that the image has at the path named.
        relation: What a name has to do with the path named.
    """
    if len(hits) == 1:
        ((path, file_name),) = hits.items()
        return Place(Path(path), file_name, detour=f"{problem}; {file_name}, {relation(file_name)}, is used")
    names = sorted(hits.values())
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    candidates = f"{problem}, and {len(names)} images may be meant: {', '.join(names[:_LISTED])}{more}"
    hint = "correct the path in the annotation file, or keep one of the images"
    return Place(None, wanted, candidates, hint, code="image_ambiguous")


def _difference(file_name: str, names: Sequence[str]) -> str:
    """How the base name of an image differs from those that were named."""
    base = file_name.rpartition("/")[2]
    if folded(base) in map(folded, names):
        return "whose name has another case or Unicode form"
    if stem_of(base) in map(stem_of, names):
        return "which has another suffix"
    if folded(stem_of(base)) in map(folded, map(stem_of, names)):
        return "whose name has another case or Unicode form and another suffix"
    return "which has the name of the annotation file"


def is_file(path: str) -> bool:
    """Whether a path is a regular file; False also for names that no file can have."""
    try:
        return os.path.isfile(path)
    except ValueError:
        return False


def _is_mask(name: str) -> bool:
    """Whether an image below the root is in a folder of masks."""
    return not _MASK_FOLDERS.isdisjoint(name.lower().split("/")[:-1])


def _images_in(folder: str) -> list[str]:
    """The names of the images directly in a folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if is_image_name(entry.name) and not entry.name.startswith(".")]
    except (OSError, ValueError):
        return []


def _relative(path: str, folder: str) -> str:
    """A normal path below a folder, relative to it."""
    return path[len(folder) :].lstrip(os.sep) or "."


def _posix(path: str) -> str:
    return path.replace(os.sep, "/") if os.sep != "/" else path
