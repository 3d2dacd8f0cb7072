"""The base class of writers of predictions, which take results image by image and finish their files at the end."""

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
from d2tune.annotations.io.outputs import beside, refuse_existing
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.inference.results import Detections, LabelMap, PanopticMap

Result = TypeVar("Result", bound=Detections | LabelMap | PanopticMap)
Kept = TypeVar("Kept")

_SPOOLED_BYTES = 1 << 22
"""Bytes of the rows of a JSON file that are kept in memory; more go to a temporary file."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images to predict on.

    Attributes:
        root: The folder that names are relative to.
        paths: The image files, or folders of stacked files.
        source: All images of which these are some, so that output files have the names that they have among all of
            them; empty if these are all.
    """

    root: Path
    paths: Sequence[Path]
    source: Sequence[Path] = ()

    def only(self, indices: Sequence[int]) -> Images:
        """Some of the images; the names of their output files stay."""
        return Images(self.root, [self.paths[index] for index in indices], self.source or self.paths)

    def name(self, index: int) -> str:
        """The path of an image below the root, with forward slashes."""
        return self.paths[index].relative_to(self.root).as_posix()

    def names(self) -> list[str]:
        """The names of all images, in order."""
        return [self.name(index) for index in range(len(self.paths))]

    def output_files(self, folder: Path, suffix: str) -> list[Path]:
        """A file below ``folder`` for each image.

        Its name is that of the image with ``suffix`` in place of the image's suffix; where images differ only by their
        suffix, the new one is appended.
        """
        everything = self.source or self.paths
        # a dot in the name of a folder does not begin a suffix
        names = [path.relative_to(self.root).as_posix() + (".tif" if path.is_dir() else "") for path in everything]
        records = [Image(number, name, 0, 0) for number, name in enumerate(names)]
        outputs = dict(zip(everything, beside(records, folder, suffix).values(), strict=True))
        return [outputs[path] for path in self.paths]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """The options for writing predictions.

    Attributes:
        min_score: Lowest score of written instances, from 0 to 1.
        tolerance_px: Largest distance of outlines in Labelme files from the outlines of the masks.
        force: Whether existing files are overwritten.
    """

    min_score: float = 0.5
    tolerance_px: float = 1.0
    force: bool = False


class Writer(ABC, Generic[Result, Kept]):
    """Writes the predictions of many images, in memory that does not grow with their number.

    To be used as a context manager, which removes temporary files at the end.

    Args:
        out: The output folder.
        images: The images.
        predictor: The predictor of the task.
        options: The options for writing.
    """

    keeps_pixels = False
    """Whether `convert` needs the pixels of the image, to draw on them."""

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
        """Yield the return value of `convert` for each image in order, or the `DataError` of an unreadable image."""
        return iter(self.predictor.stream(self.images.paths, convert=self.convert, keep_pixels=self.keeps_pixels))

    @abstractmethod
    def convert(self, index: int, result: Result, pixels: Pixels | None) -> Kept:
        """Reduce a result to the values that `add` needs; called in a thread, not in the order of the images."""

    @abstractmethod
    def add(self, index: int, kept: Kept) -> int:
        """Add the next image in order; returns its number of instances or regions."""

    def finish(self) -> None:
        """Write the files that concern all images."""

    def image_of(self, index: int, height_px: int, width_px: int) -> Image:
        """The next image to be added, with an id counted from 1 in the order of `add`."""
        self.written += 1
        path = self.images.paths[index]
        return Image(self.written, self.images.name(index), width_px, height_px, path.absolute())


class LabelmeFiles(Writer[Result, tuple[int, int, int]]):
    """Writes a Labelme file for each image, for a person to correct.

    Raises:
        DataError: A file exists, and is not to be overwritten.
    """

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._files = images.output_files(out, ".json")
        refuse_existing(self._files, force=options.force)

    @abstractmethod
    def dataset(self, image: Image, result: Result) -> Dataset:
        """The image with an instance for each outline to write."""

    def convert(self, index: int, result: Result, pixels: Pixels | None) -> tuple[int, int, int]:
        """Write the file of the image; returns height and width of the image and its number of instances."""
        height_px, width_px = result.height_px, result.width_px
        image = Image(1, self.images.name(index), width_px, height_px, self.images.paths[index].absolute())
        dataset = self.dataset(image, result)
        path = self._files[index]
        files.write_json(path, labelme.file_content(dataset, path, tolerance_px=self.options.tolerance_px))
        return height_px, width_px, len(dataset.instances)

    def add(self, index: int, kept: tuple[int, int, int]) -> int:
        """Count the image and its instances."""
        height_px, width_px, instances = kept
        self.image_of(index, height_px, width_px)
        return instances


class JsonRows:
    """A JSON object of lists whose rows are appended in any order, written atomically at the end.

    Args:
        path: The file.
        lists: The keys in the order of the file, with None for lists to append to; other values are written as they
            are.
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
"""Makes a writer from its output folder, images, predictor and options."""
