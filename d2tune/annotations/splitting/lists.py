"""Lists of images: text files with one file name a line, relative to the image root, as `splits` writes them."""

from __future__ import annotations

import dataclasses
import logging
import posixpath
from collections.abc import Set
from pathlib import Path

from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.ledger import LedgerRow
from d2tune.errors import DataError, nearest

logger = logging.getLogger(__name__)


def is_list(name: str | Path) -> bool:
    """Whether the name of a split's source is that of a list rather than of annotations."""
    return Path(name).suffix.lower() == ".txt"


def read_list(path: Path) -> dict[str, int]:
    """The line of each file name, from 1.

    Blank lines are skipped; Windows line ends, backslashes and a leading ``./`` are understood.

    Raises:
        DataError: The file cannot be read, names an image twice, or names none.
    """
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"the list cannot be read ({error.strerror})", file=path) from None
    names: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.removesuffix("\r")
        if not name.strip():
            continue
        name = posixpath.normpath(name.replace("\\", "/"))
        if name in names:
            hint = f"Line {names[name]} has it too."
            raise DataError("the list names an image twice", file=path, place=f"line {number}", found=name, hint=hint)
        names[name] = number
    if not names:
        raise DataError("the list is empty", file=path, expected="one file name a line")
    return names


def keep_listed(dataset: Dataset, path: Path, *, skip_bad: bool = False) -> Dataset:
    """The images of a dataset that a list names, with their instances, findings and ledger rows; ids count from 1.

    Args:
        dataset: What to choose from. Where it has errors, names that it lacks are not reported: the errors explain
            them.
        path: The list.
        skip_bad: Skip names that the dataset lacks, with a warning.

    Raises:
        DataError: The list cannot be read, or names an image that the dataset does not have.
    """
    lines = read_list(path)
    known = {image.file_name: image for image in dataset.images}
    unknown = [name for name in lines if name not in known]
    if unknown and skip_bad:
        logger.warning("%s: %d of the images are excluded, %s first", path, len(unknown), unknown[0])
    elif unknown and not dataset.errors():
        like = nearest(unknown[0], known)
        more = "" if len(unknown) == 1 else f" (and {len(unknown) - 1} more)"
        raise DataError(
            f"{unknown[0]} is not among the annotated images{more}",
            file=path,
            place=f"line {lines[unknown[0]]}",
            hint=f"Did you mean {like}?" if like else f"Names are relative to {dataset.image_root}.",
        )
    return keep_images(dataset, {name for name in known if name in lines})


def keep_images(dataset: Dataset, file_names: Set[str]) -> Dataset:
    """The images with those names, with their instances, findings and ledger rows; ids count from 1.

    Findings and ledger rows of files without an image stay.
    """
    kept = [image for image in dataset.images if image.file_name in file_names]
    files = {image.annotation_file for image in kept}
    dropped = {image.annotation_file for image in dataset.images} - files
    return dataclasses.replace(
        dataset.subset([image.id for image in kept]),
        findings=tuple(finding for finding in dataset.findings if finding.file not in dropped),
        ledger=_ledger(dataset, {image.id for image in kept}, dropped),
    )


def _ledger(dataset: Dataset, kept: set[int], dropped: set[str | None]) -> tuple[LedgerRow, ...]:
    """The ledger's rows of the kept images, and those without an image, with the instances' new ids."""
    old_ids = [instance.id for instance in dataset.instances if instance.image_id in kept]
    new_id = {old_id: number for number, old_id in enumerate(old_ids, start=1)}
    names = {image.file_name for image in dataset.images if image.id not in kept}
    return tuple(
        dataclasses.replace(row, instances=tuple(new_id[old_id] for old_id in row.instances))
        for row in dataset.ledger
        if row.image not in names and row.file not in dropped
    )


def refuse_shared(first: Path, second: Path) -> None:
    """Make sure that two lists have no image in common.

    Raises:
        DataError: Names the first image that is in both.
    """
    names = read_list(first)
    for name, number in read_list(second).items():
        if name in names:
            raise DataError(
                f"{name} is in {first} too, line {names[name]}",
                file=second,
                place=f"line {number}",
                hint="Remove it from one of the two lists.",
            )
