"""The base class of writers of predictions, which take results image by image and finish their files at the end."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats import labelme
from d2tune.annotations.formats.labelme_outlines import Outlines
from d2tune.annotations.io.output_record import DRAWING, NAME, PREDICTIONS, OwnFiles
from d2tune.annotations.io.outputs import beside, output_json, refuse_existing, write_output, write_output_json
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.inference.results import Detections, LabelMap, PanopticMap
from d2tune.text import counted

logger = logging.getLogger(__name__)

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
        image_ids: Their ids in the annotation file that they are from; empty for ids from 1.
        category_ids: The ids of the classes there by their names; empty for ids from 1.
    """

    root: Path
    paths: Sequence[Path]
    source: Sequence[Path] = ()
    image_ids: Sequence[int | str] = ()
    category_ids: Mapping[str, int | str] = field(default_factory=dict)

    def only(self, indices: Sequence[int]) -> Images:
        """Some of the images; the names of their output files stay."""
        ids = [self.image_ids[index] for index in indices] if self.image_ids else ()
        paths = [self.paths[index] for index in indices]
        return Images(self.root, paths, self.source or self.paths, ids, self.category_ids)

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
        tolerance_px: Largest distance of outlines in Labelme files from the outlines of the masks.
        force: Whether Labelme files and CSVs that an earlier prediction wrote, if they were not changed, are replaced.
        min_area_px2: Smallest area of a region in Labelme files, None is `labelme_outlines.MIN_AREA_PX2`; and of an
            object that is measured, cut out or numbered in a PNG, None writes all.
        finished: Indices of images whose files are there and stay.
        kept: Indices of images whose Labelme file was there before and stays as it is.
        mm_per_px: Millimeters that a pixel stands for in tables of measures; None for measures in pixels alone.
    """

    tolerance_px: float = 1.0
    force: bool = False
    min_area_px2: float | None = None
    finished: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    mm_per_px: float | None = None


class Writer(ABC, Generic[Result, Kept]):
    """Writes the predictions of many images, in memory that does not grow with their number.

    To be used as a context manager, which removes temporary files at the end. The values that `convert` returns and
    `add` takes are of the types of JSON, so that they can be kept in a journal.

    Args:
        out: The output folder.
        images: The images.
        predictor: The predictor of the task.
        options: The options for writing.

    Attributes:
        lower: Number of instances below the lowest score.
        highest_lower: Their highest score; 0 where there are none.
    """

    keeps_pixels = False
    """Whether `convert` needs the pixels of the image, to draw on them."""
    replaces_earlier = True
    """Whether files of an earlier prediction are replaced without `WriterOptions.force`."""

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        self.out = out
        self.images = images
        self.predictor = predictor
        self.options = options
        self.written = 0
        self.lower = 0
        self.highest_lower = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        self._stack.__exit__(*reason)

    def batches(self) -> list[list[int]]:
        """The indices of all images, together those on which the model runs together."""
        return list(self.predictor.batches(self.images.paths))

    def predictions(self, done: Collection[int] = (), *, within: range | None = None) -> Iterator[Any]:
        """Yield the return value of `convert` for each image in order, or the `DataError` of an unreadable image.

        Args:
            done: Indices of images that are skipped.
            within: Only these images; None takes all. Results have the same bits where it begins and ends at multiples
                of `loop.LOOKAHEAD`.
        """
        at = range(len(self.images.paths)) if within is None else within

        def convert(place: int, result: Result, pixels: Pixels | None) -> Kept:
            return self.convert(at[place], result, pixels)

        return iter(
            self.predictor.stream(
                self.images.paths[at.start : at.stop],
                convert=convert,
                keep_pixels=self.keeps_pixels,
                show_progress=False,
                done={place for place, index in enumerate(at) if index in done},
            )
        )

    def files_of(self, index: int) -> list[Path]:
        """The files with the predictions of an image."""
        return []

    def folders_of(self, index: int) -> list[Path]:
        """The folders that hold files of an image alone."""
        return []

    def drawings_of(self, index: int) -> list[Path]:
        """The files on which the predictions of an image are drawn."""
        return []

    def files_of_entry(self, index: int, kept: Kept) -> list[Path]:
        """All files that `convert` wrote for an image, by what it returned."""
        return [*self.files_of(index), *self.drawings_of(index)]

    def is_kept(self, kept: Kept) -> bool:
        """Whether a file of an image was there before and stays as it is, by what `convert` returned."""
        return False

    def final_files(self) -> list[Path]:
        """The files that `finish` writes."""
        return []

    def content_at(self, target: Path, index: int, path: Path) -> bytes | None:
        """The content that a file of an image has at another place; None where it is the same at all places.

        Args:
            target: The other place.
            index: The image.
            path: The file, one of `files_of` or `drawings_of`.
        """
        return None

    def refuse_foreign(self) -> None:
        """Refuse to replace files that are not of an earlier prediction.

        Raises:
            DataError: A file exists.
        """
        force = self.options.force or self.replaces_earlier
        left = [index for index in range(len(self.images.paths)) if index not in self.options.finished]
        predictions = [*(path for index in left for path in self.files_of(index)), *self.final_files()]
        refuse_existing(predictions, force=force, kind=PREDICTIONS, is_own=self._is_of_earlier_version)
        drawings = [path for index in left for path in self.drawings_of(index)]
        refuse_existing(drawings, force=force, kind=DRAWING, is_own=self._is_of_earlier_version)

    def _is_of_earlier_version(self, path: Path) -> bool:
        """Whether a file lies in the folder of predictions in a run folder, where there is no record yet."""
        is_of_run = self.out.name == "predictions" and (self.out.parent / "record.json").is_file()
        return is_of_run and not (path.parent / NAME).exists()

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

    def image_row(self, index: int, height_px: int, width_px: int) -> dict[str, Any]:
        """The row of the next image in a COCO file, see `image_of`; its id is that of its annotation file."""
        image = self.image_of(index, height_px, width_px)
        image_id = self.images.image_ids[index] if self.images.image_ids else image.id
        return {"id": image_id, "file_name": image.file_name, "width": width_px, "height": height_px}

    def category_id(self, class_id: int) -> int | str:
        """The id of a class in a COCO file."""
        return self.images.category_ids.get(self.predictor.class_names[class_id], class_id + 1)

    def count_lower(self, scores: Sequence[float]) -> None:
        """Count the instances of an image that are below the lowest score."""
        self.lower += len(scores)
        self.highest_lower = max([self.highest_lower, *scores])


class LabelmeFiles(Writer[Result, list[Any]]):
    """Writes a Labelme file for each image, for a person to correct.

    A file that a person saves while the prediction runs stays as it is.

    Raises:
        DataError: A file exists, and is not to be overwritten.
    """

    replaces_earlier = False

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._files = images.output_files(out, ".json")
        self._outlines = Outlines(options.tolerance_px, options.min_area_px2)
        self._kept: list[Path] = []
        self.refuse_foreign()

    def files_of(self, index: int) -> list[Path]:
        """The Labelme file of an image."""
        return [] if index in self.options.kept else [self._files[index]]

    def files_of_entry(self, index: int, kept: list[Any]) -> list[Path]:
        """See `Writer`; none where a file was there before."""
        return [] if self.is_kept(kept) else [self._files[index]]

    def is_kept(self, kept: list[Any]) -> bool:
        """See `Writer`."""
        return kept[2] is None

    def content_at(self, target: Path, index: int, path: Path) -> bytes | None:
        """The Labelme file with the path of the image relative to another folder."""
        if path != self._files[index]:
            return None
        photo = labelme.image_path_at(self.images.paths[index].absolute(), target)
        return output_json(json.loads(path.read_bytes()) | {"imagePath": photo})

    @abstractmethod
    def dataset(self, image: Image, result: Result) -> Dataset:
        """The image with an instance for each outline to write."""

    def lower_scores(self, result: Result) -> list[float]:
        """The scores of instances below the lowest score, which the result does not have."""
        return []

    def convert(self, index: int, result: Result, pixels: Pixels | None) -> list[Any]:
        """Write the file of the image.

        Returns:
            Height and width of the image, its number of instances, lower scores, and the number of small regions; no
            number of instances where a file was there before and stays.
        """
        height_px, width_px = result.height_px, result.width_px
        if index in self.options.kept or self._is_of_person(self._files[index]):
            return [height_px, width_px, None, self.lower_scores(result), 0]
        image = Image(1, self.images.name(index), width_px, height_px, self.images.paths[index].absolute())
        dataset = self.dataset(image, result)
        path = self._files[index]
        outlines = Outlines(self.options.tolerance_px, self.options.min_area_px2)
        content = labelme.file_content(dataset, path, outlines=outlines)
        write_output_json(path, content, kind=PREDICTIONS)
        groups = [shape["group_id"] for shape in content["shapes"]]
        written = groups.count(None) + len({group for group in groups if group is not None})
        return [height_px, width_px, written, self.lower_scores(result), outlines.excluded]

    @staticmethod
    def _is_of_person(path: Path) -> bool:
        return os.path.lexists(path) and not OwnFiles().is_unchanged(path, PREDICTIONS)

    def add(self, index: int, kept: list[Any]) -> int:
        """Count the image and its instances."""
        height_px, width_px, instances, lower, excluded = kept
        if self.is_kept(kept):
            self._kept.append(self._files[index])
        self.image_of(index, height_px, width_px)
        self.count_lower(lower)
        self._outlines.excluded += excluded
        return int(instances or 0)

    def finish(self) -> None:
        """Log how many files were there before, and how many small regions were excluded."""
        if self._kept:
            files = counted(len(self._kept), "Labelme file")
            logger.warning("%s already there and not overwritten, such as %s", files, self._kept[0])
        self._outlines.log()


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
        write_output(self._path, self._chunks(), kind=PREDICTIONS)

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
    """Write an RGB image ``(H, W, 3)`` with drawn predictions as a JPEG, atomically."""
    encoded = cv2.imencode(".jpg", image_rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    write_output(path, encoded.tobytes(), kind=DRAWING)


WriterFactory = Callable[[Path, Images, Any, WriterOptions], Writer[Any, Any]]
"""Makes a writer from its output folder, images, predictor and options."""
