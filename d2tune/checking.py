"""Checking annotations before time is spent on them, and the page that shows what is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from d2tune import project as projects
from d2tune.annotations.convert import ConvertResult, checked, judged
from d2tune.annotations.formats.shared.objects import dataset_findings
from d2tune.annotations.formats.shared.similar_labels import similar_labels
from d2tune.annotations.io.photos.findings import conversion_findings, with_shared_white
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.splitting.lists import read_list, refuse_shared
from d2tune.annotations.splitting.sharing import sharing_findings
from d2tune.data.folds import divide_into_folds, join
from d2tune.data.label_maps import with_background
from d2tune.data.location import locate_data
from d2tune.data.sharing import separate_labels
from d2tune.data.sources import split_source
from d2tune.data.splits import divide_by_fraction
from d2tune.errors import DataError, check_path
from d2tune.project import Project
from d2tune.report.check_page.page import refuse_foreign, write_check_page
from d2tune.report.check_page.survey import Checked, Setting, folder_splits

SPLITS = ("train", "val", "test")
"""The splits that a folder of lists may have, each in a file of that name with the suffix ``.txt``."""


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
    """Read annotations as a conversion does, and report what is in them without writing any.

    Args:
        source: Folder or file of annotations, or a project file, which stands for its splits.
        format: One of `convert.READERS`, or ``auto``; a project file names its own.
        options: How to read; a project file has its own.
        strict: Whether warnings count as errors.
        report: Where the page goes; an earlier page is replaced, any other file is not.
        splits: Folder of lists that say which image is in which split; None takes ``splits`` in the source if there
            is one, else top-level folders called train, val and test.
        overrides: Fields of `ReadOptions` that replace those of a project file.

    Returns:
        One for each source that was read, in the order of the splits.

    Raises:
        DataError: The source, an option or the report cannot be used.
    """
    for place, given in (("source", source), ("report", report), ("splits", splits)):
        check_path(given, place=place)
    path = Path(source)
    if report is not None:
        refuse_foreign(Path(report))
    with contextlib.ExitStack() as stack:
        if path.suffix.lower() in (".yaml", ".yml"):
            project, _ = locate_data(projects.load_project(path).project)
            results = _check_project(project, stack, strict=strict, overrides=overrides or {})
            title, results = project.name, _with_sharing(project, results, strict=strict)
            results = _divided(project, results)
            trains_objects, setting = project.traits.has_objects, Setting.of(project)
        else:
            result = stack.enter_context(checked(path, format=format, options=options, strict=strict))
            title, results = path.resolve().name, [_divided_by_lists(path, result, splits, strict=strict)]
            trains_objects, setting = False, None
        results = [_with_objects(result, trains_objects=trains_objects, strict=strict) for result in results]
        results = _with_similar_labels([_with_conversions(result, strict=strict) for result in results], strict=strict)
        if report is not None:
            write_check_page(report, results, title=title, split_of=_split_of(results), setting=setting)
    return tuple(results)


def _named(source: Path, result: ConvertResult, name: str) -> Checked:
    return Checked(source, result.dataset, result.findings, name)


def _check_project(
    project: Project, stack: contextlib.ExitStack, *, strict: bool, overrides: dict[str, Any]
) -> list[Checked]:
    """Both splits of a project, or the one that the other is a fraction of."""
    data = project.data
    results: list[Checked] = []
    for role, name in (("train", data.train), ("val", data.val)):
        if not isinstance(name, str):
            return [replace(results[0], split="")]
        labels = project.class_names or (results[0].dataset.class_names if results else None)
        source, options = split_source(project, name, labels)
        options = replace(options, **overrides)
        result = stack.enter_context(checked(source, format=data.format, options=options, strict=strict))
        results.append(_named(source, result, role))
    shared = with_shared_white(*(result.dataset for result in results))
    return [
        replace(result, dataset=dataset, findings=(*result.findings, *judged(notes, strict)))
        for result, (dataset, notes) in zip(results, shared, strict=True)
    ]


def _with_objects(result: Checked, *, trains_objects: bool, strict: bool) -> Checked:
    """A split with findings about its crowds and boxes."""
    about_objects = dataset_findings(result.dataset, trains_objects=trains_objects)
    return replace(result, findings=(*result.findings, *judged(about_objects, strict)))


def _with_conversions(result: Checked, *, strict: bool) -> Checked:
    """A split with findings about images that are not 8-bit RGB or gray."""
    return replace(result, findings=(*result.findings, *judged([*conversion_findings(result.dataset)], strict)))


def _with_similar_labels(results: list[Checked], *, strict: bool) -> list[Checked]:
    """The splits with findings about labels that differ little, which are counted over all splits."""
    notes = similar_labels([result.dataset for result in results])
    return [
        replace(result, findings=(*result.findings, *judged(of_split, strict)))
        for result, of_split in zip(results, notes, strict=True)
    ]


def _with_sharing(project: Project, results: list[Checked], *, strict: bool) -> list[Checked]:
    """The splits of a project with findings about the images that they share."""
    splits = {result.split: result.dataset for result in results}
    images = {name: dataset.images for name, dataset in splits.items()}
    by_split = sharing_findings(images, is_separate=separate_labels(project, splits))
    return [
        replace(result, findings=(*result.findings, *judged(by_split.get(result.split, ()), strict)))
        for result in results
    ]


def _divided_by_lists(source: Path, result: ConvertResult, splits: str | Path | None, *, strict: bool) -> Checked:
    """A source with the splits of its lists, or of its folders, and findings about images that lists share."""
    dataset, listed = result.dataset, _listed_splits(source, splits)
    split_of = folder_splits(dataset.images) if listed is None else listed
    ids = {
        name: [image.id for image in dataset.images if split_of.get(image.file_name) == name]
        for name in SPLITS
        if name in split_of.values()
    }
    divided = {name: dataset.subset(of_split) for name, of_split in ids.items()}
    shared = {} if listed is None else sharing_findings({name: one.images for name, one in divided.items()})
    notes = [finding for of_split in shared.values() for finding in of_split]
    return Checked(source, dataset, (*result.findings, *judged(notes, strict)), splits=divided)


def _divided(project: Project, results: list[Checked]) -> list[Checked]:
    """The results, with the splits where the project divides its images by a fraction or into folds.

    Where the images cannot be divided, the results have an error that says why.
    """
    data, train = project.data, results[0]
    if not train.dataset.instances:
        return results
    if data.fold is not None:
        return _divided_by_fold(project, results)
    if not isinstance(data.val, float):
        return results
    try:
        train_split, val_split = divide_by_fraction(project, with_background(train.dataset, data.background))
    except DataError as error:
        hint = "Add other images, name those to validate on in data.val, or divide by d2tune split --no-duplicates."
        message = f"{error.message}: {error.found}" if error.found else error.message
        finding = Finding("error", "not_divisible", data.train, message, hint=error.hint or hint)
        return [replace(train, findings=(*train.findings, finding))]
    ids = {image.file_name: image.id for image in train.dataset.images}
    divided = {
        name: train.dataset.subset([ids[image.file_name] for image in of_split.images])
        for name, of_split in (("train", train_split), ("val", val_split))
    }
    return [replace(train, splits=divided)]


def _divided_by_fold(project: Project, results: list[Checked]) -> list[Checked]:
    """The results, whose images are divided together; see `_divided`."""
    data = project.data
    joined = join([with_background(result.dataset, data.background) for result in results])
    assert data.fold is not None
    try:
        val = set(divide_into_folds(project, joined.dataset).folds[data.fold.number])
    except DataError as error:
        message = f"{error.message}: {error.found}" if error.found else error.message
        finding = Finding("error", "not_divisible", data.train, message, hint=error.hint)
        return [replace(results[0], findings=(*results[0].findings, finding)), *results[1:]]
    ids: list[dict[str, list[int]]] = [{"train": [], "val": []} for _ in results]
    for image, origin in zip(joined.dataset.images, joined.origins, strict=True):
        ids[origin.dataset]["val" if image.id in val else "train"].append(origin.image_id)
    return [
        replace(result, split="", splits={name: result.dataset.subset(own) for name, own in of_result.items()})
        for result, of_result in zip(results, ids, strict=True)
    ]


def _split_of(results: list[Checked]) -> dict[str, str] | None:
    """Split by file name where a source is divided; None where it is not."""
    splits = {name: of_split for result in results for name, of_split in result.splits.items()}
    return {image.file_name: name for name, of_split in splits.items() for image in of_split.images} or None


def _listed_splits(source: Path, splits: str | Path | None) -> dict[str, str] | None:
    """Split by file name as lists say, None where there are none.

    Raises:
        DataError: The folder was named and has no list, a list cannot be read, or two lists share an image.
    """
    folder = Path(splits) if splits is not None else (source if source.is_dir() else source.parent) / "splits"
    lists = dict(_lists(folder))
    if splits is not None and not lists:
        expected = ", ".join(f"{name}.txt" for name in SPLITS)
        raise DataError("the folder of splits has no list", file=folder, expected=expected, hint="Make: d2tune split.")
    for early, late in combinations(lists.values(), 2):
        refuse_shared(early, late)
    names = {file_name: name for name, path in lists.items() for file_name in read_list(path)}
    return names or None


def _lists(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in SPLITS:
        path = folder / f"{name}.txt"
        if path.is_file():
            yield name, path
