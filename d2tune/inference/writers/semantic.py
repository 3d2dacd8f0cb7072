"""Writers of label maps: PNGs and TIFFs with drawn images, Labelme files, or the CSV of a competition."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.io.output_record import DRAWING, PREDICTIONS, claim, settle
from d2tune.annotations.io.outputs import write_output, write_output_json
from d2tune.annotations.io.raster_files import ARRAY_SUFFIXES
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.data.label_maps import encode_png
from d2tune.errors import DataError
from d2tune.inference.loop import inference_mode
from d2tune.inference.results import LabelMap
from d2tune.inference.writers.base import Images, LabelmeFiles, Writer, WriterOptions, write_jpeg
from d2tune.inference.writers.raster_files import LabelTiff, Preview
from d2tune.inference.writers.submission import SubmissionFile, instances_of_map
from d2tune.report.sheets.label_overlay import colors, overlay, to_rgb

_TIFFS = (".tif", ".tiff")

CATEGORIES = "categories.json"

Size = tuple[int, int]
"""Height and width, in pixels."""


class LabelMapWriter(Writer[LabelMap, Size]):
    """Writes ``labels/NAME.png`` for photos and ``labels/NAME.tif`` for rasters, and a drawn image for each.

    TIFFs are tiled, are written row by row during prediction, and keep the georeference of the raster.
    """

    keeps_pixels = True

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._files = images.output_files(out / "labels", ".png")
        self._rasters = [self._is_raster(path) for path in images.paths]
        self.refuse_foreign()

    def files_of(self, index: int) -> list[Path]:
        """The label map of an image."""
        return [self._files[index].with_suffix(".tif") if self._rasters[index] else self._files[index]]

    def drawings_of(self, index: int) -> list[Path]:
        """The drawn image, or the preview of a raster."""
        if self._rasters[index]:
            below = self._files[index].relative_to(self.out / "labels")
            return [self.out / below.with_suffix(".predicted.png")]
        return [self.out / f"{self.images.name(index)}.predicted.jpg"]

    def final_files(self) -> list[Path]:
        """``labels/categories.json``."""
        return [self.out / "labels" / CATEGORIES]

    @property
    def predicts_itself(self) -> bool:
        """Whether some images are rasters."""
        return any(self._rasters)

    def batches(self) -> list[list[int]]:
        """See `Writer`; among rasters, each image is predicted alone."""
        return [[index] for index in range(len(self._rasters))] if any(self._rasters) else super().batches()

    def predictions(self, done: Collection[int] = (), *, within: range | None = None) -> Iterator[Any]:
        """See `Writer`; rasters are predicted row by row, photos as a stream."""
        if not any(self._rasters):
            yield from super().predictions(done, within=within)
            return
        with inference_mode(self.predictor.model):
            for index in range(len(self._rasters)) if within is None else within:
                if index in done:
                    continue
                try:
                    yield self._raster(index) if self._rasters[index] else self._photo(index)
                except DataError as error:
                    yield error

    def _is_raster(self, path: Path) -> bool:
        is_raster_file = path.suffix.lower() in (*_TIFFS, *ARRAY_SUFFIXES)
        return self.predictor.reader.raster is not None and (path.is_dir() or is_raster_file)

    def _raster(self, index: int) -> Size:
        """Predict a raster, and write rows as they are finished."""
        (path,), (preview,) = self.files_of(index), self.drawings_of(index)
        claim([path], PREDICTIONS)
        claim([preview], DRAWING)
        with self.predictor.open_rows(self.images.paths[index]) as label_map, ExitStack() as stack:
            height_px, width_px = label_map.height_px, label_map.width_px
            size: dict[str, Any] = {"height_px": height_px, "width_px": width_px}
            size["colors"] = colors(self.predictor.class_names)
            tiff = LabelTiff(path, georeference=label_map.georeference, **size)
            targets = stack.enter_context(tiff), stack.enter_context(Preview(preview, **size))
            for rows in label_map.rows:
                for target in targets:
                    target.write(rows)
        settle([path], PREDICTIONS)
        settle([preview], DRAWING)
        return height_px, width_px

    def _photo(self, index: int) -> Size | DataError:
        def convert(_: int, result: LabelMap, pixels: Pixels | None) -> Size:
            return self.convert(index, result, pixels)

        paths = [self.images.paths[index]]
        size: Size | DataError = next(
            iter(self.predictor.stream(paths, convert=convert, keep_pixels=True, show_progress=False))
        )
        return size

    def convert(self, index: int, result: LabelMap, pixels: Pixels | None) -> Size:
        """Write the label map and the drawn image; returns the size of the image."""
        assert pixels is not None
        write_output(self._files[index], encode_png(result.class_ids), kind=PREDICTIONS)
        image_rgb = overlay(to_rgb(pixels), result.class_ids, colors=colors(result.class_names))
        write_jpeg(self.drawings_of(index)[0], image_rgb)
        return result.height_px, result.width_px

    def add(self, index: int, kept: Size) -> int:
        """Count the image; returns 0, because label maps have no counted regions."""
        self.image_of(index, *kept)
        return 0

    def finish(self) -> None:
        """Write ``labels/categories.json``."""
        rows = category_rows(self.predictor.class_names)
        write_output_json(self.out / "labels" / CATEGORIES, rows, kind=PREDICTIONS)


class LabelmeRegionsWriter(LabelmeFiles[LabelMap]):
    """Writes Labelme files with an outline for each connected region.

    Args:
        out: See `Writer`.
        images: See `Writer`.
        predictor: See `Writer`.
        options: See `Writer`.
        background: The class that gets no outlines; None for none.
    """

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None
    ) -> None:
        super().__init__(out, images, predictor, options)
        self._background = background

    def dataset(self, image: Image, result: LabelMap) -> Dataset:
        """The connected regions of the map."""
        names = result.class_names
        masks = instances_of_map(result.class_ids, classes=names, background=self._background, connected=True)
        return dataset_of_masks([image], [masks], names)


class SubmissionWriter(Writer[LabelMap, Any]):
    """Writes the CSV of a competition.

    Args:
        out: A path that ends in ``.csv``, or a folder, which gets ``submission.csv``.
        images: See `Writer`.
        predictor: See `Writer`.
        options: See `Writer`.
        preset: The dialect of the CSV.
        background: The class that gets no rows; None for none.
    """

    replaces_earlier = False

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, preset: str, background: str | None
    ) -> None:
        super().__init__(out, images, predictor, options)
        self._path = out if out.suffix.lower() == ".csv" else out / "submission.csv"
        self.refuse_foreign()
        names = self.predictor.class_names
        self._file = SubmissionFile(
            self._path, names=images.names(), classes=names, preset=preset, background=background, stack=self._stack
        )

    def final_files(self) -> list[Path]:
        """The CSV."""
        return [self._path]

    def convert(self, index: int, result: LabelMap, pixels: Pixels | None) -> Any:
        """Height and width of the image, its number of instances by class, and its rows."""
        dataset, rows = self._file.rows(self.images.name(index), result.class_ids)
        return [result.height_px, result.width_px, dataset.counts(), rows]

    def add(self, index: int, kept: Any) -> int:
        """Append the rows of the image."""
        height_px, width_px, counts, rows = kept
        self.image_of(index, height_px, width_px)
        self._file.add(counts, rows)
        return sum(counts.values())

    def finish(self) -> None:
        """Write the CSV."""
        self._file.write()


def category_rows(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The content of ``categories.json``: the class of each value of the label maps in a folder."""
    return [{"label": class_id, "name": name} for class_id, name in enumerate(class_names)]


def write_categories(folder: Path, class_names: Sequence[str]) -> None:
    """Write ``categories.json`` to a folder."""
    files.write_json(folder / CATEGORIES, category_rows(class_names))
