"""Shards: the images of a prediction divided among processes that need not know of each other."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.io.outputs import write_output_json
from d2tune.errors import ProjectError
from d2tune.inference.writers.base import Images, WriterOptions
from d2tune.inference.writers.journal import Journal, fingerprint
from d2tune.modeling.loaded import LoadedModel
from d2tune.versions import own_version

FORMAT = 1
"""Version of the files of a shard."""

MOST_SHARDS = 100_000

_TEXT = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several shards.

    Attributes:
        number: From 1.
        count: How many shards there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``2/8`` names.

        Raises:
            ProjectError: The text is not of this form, or the number is not among the shards.
        """
        hit = _TEXT.fullmatch(text.strip())
        expected = "NUMBER/COUNT with numbers from 1, such as 1/8 to 8/8"
        if hit is None:
            raise ProjectError("the shard is not valid", place="--shard", found=text, expected=expected)
        number, count = int(hit[1]), int(hit[2])
        if not (1 <= number <= count <= MOST_SHARDS):
            hint = "Shards count from 1." if number == 0 else None
            raise ProjectError("there is no such shard", place="--shard", found=text, expected=expected, hint=hint)
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """``2-of-8``, for names of files."""
        return f"{self.number}-of-{self.count}"

    def of(self, batches: Sequence[Sequence[int]], images: Images) -> list[int]:
        """The indices of the images of this shard, in order.

        Batches are dealt out one by one to the shard with the fewest images, large ones first and otherwise in the
        order of a hash of their first image's name, so that shards are about equal and neighbors such as frames of one
        scene are spread. A batch is not divided, because results depend, by rounding, on what the model runs on
        together.

        Args:
            batches: See `Writer.batches`.
            images: All images.
        """
        order = sorted(batches, key=lambda batch: (-len(batch), hashlib.sha256(_name(images, batch[0])).digest()))
        shards = [(0, number) for number in range(1, self.count + 1)]
        own: list[int] = []
        for batch in order:
            size, number = heapq.heappop(shards)
            heapq.heappush(shards, (size + len(batch), number))
            if number == self.number:
                own += batch
        return sorted(own)


def _name(images: Images, index: int) -> bytes:
    return images.name(index).encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The two files that describe a finished shard: ``shard-2-of-8.json`` and ``.jsonl`` with its entries.

    Attributes:
        folder: The output folder.
        shard: The shard.
        loaded: The model.
        images: All images.
        to: The formats.
        options: The options for writing.
        batches: See `Writer.batches`.
    """

    folder: Path
    shard: Shard
    loaded: LoadedModel
    images: Images
    to: str
    options: WriterOptions
    batches: Sequence[Sequence[int]]

    def write(
        self,
        journal: Journal,
        chosen: Sequence[int],
        *,
        skipped: Sequence[tuple[int, str]],
        missing: Sequence[str],
    ) -> None:
        """Write both files; the description comes last.

        Args:
            journal: Has the entries.
            chosen: The indices of the images of the shard.
            skipped: Index and reason of the images without predictions.
            missing: A line for each image that does not exist.
        """
        entries = self.folder / f"shard-{self.shard.suffix}.jsonl"
        journal.copy_to(entries)
        about = self._equal_for_all() | {
            "shard": self.shard.number,
            "root": str(self.images.root.absolute()),
            "images": [self._row(index) for index in chosen],
            "skipped": sorted(skipped),
            "missing": list(missing),
            "entries_sha256": files.sha256_file(entries),
        }
        write_output_json(self.folder / f"shard-{self.shard.suffix}.json", about, kind="predictions")

    def _row(self, index: int) -> list[Any]:
        """Index and name of an image, and its id where it has one in an annotation file."""
        row: list[Any] = [index, self.images.name(index)]
        return [*row, self.images.image_ids[index]] if self.images.image_ids else row

    def _equal_for_all(self) -> dict[str, Any]:
        """What all shards of a prediction have in common."""
        sizes = [path.stat().st_size if path.is_file() else None for path in self.images.paths]
        return {
            "format": FORMAT,
            "d2tune": own_version(),
            "shards": self.shard.count,
            "weights": self.loaded.weights_sha256,
            "config": self.loaded.config_sha256,
            "project": self.loaded.project_sha256,
            "to": self.to,
            "options": {**content_options(self.options), "thresholds": dict(self.loaded.thresholds)},
            "source": fingerprint({"images": list(zip(self.images.names(), sizes, strict=True))}),
            "images_in_all": len(self.images.paths),
            "batches": fingerprint({"batches": [list(batch) for batch in self.batches]}),
            "category_ids": dict(self.images.category_ids),
            "model": {
                "record": {name: self.loaded.record.get(name) for name in ("classes", "thing_ids", "input", "task")},
                "project": self.loaded.project.to_yaml(),
                "config": self.loaded.cfg.dump(),
            },
        }


def content_options(options: WriterOptions) -> Mapping[str, Any]:
    """The options that decide what files contain."""
    fields = dataclasses.asdict(options)
    return {name: value for name, value in fields.items() if name not in ("force", "finished", "kept")}
