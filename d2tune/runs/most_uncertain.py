"""The images of a prediction that are worth labeling first."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.io.outputs import protected, refuse_existing, write_output
from d2tune.annotations.model.ledger import spreadsheet_cell
from d2tune.errors import DataError, ProjectError, check_range
from d2tune.inference.predictors.base import Predictor
from d2tune.inference.uncertainty import Uncertainty, most_uncertain, ranked
from d2tune.inference.writers.base import Images
from d2tune.inference.writers.journal import Journal, fingerprint, journal_path
from d2tune.modeling.loaded import LoadedModel
from d2tune.tasks import Task
from d2tune.text import counted

CSV_NAME = "uncertainty.csv"
"""Name of the table in the output folder."""

COLUMNS = ("rank", "image", "value", "chosen", "reason")

_JOURNAL = ".d2tune-uncertainty.jsonl"
_LABELED = -1
"""The entry of the journal with the images that had a Labelme file when the call began."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The images that are worth labeling first.

    Attributes:
        images: The images, most uncertain first; their output files have the names that they have among all images.
        skipped: A line for each image that was not looked at, with the reason.
        note: What was chosen from, on a line.
        table: The file with the value of each image.
        journal: What an interrupted call needs to make the same choice; to be removed when all files are written.
    """

    images: Images
    skipped: tuple[str, ...]
    note: str
    table: Path
    journal: Journal


def check_most_uncertain(count: int | None, to: str) -> None:
    """Check the option before the model is loaded.

    Args:
        count: How many images to choose; None if not given.
        to: The format of the predictions.

    Raises:
        ProjectError: The count is not 1 or more, or the format is not Labelme's.
    """
    if count is None:
        return
    check_range(count, place="--most-uncertain", least=1)
    if to != "labelme":
        raise ProjectError(
            "--most-uncertain chooses images to label",
            place="--to",
            found=to,
            expected="labelme",
            hint="Add --to labelme, or remove --most-uncertain.",
        )


def select(
    loaded: LoadedModel,
    task: Task,
    predictor: Predictor[Any, Any],
    images: Images,
    out: Path,
    *,
    count: int,
    force: bool = False,
    known: Sequence[Path] = (),
) -> Selection:
    """Choose the images that a model is most unsure of, and write the table of all of them.

    Images that have a Labelme file are not chosen, and neither are near-duplicates of such images or of chosen ones.
    An interrupted call with the same arguments goes on where it stopped, and chooses the same images.

    Args:
        loaded: The model.
        task: Its task.
        predictor: Its predictor, with the lowest scores.
        images: The images to choose from.
        out: The output folder of the Labelme files, which gets the table `CSV_NAME`.
        count: How many to choose.
        force: Whether images whose Labelme file is an unchanged prediction can be chosen.
        known: Further images whose near-duplicates are passed over.

    Raises:
        DataError: No image is left to choose, or the table is a file that d2tune did not write.
    """
    table = out / CSV_NAME
    with protected(lambda: [*images.paths, *loaded.files]):
        refuse_existing([table], force=True, kind=PREDICTIONS)
    scan = _scan(loaded, task, predictor, images, out, force=force)
    labeled = scan.labeled
    if len(labeled) == len(images.paths):
        scan.journal.remove()
        raise DataError(
            f"all {len(labeled)} images already have a Labelme file",
            file=out,
            hint="Name a folder with other images, or write to another folder with --out.",
        )
    values = scan.values(len(images.paths))
    known = [*known, *(images.paths[index] for index in labeled)]
    chosen, passed = most_uncertain(values, images.paths, count=count, known=known)
    if not chosen:
        raise _nothing_left(scan, passed, images)
    if _is_finished(scan, images.only(chosen), out):
        scan.journal.remove()
        return select(loaded, task, predictor, images, out, count=count, force=force, known=known)
    write_output(table, _csv(scan, values, chosen, passed, images).encode("utf-8"), kind=PREDICTIONS)
    note = f"{len(chosen)} of {counted(len(ranked(values)), 'image')} chosen, most uncertain first"
    note += f"; {counted(len(passed), 'near-duplicate')} passed over" if passed else ""
    skipped = [f"{images.paths[index]}: already has a Labelme file" for index in labeled]
    skipped += [entry["error"] for _, entry in sorted(scan.entries.items()) if isinstance(entry, dict)]
    return Selection(images.only(chosen), tuple(skipped), note, table, scan.journal)


@dataclass(frozen=True, slots=True)
class _Scan:
    """Images that were looked at.

    Attributes:
        labeled: Indices of the images that had a Labelme file when the call began.
        entries: Value and reason of each other image, or its error.
        journal: The file that has both.
        continues: Whether the journal was left by an interrupted call.
    """

    labeled: list[int]
    entries: Mapping[int, Any]
    journal: Journal
    continues: bool

    def values(self, images: int) -> list[float | None]:
        """The value of each of so many images; None where it has none."""
        entries = (self.entries.get(index) for index in range(images))
        return [entry[0] if isinstance(entry, list) else None for entry in entries]


def _scan(
    loaded: LoadedModel, task: Task, predictor: Predictor[Any, Any], images: Images, out: Path, *, force: bool
) -> _Scan:
    """Measure the images without a Labelme file that an interrupted call has not measured."""
    journal = Journal(out / _JOURNAL, _key(loaded, predictor, images))
    with journal:
        entries = {index: journal.entry(index) for index in sorted(journal.done)}
        labeled = entries.pop(_LABELED, None)
        if labeled is None:
            labeled = _labeled(images.output_files(out, ".json"), force=force)
            journal.add(_LABELED, labeled)
        done = {*labeled, *entries}
        left = [index for index in range(len(images.paths)) if index not in done]
        measure = task.uncertainty(predictor, loaded.cfg, share_with_objects=share_with_objects(loaded))
        with closing(measure.scan(images.paths, done=done)) as results:  # type: ignore[type-var]
            for index, result in zip(left, results, strict=True):
                entries[index] = _entry(result)
                journal.add(index, entries[index])
    return _Scan(labeled, entries, journal, journal.continues)


def _labeled(files: Sequence[Path], *, force: bool) -> list[int]:
    """The indices of the Labelme files that exist; with ``force``, not of unchanged predictions."""
    own = OwnFiles()
    there = [index for index, file in enumerate(files) if os.path.lexists(file)]
    return [index for index in there if not (force and own.is_unchanged(files[index], PREDICTIONS))]


def _is_finished(scan: _Scan, chosen: Images, out: Path) -> bool:
    """Whether the call that left the journal was interrupted after it had written all files."""
    written = all(os.path.lexists(file) for file in chosen.output_files(out, ".json"))
    return scan.continues and written and not journal_path(out, is_file=False).exists()


def _entry(result: Uncertainty | DataError) -> Any:
    if isinstance(result, DataError):
        return {"error": result.one_line()}
    return [round(result.value, 6), result.reason]


def share_with_objects(loaded: LoadedModel) -> float:
    """The share of images that are expected to have objects, from the counts of the training split in the record.

    With m objects per image, distributed at random over the images (Poisson), it is ``1 - exp(-m)``. 1 where the record
    has no counts.
    """
    data = loaded.record.get("data") or {}
    images, instances = data.get("train_images"), data.get("train_instances")
    if not images or not isinstance(instances, Mapping):
        return 1.0
    things = {category.name for category in loaded.categories if category.isthing}
    objects = sum(count for name, count in instances.items() if name in things)
    return 1 - math.exp(-objects / images)


def _key(loaded: LoadedModel, predictor: Predictor[Any, Any], images: Images) -> str:
    """A hash of everything that decides the values."""
    stats = [path.stat() if path.exists() else None for path in images.paths]
    return fingerprint(
        {
            "weights": loaded.weights_sha256,
            "config": loaded.config_sha256,
            "thresholds": predictor.min_scores,
            "root": str(images.root.absolute()),
            "images": [
                [images.name(index), stat and [stat.st_size, stat.st_mtime_ns]] for index, stat in enumerate(stats)
            ],
        }
    )


def _nothing_left(scan: _Scan, passed: Mapping[int, Path], images: Images) -> DataError:
    errors = [entry["error"] for entry in scan.entries.values() if isinstance(entry, dict)]
    scan.journal.remove()
    if not passed:
        return DataError("no image could be read", file=images.root, found=errors[0] if errors else None)
    return DataError(
        f"no image is left to choose: {counted(len(passed), 'near-duplicate')} of images with a Labelme file",
        file=images.root,
        hint="Predict on them without --most-uncertain, or name a folder with other images.",
    )


def _csv(scan: _Scan, values: list[float | None], chosen: list[int], passed: Mapping[int, Path], images: Images) -> str:
    """A row for each image with a value, most uncertain first."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for rank, index in enumerate(ranked(values), start=1):
        reason = scan.entries[index][1]
        if index in passed:
            reason = f"near-duplicate of {passed[index].name}; {reason}"
        name = spreadsheet_cell(images.name(index))
        table.writerow([rank, name, f"{values[index]:.4f}", "yes" if index in chosen else "no", reason])
    return text.getvalue()
