"""The licenses of what is in a handover, and of the libraries that run it."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageMetadata, PackageNotFoundError
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_LICENSE_FILE = re.compile(r"(?i)^(licen[sc]e|copying|notice|authors|third.?party.?notices)[^/]*$")
_PROGRAM = re.compile(r"(?i)\.(py|pyc|pyi|js|json|h|hpp)$")
_PREFIX = re.compile(r"(?i)^license :: (osi approved :: )?")
_UNKNOWN = "not stated"
_NO_FILES = "has no files of its own, only requirements"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """An installed library.

    Attributes:
        name: Its name.
        version: Its version.
        license: Its license, by its metadata.
        texts: The files with the texts of its licenses.
    """

    name: str
    version: str
    license: str
    texts: tuple[Path, ...]


def libraries(roots: Iterable[str]) -> list[Library]:
    """The installed libraries that others need, by name, those included.

    Args:
        roots: The others as requirements, such as ``d2tune[serve]``. Of extras, those count that a requirement names,
            as torch's ``cuda-toolkit[cudart]``.
    """
    needed: dict[str, Library] = {}
    waiting = [one for root in roots for one in _names(Requirement(root))]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            installed = importlib.metadata.distribution(name)
        except PackageNotFoundError:
            continue
        if name not in needed:
            needed[name] = _library(installed)
        waiting += _requirements(installed, extra)
    return [needed[name] for name in sorted(needed)]


def write_texts(folder: Path, needed: Iterable[Library]) -> dict[str, list[str]]:
    """Copy the texts of licenses; returns their names relative to the folder, by library."""
    written: dict[str, list[str]] = {}
    for library in needed:
        for number, source in enumerate(library.texts):
            own = folder / canonicalize_name(library.name)
            own.mkdir(parents=True, exist_ok=True)
            path = own / (source.name if number == 0 else f"{number}-{source.name}")
            path.write_bytes(source.read_bytes())
            written.setdefault(library.name, []).append(path.relative_to(folder).as_posix())
    return written


def _library(installed: Distribution) -> Library:
    about = installed.metadata  # parsed anew at each access
    texts = []
    for entry in installed.files or ():
        if _LICENSE_FILE.match(entry.name) and not _PROGRAM.search(entry.name):
            path = Path(str(installed.locate_file(entry)))
            texts += [path] if path.is_file() else []
    # the texts of the library itself before those of what it holds
    texts.sort(key=lambda path: (".dist-info" not in str(path.parent), "licen" not in path.name.lower(), str(path)))
    license = _license(about)
    if license == _UNKNOWN and all(".dist-info/" in entry.as_posix() for entry in installed.files or ()):
        license = _NO_FILES
    return Library(name=str(about["Name"]), version=str(about["Version"]), license=license, texts=tuple(texts))


def _license(about: PackageMetadata) -> str:
    """The expression, the free text where it is a name and not the whole license, or the classifiers."""
    expression, text, classifiers = (
        about.get_all(name, []) for name in ("License-Expression", "License", "Classifier")
    )
    free = "".join(text).strip()
    is_name = "\n" not in free and free.upper() != "UNKNOWN"
    classes = [_PREFIX.sub("", line) for line in classifiers if line.startswith("License ::")]
    return "".join(expression) or (free if is_name else "") or ", ".join(classes) or _UNKNOWN


def _requirements(installed: Distribution, extra: str) -> list[tuple[str, str]]:
    """Names and extras of what a library needs, with one of its extras or, where that is empty, without."""
    names: list[tuple[str, str]] = []
    for line in installed.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            names += _names(requirement)
    return names


def _names(requirement: Requirement) -> list[tuple[str, str]]:
    name = str(canonicalize_name(requirement.name))
    return [(name, extra) for extra in ("", *sorted(requirement.extras))]
