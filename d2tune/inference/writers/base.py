"""What every writer of predictions does: take results as they come, and finish its files at the end."""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune import files
from d2tune.annotations.formats import labelme
from d2tune.annotations.io.outputs import beside
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels

Result = TypeVar("Result")
Kept = TypeVar("Kept")

_SPOOLED_BYTES = 1 << 22
"""Rows of a JSON file that wait in memory; more of them wait in a temporary file."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images that are predicted on.

    Attributes:
        root: The folder that names are relative to.
        paths: Their files, or the folders of files that are stacked.
    """

    root: Path
    paths: Sequence[Path]

    def name(self, index: int) -> str:
        """The path of an image below the root, with forward slashes."""
        return self.paths[index].relative_to(self.root).as_posix()

    def names(self) -> list[str]:
        """The names of all images, in order."""
        return [self.name(index) for index in range(len(self.paths))]

    def places(self, folder: Path, suffix: str) -> list[Path]:
        """A file below ``folder`` for each image; images that differ by their suffix alone keep it before the new."""
        # a point in the name of a folder begins no suffix
        named = [f"{name}.tif" if path.is_dir() else name for name, path in zip(self.names(), self.paths, strict=True)]
        return list(beside([Image(number, name, 0, 0) for number, name in enumerate(named)], folder, suffix).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """How predictions are written.

    Attributes:
        min_score: Least score of an instance, from 0 to 1.
        tolerance_px: How far outlines in Labelme files may lie from those of the masks.
        force: Whether files that are there are overwritten.
    """

    min_score: float = 0.5
    tolerance_px: float = 1.0
    force: bool = False


class Writer(ABC, Generic[Result, Kept]):
    """Writes the predictions of many images, in memory that does not grow with their number.

    Use it as a context manager: what waits in temporary files goes when the block ends.

    Args:
        out: Where the files go.
        images: The images.
        predictor: What predicts; its class names, and of a semantic one its rows, are used.
        options: How predictions are written.
    """

    keeps_pixels = False
    """Whether `convert` draws, and so needs the pixels of the image."""

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        self.out = out
        self.images = images
        self.predictor = predictor
        self.options = options
        self.written = 0
        self._stack = ExitStack()

    def __enter__(self) -> Writer[Result, Kept]:
        return self

    def __exit__(self, *reason: Any) -> None:
        self._stack.__exit__(*reason)

    def predictions(self) -> Iterator[Any]:
        """What `convert` kept of each image in order, or the `DataError` of an image that cannot be read."""
        return iter(self.predictor.stream(self.images.paths, convert=self.convert, keep_pixels=self.keeps_pixels))

    @abstractmethod
    def convert(self, index: int, result: Result, pixels: Pixels | None) -> Kept:
        """What is kept of a result until the turn of its image comes; called in a thread, not in order."""

    @abstractmethod
    def add(self, index: int, kept: Kept) -> int:
        """Take the next image; returns its number of instances or regions."""

    def finish(self) -> None:
        """Write what concerns all images."""

    def image_of(self, index: int, height_px: int, width_px: int) -> Image:
        """The record of an image that was written, numbered from 1 in the order of `add`."""
        self.written += 1
        path = self.images.paths[index]
        return Image(self.written, self.images.name(index), width_px, height_px, path.absolute())


class LabelmeFiles(Writer[Result, tuple[int, int, int]]):
    """Writes a Labelme file for each image, to be corrected and trained on."""

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._places = images.places(out, ".json")

    @abstractmethod
    def dataset(self, image: Image, result: Result) -> Dataset:
        """The image with an instance for everything that gets an outline."""

    def convert(self, index: int, result: Result, pixels: Pixels | None) -> tuple[int, int, int]:
        """Height and width of the image and its number of instances; its file is written."""
        height_px, width_px = result.height_px, result.width_px  # type: ignore[attr-defined]
        image = Image(1, self.images.name(index), width_px, height_px, self.images.paths[index].absolute())
        dataset = self.dataset(image, result)
        place = self._places[index]
        files.write_json(place, labelme.file_content(dataset, place, tolerance_px=self.options.tolerance_px))
        return height_px, width_px, len(dataset.instances)

    def add(self, index: int, kept: tuple[int, int, int]) -> int:
        """Count the image and its instances."""
        height_px, width_px, instances = kept
        self.image_of(index, height_px, width_px)
        return instances


class JsonRows:
    """A JSON file of lists whose rows come one after another, in any list, written atomically at the end.

    Args:
        path: The file.
        lists: The lists in the order in which the file has them; a value other than None is written as it is.
        stack: Closes the temporary files.
    """

    def __init__(self, path: Path, lists: Mapping[str, Any], stack: ExitStack) -> None:
        self._path = path
        self._fixed = dict(lists)
        self._streams: dict[str, IO[bytes]] = {
            key: stack.enter_context(tempfile.SpooledTemporaryFile(_SPOOLED_BYTES))  # noqa: SIM115
            for key, value in lists.items()
            if value is None
        }

    def add(self, key: str, row: Any) -> None:
        """Append a row to a list."""
        stream = self._streams[key]
        stream.write((", " if stream.tell() else "").encode() + _json(row))

    def write(self) -> None:
        """Write the file."""
        files.write_chunks(self._path, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        for number, (key, value) in enumerate(self._fixed.items()):
            yield (", " if number else "{").encode() + _json(key) + b": "
            if value is not None:
                yield _json(value)
                continue
            yield b"["
            stream = self._streams[key]
            stream.seek(0)
            while block := stream.read(1 << 20):
                yield block
            yield b"]"
        yield b"}\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", errors="backslashreplace")


def write_jpeg(path: Path, image_rgb: NDArray[np.uint8]) -> None:
    """Write an RGB image ``(H, W, 3)`` as a JPEG, atomically."""
    encoded = cv2.imencode(".jpg", image_rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    files.write_bytes(path, encoded.tobytes())


WriterFactory = Callable[[Path, Images, Any, WriterOptions], Writer[Any, Any]]
"""Makes a writer of one kind."""
