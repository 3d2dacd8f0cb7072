"""Run-length CSV of Kaggle's competitions: 1-indexed "start length" pairs, in the dialect of a competition.

The files do not define whether pixels are counted along rows or along columns, so the dialect is an option and never
guessed.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.mask_files import components as components
from d2tune.annotations.formats.shared.parts import mask_part, unite
from d2tune.annotations.formats.shared.sources import Folders, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch, decode_mask, mask_runs, union_segmentations
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.outputs import refuse_existing
from d2tune.annotations.io.places import Place, walk_files
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError, nearest
from d2tune.files import write_bytes
from d2tune.text import describe

# The runs of a large mask are longer than the 128 KB that the csv module allows by default.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True, slots=True)
class Preset:
    """A dialect.

    Attributes:
        headers: Its possible column names; the first is written.
        by_rows: Whether pixels are counted along rows; else down columns.
        has_classes: Whether rows have a class.
        row_per_instance: Whether each instance has a row; else each class of an image.
    """

    headers: tuple[tuple[str, ...], ...]
    by_rows: bool = False
    has_classes: bool = False
    row_per_instance: bool = False


PRESETS = {
    "carvana": Preset((("img", "rle_mask"),), by_rows=True),
    "airbus": Preset((("ImageId", "EncodedPixels"),), row_per_instance=True),
    "severstal": Preset(
        (("ImageId", "ClassId", "EncodedPixels"), ("ImageId_ClassId", "EncodedPixels")), has_classes=True
    ),
}
"""The dialects that ``--preset`` takes."""


class RunError(ValueError):
    """Run-length text that is not valid."""


def preset_of(header: Sequence[str]) -> str | None:
    """The dialect with these columns; None where no dialect has them."""
    columns = tuple(name.strip() for name in header)
    return next((name for name, preset in PRESETS.items() if columns in preset.headers), None)


def parse_runs(text: str, *, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts from 0 and lengths, both ``(R,)``, ascending.

    Args:
        text: "start length" pairs, starts from 1.
        pixels: How many pixels the image has.

    Raises:
        RunError: A value is not a number or 0, their count is odd, or a run ends beyond the image or overlaps another.
    """
    words = text.split()
    if not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
        raise RunError("the runs are not all whole numbers")
    if len(words) % 2:
        raise RunError(f"there are {len(words)} numbers, expected pairs of start and length")
    values = np.array(words, dtype=np.int64).reshape(-1, 2)
    if not np.all(values > 0):
        raise RunError("a run starts at 0 or has the length 0; pixels are counted from 1")
    starts, lengths = values[:, 0] - 1, values[:, 1]
    if np.any(starts + lengths > pixels):
        raise RunError(f"a run ends at pixel {int(np.max(starts + lengths))}, the image has {pixels}")
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    if np.any(starts[1:] < starts[:-1] + lengths[:-1]):
        raise RunError("two runs overlap")
    return starts, lengths


def runs_to_mask(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], *, width_px: int, height_px: int, by_rows: bool
) -> Mask:
    """The pixels ``(H, W)`` of the runs that `parse_runs` returns."""
    steps = np.zeros(width_px * height_px + 1, dtype=np.int8)
    np.add.at(steps, starts, 1)
    np.subtract.at(steps, starts + lengths, 1)
    flat = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
    return flat.reshape(height_px, width_px) if by_rows else flat.reshape(width_px, height_px).T


