"""Writers of label maps: PNGs and TIFFs, drawings, Labelme files, or the CSV of a competition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output, write_output_json
from d2tune.annotations.io.rasters import Georeference
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.data.image_reader import Pixels
from d2tune.data.label_maps import encode_png
from d2tune.inference.results import LabelMap
from d2tune.inference.writers.base import Images, LabelmeFiles, Writer, WriterOptions, write_jpeg
from d2tune.inference.writers.image_files import overlay_image
from d2tune.inference.writers.raster_files import LabelTiff, Preview
from d2tune.inference.writers.rows import MapWriter, Size
from d2tune.inference.writers.submission import SubmissionFile, instances_of_map

CATEGORIES = "categories.json"


class LabelMapWriter(MapWriter):
    """Writes ``labels/NAME.png`` for photos and ``labels/NAME.tif`` for rasters.

    TIFFs are tiled, are written row by row during prediction, and keep the georeference of the raster.
    """

    def __init__(self, out: Path, images: Images, predictor: Any, options: WriterOptions) -> None:
        super().__init__(out, images, predictor, options)
        self._files = images.output_files(out / "labels", ".png")
        self.refuse_foreign()

    def files_of(self, index: int) -> list[Path]:
        """The label map of an image."""
        return [self._files[index].with_suffix(".tif") if self.rasters[index] else self._files[index]]

    def final_files(self) -> list[Path]:
        """``labels/categories.json``."""
        return [self.out / "labels" / CATEGORIES]

    def _write_photo(self, index: int, result: LabelMap, pixels: Pixels | None) -> None:
        write_output(self._files[index], encode_png(result.class_ids), kind=PREDICTIONS)

    def _rows_file(self, index: int, size: Size, georeference: Georeference | None) -> LabelTiff:
        (path,) = self.files_of(index)
        return LabelTiff(path, height_px=size[0], width_px=size[1], colors=self.colors, georeference=georeference)

    def finish(self) -> None:
        """Write ``labels/categories.json``."""
        rows = category_rows(self.predictor.class_names)
        write_output_json(self.out / "labels" / CATEGORIES, rows, kind=PREDICTIONS)


class MapOverlayWriter(MapWriter):
    """Writes ``NAME.predicted.jpg`` for photos and ``NAME.predicted.png`` for rasters: the classes in colors.

    The drawing of a photo has its size, and shows the photo where the background is; that of a raster is at most
    2,000 px long and does not show the raster.

    Args:
        out: See `Writer`.
        images: See `Writer`.
        predictor: See `Writer`.
        options: See `Writer`.
        background: The class of which photos get no color; None for none.
    """

    keeps_pixels = True

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options)
        self._background = background
        self._previews = images.output_files(out, ".predicted.png")
        self.refuse_foreign()

    def drawings_of(self, index: int) -> list[Path]:
        """The drawing, or the preview of a raster."""
        if self.rasters[index]:
            return [self._previews[index]]
        return [self.out / f"{self.images.name(index)}.predicted.jpg"]

    def _write_photo(self, index: int, result: LabelMap, pixels: Pixels | None) -> None:
        assert pixels is not None
        write_jpeg(self.drawings_of(index)[0], overlay_image(result, pixels, background=self._background))

    def _rows_file(self, index: int, size: Size, georeference: Georeference | None) -> Preview:
        return Preview(self._previews[index], height_px=size[0], width_px=size[1], colors=self.colors)


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
