"""Group-aware stratified splits: about the same mix of classes in each, and no group divided.

Groups are assigned one by one, those of the rarest class first, each to the split that lacks most of that class
(iterative stratification: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data", 2011), here
with instances counted instead of labels. Then single groups are moved while that brings the splits nearer to their
shares. A split without any instance of a class weighs more than all other differences. Up to a thousand groups are
assigned in several orders, of which the best is kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.output_record import NAME, SPLIT
from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.splitting.duplicates import DEFAULT_DISTANCE, HASH_BITS
from d2tune.annotations.splitting.groups import counted, group_images
from d2tune.errors import DataError

logger = logging.getLogger(__name__)

Counts = NDArray[np.float64]

_MISSING = 1e6
_LEAST_GAIN = 1e-9
_SWEEPS = 20
_BATCHES = 50
_FEW_GROUPS, _TRIES = 1000, 8
_GROUPS_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """How a dataset is divided.

    Attributes:
        val: Share of the images in the validation split; None is 0.2, or nothing where ``kfold`` is given.
        test: Share of the images in the test split.
        kfold: Number of folds to divide the rest into instead of training and validation.
        seed: Decides among divisions that are equally good.
        group_by: ``folder``, ``exif-time``, ``regex:PATTERN`` or None, see `group_images`.
        gap_s: Most seconds between two consecutive photos of a burst.
        duplicate_distance: Most bits in which near-duplicates differ; None does not look for them.
    """

    val: float | None = None
    test: float = 0.0
    kfold: int | None = None
    seed: int = 0
    group_by: str | None = None
    gap_s: float = 60.0
    duplicate_distance: int | None = DEFAULT_DISTANCE

    def shares(self) -> dict[str, float]:
        """Share of the images by the name of the split.

        Raises:
            DataError: A share is not between 0 and 1, or the number of folds is below 2.
        """
        val = 0.2 if self.val is None else self.val
        for name, share in (("val", val), ("test", self.test or 0.5)):
            if not 0 < share < 1:
                message = f"the share for {name} must be between 0 and 1"
                raise DataError(message, found=f"{share:g}", expected="0.2 for a fifth")
        if self.duplicate_distance is not None and not 0 <= self.duplicate_distance < HASH_BITS:
            message = f"the distance must be between 0 and {HASH_BITS - 1} bits"
            raise DataError(message, found=str(self.duplicate_distance))
        aside = {"test": self.test} if self.test else {}
        if self.kfold is None:
            if val + self.test >= 1:
                raise DataError("no images are left for training", found=f"shares of {val:g} and {self.test:g}")
            return {"train": 1 - val - self.test, "val": val} | aside
        if self.val is not None:
            raise DataError("a share for val and a number of folds cannot be combined", hint="Give one of them.")
        if self.kfold < 2:
            raise DataError("the number of folds must be 2 or more", found=str(self.kfold))
        return {f"fold{number}": (1 - self.test) / self.kfold for number in range(self.kfold)} | aside


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A dataset divided into splits.

    Attributes:
        dataset: What was divided.
        options: How.
        splits: Image ids by the name of the split: ``train``, ``val`` and ``test``, or ``fold0``, ``fold1``, ... and
            ``test``. Each image is in exactly one.
        groups: Image ids that were kept together.
        notes: How the groups were formed, one line each.
        warnings: What the splits lack, one line each.
    """

    dataset: Dataset
    options: SplitOptions
    splits: dict[str, tuple[int, ...]]
    groups: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def lists(self) -> dict[str, list[str]]:
        """Sorted file names by the list's own path: ``train.txt`` or ``fold0/train.txt``, ``fold0/val.txt``, ..."""
        name_of = {image.id: image.file_name for image in self.dataset.images}
        files = {name: sorted(name_of[image_id] for image_id in ids) for name, ids in self.splits.items()}
        folds = [name for name in files if name.startswith("fold")]
        lists = {f"{name}.txt": listed for name, listed in files.items() if name not in folds}
        for fold in folds:
            lists[f"{fold}/train.txt"] = sorted(file for name in folds if name != fold for file in files[name])
            lists[f"{fold}/val.txt"] = files[fold]
        return lists

    def counts(self) -> dict[str, dict[str, int]]:
        """Images, instances, negatives, groups and instances of each class, in this order, by the name of the split.

        Where there are crowds, they are not among the instances, and their number is the last.
        """
        table = _count(self.dataset, self.groups)
        split_of = {image_id: name for name, ids in self.splits.items() for image_id in ids}
        rows = {
            name: table[[split_of[group[0]] == name for group in self.groups]].sum(axis=0).astype(int).tolist()
            for name in self.splits
        }
        groups = {name: sum(split_of[group[0]] == name for group in self.groups) for name in self.splits}
        return {
            name: {"images": row[0], "instances": sum(row[2:]), "negatives": row[1], "groups": groups[name]}
            | {f"class {label}": count for label, count in zip(self.dataset.class_names, row[2:], strict=True)}
            | ({"crowds": self.dataset.subset(self.splits[name]).crowds} if self.dataset.crowds else {})
            for name, row in rows.items()
        }


