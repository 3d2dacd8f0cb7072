"""A writer of several formats in one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.inference.writers.base import Images, Writer, WriterFactory, WriterOptions


class SeveralWriter(Writer[Any, list[Any]]):
    """Writes every result with each of several writers, whose files have different names.

    Args:
        out: The output folder of all of them.
        images: The images.
        predictor: The predictor of the task.
        options: The options for writing.
        factories: The writers.

    Raises:
        DataError: One of the writers writes during prediction, which no other can share.
    """

    def __init__(
        self,
        out: Path,
        images: Images,
        predictor: Any,
        options: WriterOptions,
        *,
        factories: Sequence[WriterFactory],
    ) -> None:
        super().__init__(out, images, predictor, options)
        self._writers: list[Writer[Any, Any]] = [
            self._stack.enter_context(factory(out, images, predictor, options)) for factory in factories
        ]
        if any(writer.predicts_itself for writer in self._writers):
            raise DataError(
                "label maps of rasters are written during their prediction, so no other format can be written too",
                place="--to",
                hint="Write one format at a time.",
            )
        self.keeps_pixels = any(writer.keeps_pixels for writer in self._writers)

    def files_of(self, index: int) -> list[Path]:
        """The files of all writers with the predictions of an image."""
        return [path for writer in self._writers for path in writer.files_of(index)]

    def folders_of(self, index: int) -> list[Path]:
        """The folders of all writers that hold files of an image alone."""
        return [path for writer in self._writers for path in writer.folders_of(index)]

    def drawings_of(self, index: int) -> list[Path]:
        """The files of all writers on which the predictions of an image are drawn."""
        return list(dict.fromkeys(path for writer in self._writers for path in writer.drawings_of(index)))

    def final_files(self) -> list[Path]:
        """The files of all writers that `finish` writes."""
        return [path for writer in self._writers for path in writer.final_files()]

    def content_at(self, target: Path, index: int, path: Path) -> bytes | None:
        """See `Writer`; from the writer that has the file."""
        contents = (writer.content_at(target, index, path) for writer in self._writers)
        return next((content for content in contents if content is not None), None)

    def convert(self, index: int, result: Any, pixels: Pixels | None) -> list[Any]:
        """What each writer keeps of a result."""
        return [writer.convert(index, result, pixels) for writer in self._writers]

    def add(self, index: int, kept: list[Any]) -> int:
        """Add the next image to each writer; returns the largest number of instances or regions."""
        added = [writer.add(index, one) for writer, one in zip(self._writers, kept, strict=True)]
        self.written += 1
        first = max(self._writers, key=lambda writer: writer.lower)
        self.lower, self.highest_lower = first.lower, first.highest_lower
        return max(added)

    def finish(self) -> None:
        """Write the files that concern all images."""
        for writer in self._writers:
            writer.finish()
