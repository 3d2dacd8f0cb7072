"""What to predict on, as it is named: images, folders, patterns, lists, videos, cameras and streams."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune.annotations.io.suffixes import is_video_name, unreadable_hint_of
from d2tune.annotations.splitting.lists import is_list
from d2tune.errors import DataError, check_path
from d2tune.inference.images import is_predicted_on

Find = Callable[[Path], tuple[Path, list[Path]]]
"""Gives the root and the images of a file or a folder, as `images.find_images` does."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LISTS_FOLDER = "splits"  # `d2tune split` writes lists there, with names relative to the folder above


@dataclass(frozen=True, slots=True)
class SourceImages:
    """Images to predict on, each of them once.

    Attributes:
        root: The folder that names are relative to: of several sources, the one that holds all of them.
        paths: The image files, or folders of stacked files, in the order of the sources.
        missing: A line for each entry of a list that is not an image.
    """

    root: Path
    paths: list[Path]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Source:
    """The images of one source.

    Attributes:
        base: The folder that the source names or lies in.
        paths: The images.
        missing: See `SourceImages`.
    """

    base: Path
    paths: list[Path]
    missing: tuple[str, ...] = ()


def is_video(source: str | Path) -> bool:
    """Whether a source is a video file, the number of a camera, or the address of a stream.

    A file or a folder whose name is a number is not a camera.
    """
    text = str(source)
    if _ADDRESS.match(text):
        return True
    return not Path(text).is_dir() and (is_video_name(text) or (text.isdecimal() and not Path(text).exists()))


def find_source_images(sources: Sequence[str | Path], find: Find, *, stacked: bool = False) -> SourceImages:
    """The images of several sources.

    A source is an image, a folder with all images below it, a pattern with ``*``, ``?``, ``[...]`` or ``**`` for any
    number of folders, or a text file with a path a line, relative to the file. A name that exists is not a pattern.

    Args:
        sources: At least one.
        find: Gives the images of a file or a folder.
        stacked: Whether an image may be a folder of files.

    Raises:
        DataError: A source does not exist, has no images, or names none that exists.
        ProjectError: A source is empty.
    """
    resolved = [_resolved(source, find, stacked) for source in sources]
    missing = tuple(line for one in resolved for line in one.missing)
    if len(resolved) == 1 and all(path.is_relative_to(resolved[0].base) for path in resolved[0].paths):
        return SourceImages(resolved[0].base, list(_once(resolved[0].paths)), missing)
    paths = [Path(os.path.abspath(path)) for one in resolved for path in one.paths]  # noqa: PTH100
    root = _common_folder(resolved)
    shown = _as_shown(root)
    return SourceImages(shown, [shown / path.relative_to(root) for path in _once(paths)], missing)


def _resolved(source: str | Path, find: Find, stacked: bool) -> _Source:
    check_path(source, place="source")
    path = Path(source)
    if is_list(path) and not path.is_dir():
        return _listed(path, stacked)
    if not os.path.lexists(path) and glob.has_magic(str(source)):
        return _matching(str(source), find)
    return _Source(*find(path))


def _once(paths: Iterable[Path]) -> Iterator[Path]:
    """The paths without those that came before."""
    seen: set[str] = set()
    for path in paths:
        place = os.path.abspath(path)  # noqa: PTH100
        if place not in seen:
            seen.add(place)
            yield path


def _common_folder(resolved: Sequence[_Source]) -> Path:
    """The deepest folder that holds all sources and their images."""
    folders = {os.path.abspath(one.base) for one in resolved}  # noqa: PTH100
    for one in resolved:
        base = os.path.abspath(one.base)  # noqa: PTH100
        places = {os.path.abspath(path) for path in one.paths}  # noqa: PTH100
        folders |= {os.path.dirname(place) for place in places if not Path(place).is_relative_to(base)}  # noqa: PTH120
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        several = ", ".join(sorted(folders)[:3])
        raise DataError(
            "no folder holds all sources", found=several, hint="Predict on each drive separately."
        ) from None


def _as_shown(folder: Path) -> Path:
    """An absolute folder, relative to the working folder where it lies in it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _listed(path: Path, stacked: bool) -> _Source:
    """The images that a list names."""
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise DataError("the list does not exist", file=path) from None
    except OSError as error:
        raise DataError(f"the list cannot be read ({error.strerror})", file=path) from None
    base = path.parent.parent if path.parent.name == _LISTS_FOLDER else path.parent
    folders = [path.parent] if base == path.parent else [path.parent, base]
    paths, missing = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.removesuffix("\r")
        if not name.strip():
            continue
        image = _entry(name, folders, stacked)
        if image is not None:
            paths.append(image)
            continue
        absent = DataError("the image does not exist", file=path, place=f"line {number}", found=name)
        missing.append(absent.one_line())
    if not paths and not missing:
        raise DataError("the list is empty", file=path, expected="a path of an image on each line")
    if not paths:
        expected = f"paths relative to {path.parent}, or absolute ones"
        raise DataError("none of the listed images exists", file=path, found=missing[0], expected=expected)
    return _Source(base, paths, tuple(missing))


def _entry(name: str, folders: Sequence[Path], stacked: bool) -> Path | None:
    """The image of a line of a list; None where it does not exist."""
    for folder in folders:
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            path = Path(os.path.normpath(folder / text))
            try:
                if path.is_file() or (stacked and path.is_dir()):
                    return path
            except (OSError, ValueError):
                continue
    return None


def _matching(pattern: str, find: Find) -> _Source:
    """The images that a pattern stands for, in the order of their paths."""
    fixed: list[str] = []
    for step in Path(pattern).parts:
        if glob.has_magic(step):
            break
        fixed.append(step)
    base = Path(*fixed)
    hits = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    is_wanted = is_predicted_on()
    paths: list[Path] = []
    for hit in hits:
        if hit.is_file() and is_wanted(hit):
            paths.append(hit)
        elif hit.is_dir():
            paths += _below(hit, find)
    if not paths:
        seen = unreadable_hint_of(hit.name for hit in hits) or (None if hits else "no such file or folder")
        hint = "Patterns have * and ?, and ** for any number of folders."
        raise DataError("the pattern stands for no image", file=pattern, found=seen, hint=hint)
    return _Source(base, sorted(_once(paths)))


def _below(folder: Path, find: Find) -> list[Path]:
    try:
        return find(folder)[1]
    except DataError:  # a folder without images, which a pattern may match
        return []