def mask_to_text(mask: Mask, *, by_rows: bool) -> str:
    """Run-length text of a mask ``(H, W)``: 1-indexed "start length" pairs, ascending."""
    starts, lengths = mask_runs(mask.T if by_rows else mask)
    return " ".join(map(str, np.stack([starts + 1, lengths], axis=1).reshape(-1).tolist()))


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a run-length CSV file, or all such files of a folder.

    Args:
        source: Folder or CSV file; images are beside it or under ``options.image_root``, also in subfolders.
        options: How to read; ``preset`` is needed, and ``class_name`` where the dialect has no classes.

    Raises:
        DataError: The source does not exist or has no CSV file, or the dialect or the class is missing.
    """
    source = Path(source).absolute()
    if not source.exists():
        raise DataError("there is no such file or folder", file=source)
    preset = _preset(options.preset, source)
    if not preset.has_classes and options.class_name is None and options.only_class is None:
        raise DataError(
            "this dialect names no class", file=source, hint="Name the class with data.class_name or --class-name."
        )
    folders = folders_of(source, options)
    names = (
        [source.name] if source.is_file() else [name for name in folders.walk() if name.lower().endswith(".csv")]
    )
    by_name = _images_by_name(folders.root)
    units: list[Unit] = []
    for name in names:
        units += _File(name, folders, options, preset, by_name).read()
    if not names:
        raise DataError("the folder contains no CSV file", file=source)
    claimed = [unit.image.file_name for unit in units if unit.image is not None]
    return assemble(units + unlabeled_units(folders, options, claimed), options, root=folders.root)


def _preset(name: str | None, file: Path | None) -> Preset:
    if name is None or name not in PRESETS:
        near = nearest(name, PRESETS) if name else None
        raise DataError(
            "run-length CSV needs a dialect, which defines how pixels are counted",
            file=file,
            found="none" if name is None else repr(name),
            expected=", ".join(PRESETS),
            hint=f"Did you mean {near!r}?" if near else "Name it with data.csv_preset or --preset.",
        )
    return PRESETS[name]


def _images_by_name(root: Path) -> dict[str, list[str]]:
    """Images under a folder by base name: competitions unpack them into other folders."""
    by_name: dict[str, list[str]] = {}
    for name in walk_files(root):
        if is_image_name(name):
            by_name.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    return by_name


@dataclass(frozen=True, slots=True)
class _File:
    """A CSV file that is read."""

    name: str
    folders: Folders
    options: ReadOptions
    preset: Preset
    by_name: dict[str, list[str]]

    def read(self) -> list[Unit]:
        """A unit for each image of the file, and a unit for findings without an image."""
        whole = Unit(self.name)
        try:
            text, is_utf8 = decode_text(read_bytes(self.folders.source / self.name))
        except (OSError, JsonError) as error:
            whole.note("error", "bad_rle", f"the file cannot be read ({error})", line=1)
            return [whole]
        if not is_utf8:
            whole.note("warning", "not_utf8", "the file is not UTF-8; it was read as GB18030", hint="save it as UTF-8")
        rows = csv.reader(io.StringIO(text, newline=""))
        units: dict[str, Unit] = {}
        labels = Labels(self.options)
        try:
            header = tuple(cell.strip() for cell in next(rows, []))
            if header not in self.preset.headers:
                expected = " or ".join(",".join(columns) for columns in self.preset.headers)
                message = f"the columns are {describe(','.join(header))}, expected {expected}"
                whole.note("error", "bad_rle", message, line=1)
                return [whole]
            for index, row in enumerate(rows):
                self._read_row(index, row, rows.line_num, header, units, whole, labels)
        except csv.Error as error:
            whole.note("error", "bad_rle", f"the line is not valid CSV ({error})", line=rows.line_num)
        return [whole, *units.values()] if whole.findings else list(units.values())

    def _read_row(
        self,
        index: int,
        row: list[str],
        line: int,
        header: tuple[str, ...],
        units: dict[str, Unit],
        whole: Unit,
        labels: Labels,
    ) -> None:
        if not any(cell.strip() for cell in row):
            return
        if len(row) != len(header):
            message = f"the line has {len(row)} columns, expected {len(header)}"
            whole.note("error", "bad_rle", message, line=line)
            return
        image, label, runs = self._cells(row, header)
        unit = units.get(image)
        if unit is None:
            unit = units[image] = Unit(self.name)
            measure(self._find(image), unit, line=line)
        if label is None:
            unit.note("error", "bad_rle", f"{image!r} does not end in an underscore and a class", line=line)
        elif unit.image is None:
            unit.exclude([index])
        elif runs.strip():
            self._read_runs(index, label, runs, line, unit, labels)

    def _cells(self, row: list[str], header: tuple[str, ...]) -> tuple[str, str | None, str]:
        """Image, class and runs of a row; the class is None where it is missing."""
        if not self.preset.has_classes:
            return row[0].strip(), self.options.class_name or self.options.only_class, row[1]
        if len(header) == 3:
            return row[0].strip(), row[1], row[2]
        image, _, label = row[0].strip().rpartition("_")
        return (image, label, row[1]) if image and label else (row[0].strip(), None, row[1])

    def _find(self, image: str) -> Place:
        place = self.folders.finder.find(image, folders=self.folders.search_from(self.folders.source / self.name))
        candidates = self.by_name.get(image, [])
        if place.path is None and len(candidates) == 1:
            return Place(self.folders.root / candidates[0], candidates[0])
        return place

    def _read_runs(self, index: int, label: str, text: str, line: int, unit: Unit, labels: Labels) -> None:
        assert unit.image is not None
        width_px, height_px = unit.image.width_px, unit.image.height_px
        name = labels.read(label, unit, None, line=line)
        if name is None:
            return
        try:
            starts, lengths = parse_runs(text, pixels=width_px * height_px)
        except RunError as error:
            unit.note("error", "bad_rle", str(error), line=line)
            return
        mask = runs_to_mask(starts, lengths, width_px=width_px, height_px=height_px, by_rows=self.preset.by_rows)
        for piece in components(mask) if self.options.split_components else [mask]:
            part = mask_part(Patch(piece, 0, 0), unit, index)
            if part is not None:
                unit.drafts.append(unite(name.label, [part], unit))


def write(
    dataset: Dataset,
    out: Path,
    *,
    preset: str | None,
    like: Path | None = None,
    columns: tuple[str, ...] | None = None,
    force: bool = False,
) -> list[Path]:
    """Write a run-length CSV file.

    Args:
        dataset: What to write.
        out: The file, where it ends in ``.csv``; else a folder, which gets ``masks.csv``.
        preset: The dialect.
        like: A CSV file of the same dialect whose columns are used; ``ImageId_ClassId`` gets a row for every class.
            Where its masks are those of the dataset, in any order, its content is written unchanged.
        columns: Columns to write where ``like`` does not decide them; None takes the first of the dialect.
        force: Whether an existing file is overwritten.

    Returns:
        The files written.

    Raises:
        DataError: The dialect is missing, or the file exists.
    """
    dialect = _preset(preset, None)
    present = {instance.category_id for instance in dataset.instances}
    refuse_several_classes(dialect, [category.name for category in dataset.categories if category.id in present])
    path = out if out.suffix.lower() == ".csv" else out / "masks.csv"
    refuse_existing([path], force=force)
    header = _header_like(like, dialect) or columns or dialect.headers[0]
    groups = dataset.by_image()
    rows: list[list[str]] = []
    for image in dataset.images:
        size = (image.width_px, image.height_px)
        rows += _rows(image.file_name, groups[image.id], size, dataset, dialect, header)
    images = {_base_name(image.file_name) for image in dataset.images}
    content = None if like is None else _unchanged(like, dialect, rows, images)
    if content is None:
        stream = io.StringIO()
        # the writer quotes line feeds, but not carriage returns
        has_returns = any("\r" in cell for row in rows for cell in row)
        table = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL)
        table.writerows([header, *rows])
        content = stream.getvalue().encode("utf-8", errors="backslashreplace")
    write_bytes(path, content)
    return [path]


def refuse_several_classes(dialect: Preset, class_names: Collection[str]) -> None:
    """Refuse instances of several classes in a dialect without classes.

    Raises:
        DataError: Names the classes.
    """
    if not dialect.has_classes and len(class_names) > 1:
        raise DataError(
            "this dialect names no class, and the annotations have several",
            found=", ".join(class_names),
            hint="Choose one with --drop, or the dialect severstal.",
        )


def rows_of(dataset: Dataset, *, preset: str, columns: tuple[str, ...]) -> list[list[str]]:
    """The rows that `write` writes for the images of a dataset, in their order.

    Args:
        dataset: What to write.
        preset: The dialect.
        columns: The header of the dialect to write.
    """
    groups = dataset.by_image()
    rows: list[list[str]] = []
    for image in dataset.images:
        size = (image.width_px, image.height_px)
        rows += _rows(image.file_name, groups[image.id], size, dataset, PRESETS[preset], columns)
    return rows


def _unchanged(like: Path, dialect: Preset, rows: Sequence[Sequence[str]], images: set[str]) -> bytes | None:
    """The content of ``like`` where it has the same masks of the same images as ``rows``, else None."""
    try:
        content = read_bytes(like)
        lines = list(csv.reader(io.StringIO(decode_text(content)[0], newline="")))
        if not lines or tuple(cell.strip() for cell in lines[0]) not in dialect.headers:
            return None
        regions, listed = _regions(lines[1:], dialect)
        return content if listed == images and regions == _regions(rows, dialect)[0] else None
    except (OSError, JsonError, csv.Error, RunError):
        return None


def _regions(rows: Iterable[Sequence[str]], dialect: Preset) -> tuple[Counter[tuple[str, str, bytes]], set[str]]:
    """The number of each combination of image, class and pixels, and the images that occur."""
    regions: Counter[tuple[str, str, bytes]] = Counter()
    images: set[str] = set()
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        name, label = row[0].strip(), row[1].strip() if len(row) == 3 else ""
        if dialect.has_classes and len(row) == 2:
            name, _, label = name.rpartition("_")
        images.add(_base_name(name))
        if row[-1].strip():
            regions[_base_name(name), label, _joined(row[-1])] += 1
    return regions, images


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _joined(text: str) -> bytes:
    """The same bytes for all run-length texts of the same pixels."""
    starts, lengths = parse_runs(text, pixels=1 << 62)
    stops = starts + lengths
    apart = starts[1:] > stops[:-1]
    edges = np.concatenate([starts[np.append(True, apart)], stops[np.append(apart, True)]])
    return bytes(edges.tobytes())


def _header_like(like: Path | None, dialect: Preset) -> tuple[str, ...] | None:
    if like is not None and like.is_file():
        with like.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            header = tuple(cell.strip() for cell in next(csv.reader(stream), []))
        if header in dialect.headers:
            return header
    return None


def _rows(
    file_name: str,
    instances: Sequence[Instance],
    size_px: tuple[int, int],
    dataset: Dataset,
    dialect: Preset,
    header: tuple[str, ...],
) -> list[list[str]]:
    """The rows of one image."""
    if dialect.row_per_instance:
        texts = [_text([instance], size_px, by_rows=dialect.by_rows) for instance in instances]
        return [[file_name, text] for text in texts or [""]]
    if not dialect.has_classes:
        return [[file_name, _text(instances, size_px, by_rows=dialect.by_rows)]]
    rows = []
    for category in dataset.categories:
        members = [instance for instance in instances if instance.category_id == category.id]
        text = _text(members, size_px, by_rows=dialect.by_rows)
        if len(header) == 2:
            rows.append([f"{file_name}_{category.name}", text])
        elif members:
            rows.append([file_name, category.name, text])
    return rows


def _text(instances: Sequence[Instance], size_px: tuple[int, int], *, by_rows: bool) -> str:
    """The union of instances as run-length text, empty without instances."""
    if not instances:
        return ""
    segmentations = [instance.segmentation for instance in instances]
    union = union_segmentations(segmentations, width_px=size_px[0], height_px=size_px[1])
    return mask_to_text(decode_mask(union), by_rows=by_rows)
