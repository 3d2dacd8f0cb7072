"""Findings about the images of a dataset: how their values are scaled, and which of them cannot be used."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from d2tune.annotations.io.photos.checks import check_photo
from d2tune.annotations.io.photos.reading import LARGEST_DECODED_PX, read_photo, read_values, too_large
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.model.findings import Finding, Level
from d2tune.annotations.model.ledger import LedgerRow
from d2tune.annotations.model.pixel_format import FULL_RANGE, PixelFormat
from d2tune.errors import DataError

Depth = Literal["header", "structure", "decoded"]
"""How images are checked: by their headers alone, by the structure of their files, or by decoding them."""

_RANGES_READ = 16
"""Files of a stated range that are read to see whether their values keep to it."""


def with_photo_findings(dataset: Dataset, *, depth: Depth, skip_bad: bool) -> Dataset:
    """A dataset of photos with errors and warnings about their files, and one white value for all 16-bit images.

    Args:
        dataset: The dataset as its annotations describe it.
        depth: How the files are checked. Images of floats and of more than 16 bits are always decoded, because their
            headers do not tell whether their values are in the range that is read.
        skip_bad: Whether images that cannot be used are excluded; else they are errors.
    """
    images = [image for image in dataset.images if image.path is not None]
    notes: list[Finding] = []
    white = None
    if any(image.pixel_format is not None for image in images):
        white, notes = _white_of_files(images)
    if depth == "structure":
        notes += [replace(finding, level="warning") for _, finding in _too_large(images)]
    problems = dict(_problems(images, depth))
    if white is not None:
        dataset = with_white(dataset, white)
    if not notes and not problems:
        return dataset
    if skip_bad and problems:
        dataset = _without(dataset, {image_id: finding.message for image_id, finding in problems.items()})
    level: Level = "warning" if skip_bad else "error"
    ending = "; the image is excluded" if skip_bad else ""
    errors = [replace(problem, level=level, message=problem.message + ending) for problem in problems.values()]
    return replace(dataset, findings=(*dataset.findings, *notes, *errors))


def with_white(dataset: Dataset, white: float | None) -> Dataset:
    """The dataset with another `PixelFormat.white` for its 16-bit images; None keeps it."""

    def changed(image: Image) -> Image:
        form = image.pixel_format
        if form is None or not form.is_deep or white is None:
            return image
        return replace(image, pixel_format=replace(form, white=white))

    return replace(dataset, images=tuple(changed(image) for image in dataset.images))


def white_of(*datasets: Dataset) -> float | None:
    """The stored value that becomes 255 in all 16-bit images of datasets; None where they have none."""
    forms = [image.pixel_format for dataset in datasets for image in dataset.images]
    return max((form.white for form in forms if form is not None and form.is_deep), default=None)


def with_shared_white(*splits: Dataset) -> list[tuple[Dataset, tuple[Finding, ...]]]:
    """The splits of a project with one white value for all their 16-bit images.

    Returns:
        Each split, with a warning where its own files state another value.
    """
    white = white_of(*splits)
    shared = []
    for split in splits:
        own = white_of(split)
        notes: tuple[Finding, ...] = ()
        if own is not None and own != white:
            message = (
                f"the 16-bit images state values up to {own:g}, those of another split up to {white:g}; all are "
                f"divided by {_divisor(white or own)}"
            )
            image = next(image for image in split.images if image.pixel_format and image.pixel_format.is_deep)
            notes = (Finding("warning", "image_range_differs", image.file_name, message),)
        shared.append((with_white(split, white), notes))
    return shared


def _white_of_files(images: Sequence[Image]) -> tuple[float | None, list[Finding]]:
    """The white value of all 16-bit images, and a warning where their files do not agree on it."""
    deep = [(image, image.pixel_format) for image in images if image.pixel_format and image.pixel_format.is_deep]
    if not deep:
        return None, []
    whites = Counter(form.white for _, form in deep)
    white = max(whites)
    beyond = next(_beyond_stated([(image, form) for image, form in deep if form.is_stated]), None)
    if beyond is not None:
        image, form, largest = beyond
        message = (
            f"the file states values up to {form.white:g} and has values up to {largest:g}; all 16-bit images are "
            f"divided by {_divisor(FULL_RANGE)}"
        )
        return FULL_RANGE, [Finding("warning", "image_range_differs", image.file_name, message)]
    if len(whites) == 1:
        return white, []
    image = next(image for image, form in deep if form.white != white)
    shown = ", ".join(f"{count} up to {value:g}" for value, count in sorted(whites.items()))
    message = f"the 16-bit images state different ranges ({shown}); all are divided by {_divisor(white)}"
    return white, [Finding("warning", "image_range_differs", image.file_name, message)]


def _beyond_stated(stated: Sequence[tuple[Image, PixelFormat]]) -> Iterator[tuple[Image, PixelFormat, float]]:
    """Images with values beyond the range that their files state, of a few files spread evenly."""
    step = max(1, len(stated) // _RANGES_READ)
    for image, form in stated[::step]:
        try:
            stored = read_values(image.path) if image.path is not None else None
        except DataError:
            continue
        if stored is not None and stored[0].size and stored[0].max() > form.white:
            yield image, form, float(stored[0].max())


def _divisor(white: float) -> str:
    return f"{white / 255:g}" if white == FULL_RANGE else f"{white:g} / 255"


def conversion_findings(dataset: Dataset) -> Iterator[Finding]:
    """What is done with images that are not 8-bit RGB or gray: an info for each kind, with the number of images."""
    white = white_of(dataset)
    by_kind: dict[tuple[str, str], list[Image]] = {}
    for image in dataset.images:
        form = image.pixel_format
        if form is None:
            continue
        if form.kind != "8-bit":
            by_kind.setdefault(("image_scaled", "float" if form.kind == "float" else "16-bit"), []).append(image)
        if form.color:
            by_kind.setdefault(("image_converted", form.color), []).append(image)
        if form.has_frames:
            by_kind.setdefault(("image_has_frames", ""), []).append(image)
    for (code, kind), members in by_kind.items():
        count = f"{len(members)} image{'' if len(members) == 1 else 's'}"
        always = "the same in training, evaluation and prediction"
        if code == "image_converted":
            message = f"{kind} values are converted to RGB ({count})"
        elif code == "image_has_frames":
            message = f"the first of several frames or pages is used ({count})"
        elif kind == "float":
            message = f"float values from 0 to 1 are multiplied by 255 ({count}), {always}"
        else:
            message = f"16-bit values are divided by {_divisor(white or FULL_RANGE)} ({count}), {always}"
        yield Finding("info", code, members[0].file_name, message)


def _problems(images: Sequence[Image], depth: Depth) -> Iterator[tuple[int, Finding]]:
    """The images that cannot be used, by their ids."""
    checked: list[Image] = []
    large = dict(_too_large(images))
    if depth == "decoded":
        yield from large.items()
    for image in images:
        form = image.pixel_format
        if image.id in large:
            continue
        if depth != "header" or (form is not None and form.kind in ("float", "integer")):
            checked.append(image)
    if depth != "decoded":
        messages: Iterator[DataError | None] = (_problem(image, depth) for image in checked)
        yield from _errors_of(checked, messages)
        return
    from tqdm import tqdm

    # filters of warnings that threads set and restore at the same time end where they began
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(checked, "checking images", leave=False, unit=" images", delay=2, disable=None)
        yield from _errors_of(checked, pool.map(lambda image: _problem(image, depth), bar))


def _too_large(images: Sequence[Image]) -> Iterator[tuple[int, Finding]]:
    for image in images:
        if image.width_px * image.height_px > LARGEST_DECODED_PX:
            message = too_large(image.width_px, image.height_px)
            yield image.id, Finding("error", "image_too_large", image.file_name, message)


def _errors_of(images: Sequence[Image], errors: Iterator[DataError | None]) -> Iterator[tuple[int, Finding]]:
    for image, error in zip(images, errors, strict=True):
        if error is None:
            continue
        code = "image_unreadable" if error.expected is None else "image_out_of_range"
        values = f"; found {error.found}; expected {error.expected}" if error.expected is not None else ""
        yield image.id, Finding("error", code, image.file_name, error.message + values, hint=error.hint)


def _problem(image: Image, depth: Depth) -> DataError | None:
    """Why an image cannot be used, None where it can."""
    assert image.path is not None
    try:
        if image.pixel_format is not None and image.pixel_format.kind in ("float", "integer"):
            read_photo(image.path)
        else:
            check_photo(image.path, deep=depth == "decoded")
    except DataError as error:
        return error
    return None


def _without(dataset: Dataset, excluded: dict[int, str]) -> Dataset:
    """The dataset without some images, whose shapes are dropped in the ledger for the reasons given."""
    kept = dataset.subset([image.id for image in dataset.images if image.id not in excluded])
    old_ids = [instance.id for instance in dataset.instances if instance.image_id not in excluded]
    new_ids = {old: new for new, old in enumerate(old_ids, start=1)}
    reasons = {image.file_name: excluded[image.id] for image in dataset.images if image.id in excluded}

    def changed(row: LedgerRow) -> LedgerRow:
        if row.image in reasons:
            return replace(row, fate="dropped", instances=(), partners=1, message=reasons[row.image])
        return replace(row, instances=tuple(new_ids[number] for number in row.instances))

    return replace(kept, ledger=tuple(changed(row) for row in dataset.ledger))
