"""Checking annotations before time is spent on them, and the page that shows what is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2tune import project as projects
from d2tune.annotations.convert import ConvertResult, checked
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.splitting.lists import read_list
from d2tune.annotations.splitting.splits import split
from d2tune.data.splits import split_source
from d2tune.errors import DataError
from d2tune.report.check_page.page import refuse_foreign, write_check_page
from d2tune.report.check_page.survey import Checked

PARTS = ("train", "val", "test")
"""The parts that a folder of lists may have, each in a file of that name with the suffix ``.txt``."""


def check(
    source: str | Path,
    *,
    format: str = "auto",
    options: ReadOptions | None = None,
    strict: bool = False,
    report: str | Path | None = None,
    splits: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
) -> tuple[Checked, ...]:
    """Read annotations as a conversion does, write none, and tell what is in them.

    Args:
        source: Folder or file of annotations, or a project file, which stands for its two parts.
        format: One of `convert.READERS`, or ``auto``; a project file says it itself.
        options: How to read; a project file says it itself.
        strict: Whether warnings count as errors.
        report: Where the page goes; an earlier page is replaced, a file of somebody else's is not.
        splits: Folder of lists that say which image is in which part; None takes ``splits`` in the source where
            it is there, else top-level folders called train, val and test.
        overrides: Fields of `ReadOptions` that differ from what a project file says.

    Returns:
        One for each source that was read, in the order of the parts.

    Raises:
        DataError: The source, an option or the report cannot be used.
    """
    path = Path(source)
    if report is not None:
        refuse_foreign(Path(report))
    is_project = path.suffix.lower() in (".yaml", ".yml")
    with contextlib.ExitStack() as stack:
        if is_project:
            found, title = _check_project(path, stack, strict=strict, overrides=overrides or {})
        else:
            result = stack.enter_context(checked(path, format=format, options=options, strict=strict))
            found, title = [_named(path, result, "")], path.resolve().name
        if report is not None:
            part_of = _project_parts(path, found) if is_project else _listed_parts(path, splits)
            write_check_page(report, found, title=title, part_of=part_of)
    return tuple(found)


def _named(source: Path, result: ConvertResult, part: str) -> Checked:
    return Checked(source, result.dataset, result.findings, part)


def _check_project(
    path: Path, stack: contextlib.ExitStack, *, strict: bool, overrides: dict[str, Any]
) -> tuple[list[Checked], str]:
    """Both parts of a project, or the one that another is a fraction of."""
    project = projects.load_project(path).project
    data = project.data
    found: list[Checked] = []
    for role, part in (("train", data.train), ("val", data.val)):
        if not isinstance(part, str):
            found = [Checked(found[0].source, found[0].dataset, found[0].findings)]
            break
        labels = project.class_names or (found[0].dataset.class_names if found else None)
        source, options = split_source(project, part, labels)
        options = replace(options, **overrides)
        result = stack.enter_context(checked(source, format=data.format, options=options, strict=strict))
        found.append(_named(source, result, role))
    return found, project.name


def _project_parts(path: Path, found: list[Checked]) -> dict[str, str] | None:
    """Part by file name where the project sets a fraction of the training images aside."""
    data = projects.load_project(path).project.data
    dataset = found[0].dataset
    if not isinstance(data.val, float) or len(dataset.images) < 2:
        return None
    divided = zip(("train", "val"), split(dataset, fraction=data.val, seed=data.split_seed), strict=True)
    return {image.file_name: role for role, part in divided for image in part.images}


def _listed_parts(source: Path, splits: str | Path | None) -> dict[str, str] | None:
    """Part by file name as lists say, None where there are none.

    Raises:
        DataError: The folder was named and has no list, or a list cannot be read.
    """
    folder = Path(splits) if splits is not None else (source if source.is_dir() else source.parent) / "splits"
    lists = dict(_lists(folder))
    if splits is not None and not lists:
        expected = ", ".join(f"{part}.txt" for part in PARTS)
        raise DataError("the folder of splits has no list", file=folder, expected=expected, hint="Make: d2tune split.")
    names = {name: part for part, path in lists.items() for name in read_list(path)}
    return names or None


def _lists(folder: Path) -> Iterator[tuple[str, Path]]:
    for part in PARTS:
        path = folder / f"{part}.txt"
        if path.is_file():
            yield part, path
