"""Images that lie in more than one split: scores on such images say nothing about new images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.model.findings import Finding
from d2tune.annotations.splitting.duplicates import duplicate_groups, equal_files
from d2tune.errors import DataError


@dataclass(frozen=True, slots=True)
class SharedImage:
    """An image of one split that another split has too.

    Attributes:
        first: The image in the earlier split.
        second: The image in the later split.
        splits: Names of the two splits.
        same_file: Whether both are the same file, also through links; False for two files of the same content.
    """

    first: Image
    second: Image
    splits: tuple[str, str]
    same_file: bool

    def message(self) -> str:
        """What is shared, in one sentence."""
        early, late = self.splits
        if self.same_file:
            return f"the image {self.second.file_name} of the {late} split is in the {early} split too"
        return (
            f"the image {self.second.file_name} of the {late} split has the same content as "
            f"{self.first.file_name} of the {early} split"
        )


Separate = Callable[[SharedImage], bool]
"""Whether the annotations of an image in two splits are on different pixels, so that the splits share nothing."""


def nowhere_separate(pair: SharedImage) -> bool:
    """For annotations that concern the whole image."""
    return False


def shared_images(
    splits: Mapping[str, Sequence[Image]], *, is_separate: Separate = nowhere_separate
) -> list[SharedImage]:
    """The images that two splits share, by their files and by the content of their files.

    Only files of equal size are read. Images without a file are not compared.

    Args:
        splits: Images by the name of the split, in the order train, val, test.
        is_separate: Excludes a pair.

    Returns:
        One for each image of a later split and each earlier split that has it.
    """
    order = list(splits)
    split_of = {id(image): name for name, images in splits.items() for image in images}
    pairs: list[SharedImage] = []
    for group in equal_files([image for images in splits.values() for image in images]):
        pairs += _shared([(split_of[id(image)], image) for image in group])
    pairs = [pair for pair in pairs if not is_separate(pair)]
    return sorted(pairs, key=lambda pair: ([order.index(name) for name in pair.splits], pair.second.file_name))


def _shared(members: Sequence[tuple[str, Image]]) -> Iterator[SharedImage]:
    """The pairs among images of equal content, each with the first image of every earlier split."""
    first_of: dict[str, Image] = {}
    for name, image in members:
        first_of.setdefault(name, image)
        for early, first in first_of.items():
            if early == name:
                break
            yield SharedImage(first, image, (early, name), _real(first) == _real(image))


def _real(image: Image) -> str:
    return "" if image.path is None else os.path.realpath(image.path)


def refuse_shared_images(splits: Mapping[str, Sequence[Image]], *, is_separate: Separate = nowhere_separate) -> None:
    """Check that no two splits have an image in common.

    Args:
        splits: Images by the name of the split.
        is_separate: Excludes a pair.

    Raises:
        DataError: Splits share images; the error has the first and their number.
    """
    shared = shared_images(splits, is_separate=is_separate)
    if not shared:
        return
    first = shared[0]
    early, late = first.splits
    count = len({pair.second.file_name for pair in shared if pair.splits == first.splits})
    raise DataError(
        first.message(),
        file=first.second.path,
        found=f"{count} of the {len(splits[late])} images of {late} in {early}",
        expected=f"different images in {early} and {late}",
        hint=sharing_hint(early, late),
    )


def sharing_hint(early: str, late: str) -> str:
    """How to separate two splits."""
    return f"Move them out of the folder or list of {early}, or set data.val to a fraction such as 0.2 of one folder."


def sharing_findings(
    splits: Mapping[str, Sequence[Image]], *, is_separate: Separate = nowhere_separate
) -> dict[str, list[Finding]]:
    """Findings about images that splits share, by the name of the later split.

    Args:
        splits: Images by the name of the split.
        is_separate: Excludes a pair of equal files.

    Returns:
        ``shared_image`` for equal content and ``near_duplicate`` for images that are near-duplicates across splits.
    """
    findings: dict[str, list[Finding]] = defaultdict(list)
    if len(splits) < 2:
        return {}
    equal = shared_images(splits)
    for pair in equal:
        if is_separate(pair):
            continue
        early, late = pair.splits
        file = pair.second.annotation_file or pair.second.file_name
        hint = sharing_hint(early, late)
        findings[late].append(
            Finding("error", "shared_image", file, pair.message(), hint=hint, also=(pair.first.file_name,))
        )
    known = {(id(pair.first), id(pair.second)) for pair in equal}
    for late, finding in _near(splits, known):
        findings[late].append(finding)
    return dict(findings)


def _near(splits: Mapping[str, Sequence[Image]], known: set[tuple[int, int]]) -> Iterator[tuple[str, Finding]]:
    """A finding for each image of a later split that is nearly an image of an earlier split."""
    entries = [(name, image) for name, images in splits.items() for image in images]
    numbered = [replace(image, id=number) for number, (_, image) in enumerate(entries)]
    for group in duplicate_groups(numbered):
        noted: set[int] = set()
        for first_id, second_id in combinations(group.image_ids, 2):
            (early, first), (late, second) = entries[first_id], entries[second_id]
            if early == late or second_id in noted or (id(first), id(second)) in known:
                continue
            noted.add(second_id)
            message = (
                f"the image {second.file_name} of the {late} split is nearly the same as "
                f"{first.file_name} of the {early} split"
            )
            file = second.annotation_file or second.file_name
            hint = "such images raise the scores; `d2tune split` keeps near-duplicates together"
            yield late, Finding("warning", "near_duplicate", file, message, hint=hint, also=(first.file_name,))