def make_split(dataset: Dataset, options: SplitOptions | None = None) -> Split:
    """Divide a dataset.

    The result depends on the file names, the classes of the instances and the options, and on the images where
    near-duplicates and times are looked for; it does not depend on any order.

    Args:
        dataset: What to divide.
        options: How.

    Raises:
        DataError: An option is invalid, or there are fewer groups than splits.
    """
    options = options or SplitOptions()
    shares = options.shares()
    made = group_images(
        dataset.images,
        group_by=options.group_by,
        gap_s=options.gap_s,
        duplicate_distance=options.duplicate_distance,
    )
    if len(made.groups) < len(shares):
        raise DataError(
            f"the images cannot be divided into {len(shares)} splits",
            found="; ".join([f"{counted(len(made.groups), 'group')} of {len(dataset.images)} images", *made.notes]),
            expected=f"{len(shares)} or more",
        )
    counts = _count(dataset, made.groups)
    place = _placed(dataset, made.groups, counts, list(shares.values()), seed=options.seed)
    ids_of: dict[str, list[int]] = {name: [] for name in shares}
    for group, at in zip(made.groups, place, strict=True):
        ids_of[list(shares)[at]] += group
    splits = {name: tuple(sorted(ids)) for name, ids in ids_of.items()}
    unused = f"--group-by {options.group_by} matches no image, so it keeps no images together"
    warnings = [
        *([] if made.rule_applies else [unused]),
        *_missing(dataset, counts, place, list(shares)),
        *_too_large(dataset, made.groups, counts, shares, place),
    ]
    return Split(dataset, options, splits, made.groups, made.notes, tuple(warnings))


