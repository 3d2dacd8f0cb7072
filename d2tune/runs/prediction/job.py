"""Predicting on images and writing everything, so that an interrupted call goes on where it stopped."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from d2tune import files
from d2tune.annotations.io.output_record import PREDICTIONS, OwnFiles
from d2tune.annotations.io.outputs import protected
from d2tune.errors import DataError
from d2tune.inference.writers.base import Images, Writer, WriterOptions
from d2tune.inference.writers.journal import Journal, fingerprint, journal_path
from d2tune.modeling.loaded import LoadedModel
from d2tune.runs.load import predictor_of
from d2tune.runs.prediction.progress import Progress
from d2tune.runs.prediction.result import PredictionResult
from d2tune.runs.prediction.shards import Shard, ShardFiles, content_options
from d2tune.tasks import Task

Entries = Generator[tuple[int, Any], None, None]
"""The index of an image with what `Writer.convert` returned for it, or its `DataError`; in any order."""


class Workers(Protocol):
    """Predicts on other machines or in other processes."""

    def entries(self, prediction: Prediction, writer: Writer[Any, Any], left: Sequence[int]) -> Entries:
        """Predict on images, and write the files of each.

        Args:
            prediction: What to predict.
            writer: A writer like that of the workers.
            left: The indices of the images.
        """


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction whose arguments are checked.

    Attributes:
        loaded: The model.
        task: Its task.
        images: The images.
        target: The output folder, or the file of a CSV.
        to: The formats, see `Task.writer`.
        options: The options for writing.
        missing: A line for each image that does not exist.
        shard: Which images are predicted on; None for all.
        workers: Who predicts; None for this process.
    """

    loaded: LoadedModel
    task: Task
    images: Images
    target: Path
    to: str
    options: WriterOptions
    missing: tuple[str, ...] = ()
    shard: Shard | None = None
    workers: Workers | None = None

    def run(self) -> PredictionResult:
        """Predict on the images that are not finished, and write everything."""
        suffix = f"-{self.shard.suffix}" if self.shard else ""
        is_file = self.task.chosen(self.to) == ["csv"] and self.shard is None
        with Journal(journal_path(self.target, is_file=is_file, suffix=suffix), self._key()) as journal:
            replaces = self.options.force or journal.continues
            chosen_formats = self.task.chosen(self.to)
            has_labelme, is_labelme = "labelme" in chosen_formats, chosen_formats == ["labelme"]
            kept = self._with_labelme_file(journal) if has_labelme else {}
            if is_labelme:
                self._refuse_nothing_left(kept, replaces=replaces)
            journal.kept |= frozenset(kept)
            existing = kept if is_labelme else {}  # other formats have all images
            finished = frozenset(journal.done | set(existing))
            options = dataclasses.replace(self.options, finished=finished, kept=frozenset(kept), force=replaces)
            with protected(self._inputs), self.writer(options) as writer:
                batches = writer.batches() if self.shard else []
                chosen = self.shard.of(batches, self.images) if self.shard else range(len(self.images.paths))
                if journal.continues:
                    remove_temporary(writer, chosen)
                added = self._write(writer, journal, [index for index in chosen if index not in existing])
                if self.shard is None:
                    writer.finish()
                else:
                    skipped = [(index, existing[index]) for index in chosen if index in existing]
                    self._shard_files(self.shard, batches).write(
                        journal, chosen, skipped=[*skipped, *added.failed.items()], missing=self.missing
                    )
                journal.remove()
                return self._result(writer, added, [existing[index] for index in chosen if index in existing])

    def writer(self, options: WriterOptions) -> Writer[Any, Any]:
        """The writer of the formats, with a predictor of the model."""
        predictor = predictor_of(self.loaded)
        return self.task.writer(self.to, self.target, self.images, predictor, options, self.loaded.project)

    def _result(self, writer: Writer[Any, Any], added: _Added, existing: Sequence[str]) -> PredictionResult:
        return PredictionResult(
            self.target,
            writer.written,
            added.instances,
            (*self.missing, *existing, *(line for _, line in sorted(added.failed.items()))),
            self.task.name,
            max(self.loaded.thresholds.values()),
            writer.lower,
            writer.highest_lower,
            shard=str(self.shard or ""),
        )

    def _write(self, writer: Writer[Any, Any], journal: Journal, chosen: Sequence[int]) -> _Added:
        """Add images in order, from the journal where they are finished."""
        wanted = set(chosen)
        done = {
            index
            for index in journal.done & wanted
            if all(os.path.lexists(path) for path in writer.files_of_entry(index, journal.entry(index)))
        }
        left = [index for index in chosen if index not in done]
        added = _Added(writer, journal, deque(chosen), done)
        try:
            added.advance()
            with Progress(len(chosen), len(done)) as progress, closing(self._entries(writer, left)) as entries:
                for index, entry in entries:
                    added.take(index, entry)
                    progress.update()
        except KeyboardInterrupt:
            count = len(added.done) + len(added.failed)
            raise KeyboardInterrupt(
                f"interrupted after {count} of {len(chosen)} images; the same command goes on from there"
            ) from None
        if not writer.written and self.shard is None:
            raise DataError("no image could be read", file=self.images.root, found=min(added.failed.items())[1])
        return added

    def _entries(self, writer: Writer[Any, Any], left: Sequence[int]) -> Entries:
        if self.workers is not None:
            yield from self.workers.entries(dataclasses.replace(self, options=writer.options), writer, left)
            return
        others = set(range(len(self.images.paths))) - set(left)
        with closing(writer.predictions(others)) as results:  # type: ignore[type-var]
            yield from zip(left, results, strict=True)

    def _with_labelme_file(self, journal: Journal) -> dict[int, str]:
        """A line by index for each image that is not finished and whose Labelme file stays.

        Files of earlier predictions are replaced, if they were not changed, with ``force`` and where the interrupted
        call wrote them.
        """
        outputs, own = self.images.output_files(self.target, ".json"), OwnFiles()
        lines: dict[int, str] = {}
        for index, (path, output) in enumerate(zip(self.images.paths, outputs, strict=True)):
            if index in journal.done or not os.path.lexists(output):
                continue
            replaces = self.options.force or (journal.continues and index not in journal.kept)
            if replaces and own.is_unchanged(output, PREDICTIONS):
                continue
            exists = "is not from a prediction, or was changed since" if replaces else "already exists"
            lines[index] = f"{path}: {output.name} {exists}"
        return lines

    def _refuse_nothing_left(self, existing: Mapping[int, str], *, replaces: bool) -> None:
        """Refuse to write Labelme files where all images have one."""
        if len(existing) == len(self.images.paths) and self.shard is None:
            raise DataError(
                f"all {len(existing)} images already have a Labelme file",
                file=self.images.output_files(self.target, ".json")[0],
                hint="Write to another folder with --out"
                + (
                    "; files that are not from a prediction, or were changed since, are not overwritten."
                    if replaces
                    else ", or overwrite those of earlier predictions with --force."
                ),
            )

    def _inputs(self) -> list[Path]:
        """The files that are read."""
        return [*self.images.paths, *self.loaded.files]

    def _shard_files(self, shard: Shard, batches: Sequence[Sequence[int]]) -> ShardFiles:
        return ShardFiles(
            self.target, shard, self.loaded, self.images, to=self.to, options=self.options, batches=batches
        )

    def _key(self) -> str:
        """A hash of everything that decides the content of the files."""
        stats = [path.stat() if path.exists() else None for path in self.images.paths]
        return fingerprint(
            {
                "weights": self.loaded.weights_sha256,
                "config": self.loaded.config_sha256,
                "project": self.loaded.project_sha256,
                "thresholds": dict(self.loaded.thresholds),
                "to": self.to,
                "options": content_options(self.options),
                "shard": str(self.shard or ""),
                "root": str(self.images.root.absolute()),
                "images": [
                    [self.images.name(index), stat and [stat.st_size, stat.st_mtime_ns]]
                    for index, stat in enumerate(stats)
                ],
                "ids": [list(self.images.image_ids), dict(self.images.category_ids)],
            }
        )