def split(dataset: Dataset, *, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Set some of the images aside for validation; near-duplicates stay together.

    Args:
        dataset: What to divide.
        fraction: Share of the images to set aside, between 0 and 1; at least one image is set aside and one remains.
        seed: As in `SplitOptions`.

    Returns:
        The training split and the validation split; ids count from 1 in each.

    Raises:
        DataError: All images are near-duplicates of one another.
    """
    made = make_split(dataset, SplitOptions(val=fraction, seed=seed))
    logger.info("%s", "; ".join(made.notes))
    for line in made.warnings:
        logger.warning("validation split: %s", line)
    return dataset.subset(made.splits["train"]), dataset.subset(made.splits["val"])


def _count(dataset: Dataset, groups: Sequence[Sequence[int]]) -> Counts:
    """Images, negatives and objects of every class in each group, ``(G, 2 + C)``; crowds are not counted."""
    row_of = {image_id: row for row, group in enumerate(groups) for image_id in group}
    column_of = {category.id: 2 + at for at, category in enumerate(dataset.categories)}
    counts = np.zeros((len(groups), 2 + len(column_of)))
    counts[:, 0] = [len(group) for group in groups]
    annotated = set()
    for instance in dataset.instances:
        counts[row_of[instance.image_id], column_of[instance.category_id]] += not instance.iscrowd
        annotated.add(instance.image_id)
    for image_id, row in row_of.items():
        counts[row, 1] += image_id not in annotated
    return counts


def _placed(
    dataset: Dataset, groups: Sequence[Sequence[int]], counts: Counts, shares: Sequence[float], *, seed: int
) -> NDArray[np.int64]:
    """The split of each group: the best of a few assignments, each in another order made from the seed."""
    name_of = {image.id: image.file_name for image in dataset.images}
    first = [name_of[group[0]].encode("utf-8", "surrogatepass") for group in groups]
    best, least = np.zeros(len(groups), dtype=int), float("inf")
    for number in range(_TRIES if len(groups) <= _FEW_GROUPS else 1):
        start = f"{seed}\t{number}\t".encode()
        order = sorted(range(len(groups)), key=lambda at: hashlib.sha256(start + first[at]).digest())
        place = np.empty(len(order), dtype=int)
        place[order] = distribute(counts[order], shares)
        cost = sum(
            float(_cost(counts[place == at].sum(axis=0), share, counts.sum(axis=0))) for at, share in enumerate(shares)
        )
        if cost < least - _LEAST_GAIN:
            best, least = place, cost
    return best


def distribute(counts: Counts, shares: Sequence[float]) -> NDArray[np.int64]:
    """Assign groups to splits.

    Args:
        counts: What each group has, ``(G, 2 + C)``: images, negatives, and instances of C classes.
        shares: The share of each of S splits; they add up to 1.

    Returns:
        The split of each group, ``(G,)``, from 0 to S - 1. Among splits that lack equally much, the first gets the
        group; among groups with equally many instances, the first is assigned first.
    """
    split_of = np.full(len(counts), -1)
    has = np.zeros((len(shares), counts.shape[1]))
    want = np.outer(shares, counts.sum(axis=0))
    while (left := split_of < 0).any():
        holders = (counts[left, 1:] > 0).sum(axis=0)
        column = 1 + int(np.argmin(np.where(holders > 0, holders, len(counts) + 1)))
        waiting = np.flatnonzero(left & (counts[:, column] > 0))
        waiting = waiting[np.argsort(-counts[waiting, column], kind="stable")]
        for done, group in enumerate(waiting):
            empty = np.flatnonzero(has[:, column] == 0)
            choice = empty if len(waiting) - done <= len(empty) else np.arange(len(shares))
            lack = (want - has)[choice]
            best = choice[np.lexsort((-lack[:, 0], -lack[:, column]))[0]]
            split_of[group] = best
            has[best] += counts[group]
    _improve(counts, shares, split_of, has)
    return split_of


def _improve(counts: Counts, shares: Sequence[float], split_of: NDArray[np.int64], has: Counts) -> None:
    """Move single groups, in place, while the splits come nearer to their shares; the best of each batch at a time."""
    batches = np.array_split(np.arange(len(counts)), min(len(counts), _BATCHES))
    for _ in range(_SWEEPS):
        moved = False
        for batch in batches:
            gains = _gains(counts[batch], split_of[batch], has, shares)
            row, best = np.unravel_index(gains.argmin(), gains.shape)
            if gains[row, best] < -_LEAST_GAIN:
                group = batch[row]
                has[split_of[group]] -= counts[group]
                has[best] += counts[group]
                split_of[group] = best
                moved = True
        if not moved:
            break


def _gains(counts: Counts, split_of: NDArray[np.int64], has: Counts, shares: Sequence[float]) -> Counts:
    """How the cost changes when each of G groups goes to each of S splits, ``(G, S)``; below 0 is better."""
    total = has.sum(axis=0)
    now = np.array([_cost(has[at], share, total) for at, share in enumerate(shares)])
    change = np.empty((len(counts), len(shares)))
    for at, share in enumerate(shares):
        change[:, at] = _cost(has[at] + counts, share, total) - now[at]
    for at, share in enumerate(shares):
        here = split_of == at
        change[here] += (_cost(has[at] - counts[here], share, total) - now[at])[:, None]
        change[here, at] = 0
    return change


def _cost(has: Counts, share: float, total: Counts) -> Counts:
    """How far a split is from its share: relative squared differences; images weigh twice as much as all classes.

    Args:
        has: What the split has, ``(..., 2 + C)``.
        share: Its share of everything.
        total: What the dataset has, ``(2 + C,)``.
    """
    off = (has / np.maximum(total, 1) - share) ** 2 / share
    must = np.arange(len(total)) != 1
    missing = ((has == 0) & (total > 0) & must).sum(axis=-1)
    cost: Counts = off[..., 1:].sum(axis=-1) + off[..., 0] * 2 * len(total) + _MISSING * missing
    return cost


def _missing(dataset: Dataset, counts: Counts, place: NDArray[np.int64], splits: Sequence[str]) -> list[str]:
    """A line for every class that some split has no instance of."""
    lines = []
    for column, name in enumerate(dataset.class_names, start=2):
        without = [split for at, split in enumerate(splits) if not counts[place == at, column].any()]
        number = int(np.count_nonzero(counts[:, column]))
        if not number:
            lines.append(f"no {name} in any image")
        elif without:
            where = f"it occurs in {counted(number, 'group')}"
            lines.append(f"no {name} in {', '.join(without)}: {where}")
    return lines


def _too_large(
    dataset: Dataset,
    groups: Sequence[Sequence[int]],
    counts: Counts,
    shares: Mapping[str, float],
    place: NDArray[np.int64],
) -> list[str]:
    """Lines for groups that are larger than the smallest split, and for splits far from their share."""
    total = len(dataset.images)
    smallest = min(shares, key=lambda name: shares[name])
    room = max(1, round(shares[smallest] * total))
    name_of = {image.id: image.file_name for image in dataset.images}
    large = sorted((group for group in groups if len(group) > room), key=len, reverse=True)
    lines = [
        f"the group of {name_of[group[0]]} has {len(group)} images, the share of {smallest} is {room}"
        for group in large[:_GROUPS_NAMED]
    ]
    if len(large) > _GROUPS_NAMED:
        lines.append(f"{len(large) - _GROUPS_NAMED} more groups have over {room} images")
    for at, (name, share) in enumerate(shares.items()):
        actual, wanted = int(counts[place == at, 0].sum()), share * total
        if abs(actual - wanted) > max(2, 0.1 * wanted):
            why = ": groups are not divided" if len(groups) < total else ""
            lines.append(f"{name} has {actual} images instead of {round(wanted)}{why}")
    return lines


def write_split(made: Split, out: Path, *, force: bool = False) -> list[Path]:
    """Write a list of file names for every split, one a line, and ``split.yaml`` with the options and counts.

    Args:
        made: What to write.
        out: The folder.
        force: Replace lists of an earlier split, and remove those that are not written again; files that are not of
            a split, or were changed since, stay.

    Returns:
        The files.

    Raises:
        DataError: A list of another split exists, or a file name has a line break and cannot be in a list.
    """
    for image in made.dataset.images:
        if not _fits_a_line(image.file_name):
            raise DataError(
                "the file name cannot be a line of a list",
                found=repr(image.file_name),
                hint="Rename it.",
            )
    content = {out / path: "".join(f"{name}\n" for name in names) for path, names in made.lists().items()}
    content[out / "split.yaml"] = _summary(made)
    encoded = {path: text.encode("utf-8", "surrogateescape") for path, text in content.items()}
    existing = [path for pattern in ("*.txt", "fold*/*.txt") for path in out.glob(pattern)]
    stale = [path for path in existing if path.name in ("train.txt", "val.txt", "test.txt") and path not in encoded]
    changed = [path for path, text in encoded.items() if not path.is_file() or path.read_bytes() != text]
    overwritten = sorted(path for path in (*changed, *stale) if path.exists())
    if overwritten and not force:
        raise DataError(
            "another split is there and is not overwritten",
            file=overwritten[0],
            hint="Write to another folder with --out, or replace it with --force.",
        )
    refuse_existing(overwritten, force=True, kind=SPLIT, is_own=_is_of_earlier_version)
    for path in stale:
        path.unlink()
        if path.parent != out and all(left.name == NAME for left in path.parent.iterdir()):
            (path.parent / NAME).unlink(missing_ok=True)
            path.parent.rmdir()
    for path in changed:
        write_output(path, encoded[path], kind=SPLIT)
    return list(encoded)


def _is_of_earlier_version(path: Path) -> bool:
    """Whether a file lies beside a ``split.yaml``, or in a fold, without a record of what was written."""
    if (path.parent / NAME).exists():
        return False
    folder = path.parent.parent if path.parent.name.startswith("fold") else path.parent
    try:
        text = (folder / "split.yaml").read_text("utf-8", errors="replace")
    except OSError:
        return False
    return text.startswith("options:") and "\nparts:" in text


def _fits_a_line(name: str) -> bool:
    """Whether a list can hold a file name: one line, and bytes that a file system can have."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(name.splitlines()) == 1


def _summary(made: Split) -> str:
    import yaml

    name_of = {image.id: image.file_name for image in made.dataset.images}
    summary = {
        "options": asdict(made.options),
        "parts": made.counts(),
        "notes": list(made.notes),
        "warnings": list(made.warnings),
        "groups": [[name_of[image_id] for image_id in group] for group in made.groups if len(group) > 1],
    }
    text: str = yaml.safe_dump(summary, sort_keys=False, allow_unicode=True, width=120)
    return text