@dataclass(slots=True)
class _Added:
    """Adds images to a writer in order, however they come.

    Attributes:
        writer: The writer.
        journal: Has the finished images.
        left: The indices of the images that are not added yet, in order.
        done: The indices of the finished images.
        failed: A line by index for each image that cannot be read.
        instances: Number of instances or regions that were added.
    """

    writer: Writer[Any, Any]
    journal: Journal
    left: deque[int]
    done: set[int]
    failed: dict[int, str] = field(default_factory=dict)
    instances: int = 0

    def take(self, index: int, entry: Any) -> None:
        """Take the entry of an image, or its error, and add all images whose turn it is."""
        if isinstance(entry, DataError):
            self.failed[index] = entry.one_line()
        else:
            self.journal.add(index, entry)
            self.done.add(index)
        self.advance({index: entry})

    def advance(self, fresh: Mapping[int, Any] | None = None) -> None:
        """Add all images whose turn it is.

        Args:
            fresh: Entries that need not be read from the journal.
        """
        while self.left and (self.left[0] in self.done or self.left[0] in self.failed):
            at = self.left.popleft()
            if at in self.done:
                entry = fresh[at] if fresh and at in fresh else self.journal.entry(at)
                self.instances += self.writer.add(at, entry)


def remove_temporary(writer: Writer[Any, Any], indices: Collection[int]) -> None:
    """Remove the temporary files that a killed call has left beside the files of a writer.

    Args:
        writer: The writer.
        indices: The images of that call; other processes may write those of others.
    """
    outputs = [path for index in indices for path in (*writer.files_of(index), *writer.drawings_of(index))]
    names: dict[Path, set[str]] = {}
    for path in (*outputs, *writer.final_files()):
        names.setdefault(path.parent, set()).add(path.name[:40])
    own = {folder for index in indices for folder in writer.folders_of(index)}
    for folder in {*names, *own}:
        for path in folder.glob(".*.tmp"):
            name = files.temporary_of(path)
            if name is not None and (folder in own or name in names[folder]):
                path.unlink(missing_ok=True)
