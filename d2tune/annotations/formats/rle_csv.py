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

from d2tune.annotations.formats.mask_pairs import is_in_mask_folder
from d2tune.annotations.formats.rle_layout import PRESETS as PRESETS
from d2tune.annotations.formats.rle_layout import (
    Layout,
    Preset,
    layout_of,
    refusal,
    separator_of,
    split_line,
)
from d2tune.annotations.formats.rle_layout import preset_of as preset_of
from d2tune.annotations.formats.shared.assembly import assemble
from d2tune.annotations.formats.shared.labels import Labels
from d2tune.annotations.formats.shared.mask_files import components as components
from d2tune.annotations.formats.shared.parts import mask_part, unite
from d2tune.annotations.formats.shared.sources import Folders, check_size, folders_of, measure, unlabeled_units
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch, decode_mask, mask_runs, union_segmentations
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.annotations.io.places import Place, walk_files
from d2tune.annotations.model.dataset import Dataset, Image, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Mask
from d2tune.errors import DataError, nearest
from d2tune.text import describe


class RunError(ValueError):
    """Run-length text that is not valid."""


def parse_runs(text: str, *, pixels: int, is_relative: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts from 0 and lengths, both ``(R,)``, ascending.

    Args:
        text: "start length" pairs, starts from 1.
        pixels: How many pixels the image has.
        is_relative: Whether each start counts from the end of the run before, the first one from 0.

    Raises:
        RunError: A value is not a number or 0, their count is odd, or a run ends beyond the image or overlaps another.
    """
    words = text.split()
    if not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
        raise RunError("the runs are not all whole numbers")
    if len(words) % 2:
        raise RunError(f"there are {len(words)} numbers, expected pairs of start and length")
    values = np.array(words, dtype=np.int64).reshape(-1, 2)
    if is_relative:
        values[:, 0] += 1 + np.append(0, np.cumsum(values.sum(axis=1))[:-1])
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


def mask_to_text(mask: Mask, *, by_rows: bool, is_relative: bool = False) -> str:
    """Run-length text of a mask ``(H, W)``: 1-indexed "start length" pairs, ascending; see `Preset.is_relative`."""
    starts, lengths = mask_runs(mask.T if by_rows else mask)
    if is_relative:
        starts = starts - np.append(0, (starts + lengths)[:-1])[: len(starts)] - 1
    return " ".join(map(str, np.stack([starts + 1, lengths], axis=1).reshape(-1).tolist()))


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a run-length CSV file, or all such files of a folder.

    Args:
        source: Folder or CSV file; images are beside it or under ``options.image_root``, also in subfolders.
        options: How to read; ``preset`` is needed, and ``class_name`` where the dialect has no classes.

    Columns are recognized by their names in any case, separated by commas, semicolons or tabs; columns that the dialect
    does not use are ignored. Images may be named without suffix. ``-1``, ``nan`` and an empty field stand for no
    object; every class that a row names is a class.

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
    names = [source.name] if source.is_file() else [name for name in folders.walk() if name.lower().endswith(".csv")]
    by_stem: dict[str, list[str]] = {}
    units: list[Unit] = []
    for name in names:
        units += _File(name, folders, options, preset, by_stem).read()
    if not names:
        raise DataError("the folder contains no CSV file", file=source)
    claimed = [unit.image.file_name for unit in units if unit.image is not None]
    return assemble(units + unlabeled_units(folders, options, claimed), options, root=folders.root)


def _preset(name: str | None, file: Path | None) -> Preset:
    if name is None or name not in PRESETS:
        near = nearest(name, PRESETS) if name else None
        own = None if name is not None or file is None else _preset_of_source(file)
        hint = f"Did you mean {near!r}?" if near else "Name it with data.csv_preset or --preset."
        raise DataError(
            "run-length CSV needs a dialect, which defines how pixels are counted",
            file=file,
            found="none" if name is None else repr(name),
            expected=", ".join(PRESETS),
            hint=hint if own is None else f"The columns are those of {own}: data.csv_preset: {own} or --preset {own}.",
        )
    return PRESETS[name]


def _preset_of_source(source: Path) -> str | None:
    """The dialect whose columns a file, or the first CSV file of a folder, has."""
    names = [source.name] if source.is_file() else [one for one in walk_files(source) if one.lower().endswith(".csv")]
    folder = source.parent if source.is_file() else source
    for name in names:
        try:
            with (folder / name).open("rb") as stream:
                line = decode_text(stream.readline(4096))[0].strip()
        except (OSError, JsonError):
            continue
        own = preset_of([line])
        if own is not None:
            return own
    return None


def looks_like(line: str) -> bool:
    """Whether the first line of a CSV file names columns of images and of runs."""
    return layout_of(split_line(line, separator_of(line))) is not None


@dataclass(frozen=True, slots=True)
class _File:
    """A CSV file that is read."""

    name: str
    folders: Folders
    options: ReadOptions
    preset: Preset
    by_stem: dict[str, list[str]]

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
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text.partition("\n")[0]))
        units: dict[str, Unit] = {}
        labels = Labels(self.options)
        try:
            layout = self._layout(next(rows, []), whole)
            if layout is None:
                return [whole]
            if layout.has_classes and self.options.class_name is not None:
                message = f"the rows have classes; the class name {self.options.class_name!r} is not used"
                whole.note("info", "option_unused", message, line=1, hint="--rename gives classes other names")
            for index, row in enumerate(rows):
                self._read_row(index, row, rows.line_num, layout, units, whole, labels)
        except csv.Error as error:
            whole.note("error", "bad_rle", f"the line is not valid CSV ({error})", line=rows.line_num)
        return [whole, *units.values()] if whole.findings else list(units.values())

    def _layout(self, header: Sequence[str], whole: Unit) -> Layout | None:
        """The columns of the file; None with an error where they are not those of the dialect."""
        layout = layout_of(header)
        reason = None if layout is None else refusal(layout, str(self.options.preset))
        if layout is not None and reason is None:
            return layout
        expected = " or ".join(",".join(columns) for columns in self.preset.headers)
        shown = describe(",".join(cell.strip() for cell in header))
        message = f"the columns are {shown}, expected {expected}" + (f"; {reason}" if reason else "")
        whole.note("error", "bad_rle", message, line=1)
        return None

    def _read_row(
        self,
        index: int,
        row: list[str],
        line: int,
        layout: Layout,
        units: dict[str, Unit],
        whole: Unit,
        labels: Labels,
    ) -> None:
        if not any(cell.strip() for cell in row):
            return
        if len(row) != len(layout.columns):
            message = f"the line has {len(row)} columns, expected {len(layout.columns)}"
            whole.note("error", "bad_rle", message, line=line)
            return
        image, label, runs = layout.cells(row)
        if not self.preset.has_classes:
            label = self.options.class_name or self.options.only_class
        unit = units.get(image)
        if unit is None:
            unit = units[image] = Unit(self.name)
            header = measure(self._find(image), unit, line=line)
            if header is not None and layout.width is not None and layout.height is not None:
                stated = row[layout.width], row[layout.height]
                if not check_size(unit, header, *stated, what=f"line {line}"):
                    unit.image = None
        if label is None:
            unit.note("error", "bad_rle", f"{image!r} does not end in an underscore and a class", line=line)
        elif unit.image is None:
            unit.exclude([index])
        elif runs:
            self._read_runs(index, label, runs, line, unit, labels)
        else:
            _claim_class(label, unit, labels)

    def _find(self, image: str) -> Place:
        """The image of a row, by its name with or without suffix in any folder below the root."""
        has_suffix = is_image_name(image)
        search = self.folders.search_from(self.folders.source / self.name)
        place = self.folders.finder.find(image, folders=search, in_subfolders=True, without_suffix=not has_suffix)
        if place.path is not None or (has_suffix and place.code != "image_ambiguous"):
            return place
        # masks may have the names of their images, and names without suffix may have dots
        photos = [name for name in self._files_of(_base_name(image)) if not is_in_mask_folder(name)]
        return self.folders.finder.existing(self.folders.root, photos[0]) if len(photos) == 1 else place

    def _files_of(self, key: str) -> list[str]:
        """The images below the root with a base name, or with a base name without suffix."""
        if not self.by_stem:
            for name in self.folders.walk(self.folders.root):
                if is_image_name(name):
                    base = _base_name(name)
                    self.by_stem.setdefault(base, []).append(name)
                    self.by_stem.setdefault(base.rpartition(".")[0], []).append(name)
        return self.by_stem.get(key, [])

    def _read_runs(self, index: int, label: str, text: str, line: int, unit: Unit, labels: Labels) -> None:
        assert unit.image is not None
        width_px, height_px = unit.image.width_px, unit.image.height_px
        name = labels.read(label, unit, None, line=line)
        if name is None:
            return
        try:
            relative = self.preset.is_relative
            starts, lengths = parse_runs(text, pixels=width_px * height_px, is_relative=relative)
        except RunError as error:
            hint = None
            if "overlap" in str(error) and self.options.preset == "airbus":
                hint = "where each start counts from the end of the run before, the dialect is siim"
            unit.note("error", "bad_rle", str(error), line=line, hint=hint)
            return
        mask = runs_to_mask(starts, lengths, width_px=width_px, height_px=height_px, by_rows=self.preset.by_rows)
        for piece in components(mask) if self.options.split_components else [mask]:
            part = mask_part(Patch(piece, 0, 0), unit, index)
            if part is not None:
                unit.drafts.append(unite(name.label, [part], unit))


def _claim_class(label: str, unit: Unit, labels: Labels) -> None:
    """Make the class of a row without an object a class, so that the ids of classes do not depend on the objects."""
    name = labels.class_of(label.strip())[0] if label.strip() else None
    if name is not None and (labels.names is None or name in labels.names):
        unit.labels.setdefault(name, None)


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
        force: Whether files that an earlier conversion wrote are replaced; others never are.

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
    form = _form_like(like, str(preset)) or _form_of(columns or dialect.headers[0])
    groups = dataset.by_image()
    rows: list[list[str]] = []
    for image in dataset.images:
        rows += _rows(image, groups[image.id], dataset, dialect, form)
    images = {form.name_of(image) for image in dataset.images}
    content = None if like is None else _unchanged(like, dialect, form, rows, images)
    if content is None:
        stream = io.StringIO()
        # the writer quotes line feeds, but not carriage returns
        has_returns = any("\r" in cell for row in rows for cell in row)
        table = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL)
        table.writerows([form.header, *rows])
        content = stream.getvalue().encode("utf-8", errors="backslashreplace")
    write_output(path, content)
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
        rows += _rows(image, groups[image.id], dataset, PRESETS[preset], _form_of(columns))
    return rows


@dataclass(frozen=True, slots=True)
class _Form:
    """How rows are written.

    Attributes:
        header: The column names.
        has_suffixes: Whether images are named with their suffix.
    """

    header: tuple[str, ...]
    has_suffixes: bool = True

    @property
    def layout(self) -> Layout:
        """The columns."""
        layout = layout_of(self.header)
        assert layout is not None
        return layout

    def name_of(self, image: Image) -> str:
        """The name of an image without folders, as rows have it."""
        name = _base_name(image.file_name)
        return name if self.has_suffixes else name.rpartition(".")[0] or name

    def row(self, image: Image, label: str, runs: str) -> list[str]:
        """A row."""
        layout = self.layout
        name = image.file_name if self.has_suffixes else self.name_of(image)
        cells = {layout.image: f"{name}_{label}" if layout.is_joined else name, layout.runs: runs}
        sizes = ((layout.width, image.width_px), (layout.height, image.height_px))
        cells |= {place: str(size) for place, size in sizes if place is not None}
        if layout.label is not None:
            cells[layout.label] = label
        return [cells.get(place, "") for place in range(len(self.header))]


def _unchanged(
    like: Path, dialect: Preset, form: _Form, rows: Sequence[Sequence[str]], images: set[str]
) -> bytes | None:
    """The content of ``like`` where it has the same masks of the same images as ``rows``, else None."""
    try:
        content = read_bytes(like)
        lines = _table(decode_text(content)[0])
        layout = layout_of(lines[0]) if lines else None
        if layout is None:
            return None
        regions, listed = _regions(lines[1:], layout, dialect)
        return content if listed == images and regions == _regions(rows, form.layout, dialect)[0] else None
    except (OSError, JsonError, csv.Error, RunError, IndexError):
        return None


def _table(text: str) -> list[list[str]]:
    """The rows of a CSV file."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text.partition("\n")[0])))


def _regions(
    rows: Iterable[Sequence[str]], layout: Layout, dialect: Preset
) -> tuple[Counter[tuple[str, str, bytes]], set[str]]:
    """The number of each combination of image, class and pixels, and the images that occur."""
    regions: Counter[tuple[str, str, bytes]] = Counter()
    images: set[str] = set()
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        name, label, runs = layout.cells(row)
        images.add(_base_name(name))
        if runs:
            regions[_base_name(name), (label or "").strip(), _joined(runs, dialect)] += 1
    return regions, images


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _joined(text: str, dialect: Preset) -> bytes:
    """The same bytes for all run-length texts of the same pixels."""
    starts, lengths = parse_runs(text, pixels=1 << 62, is_relative=dialect.is_relative)
    stops = starts + lengths
    apart = starts[1:] > stops[:-1]
    edges = np.concatenate([starts[np.append(True, apart)], stops[np.append(apart, True)]])
    return bytes(edges.tobytes())


def _form_of(columns: tuple[str, ...]) -> _Form:
    """Rows with these columns; a competition that calls its images ``id`` names them without suffix."""
    return _Form(columns, columns[0] != "id")


def _form_like(like: Path | None, preset: str) -> _Form | None:
    """The columns of a file that a dialect uses, and whether its images have suffixes; None where it does not fit."""
    if like is None or not like.is_file():
        return None
    try:
        lines = _table(decode_text(read_bytes(like))[0])
    except (OSError, JsonError, csv.Error):
        return None
    layout = layout_of(lines[0]) if lines else None
    if layout is None or refusal(layout, preset) is not None:
        return None
    used = (layout.image, layout.runs, layout.label, layout.width, layout.height)
    header = tuple(layout.columns[place] for place in sorted(one for one in used if one is not None))
    names = [layout.cells(row)[0] for row in lines[1:] if len(row) == len(layout.columns)]
    return _Form(header, not names or any(is_image_name(name) for name in names))


def _rows(
    image: Image, instances: Sequence[Instance], dataset: Dataset, dialect: Preset, form: _Form
) -> list[list[str]]:
    """The rows of one image."""
    size_px = (image.width_px, image.height_px)
    names = {category.id: category.name for category in dataset.categories}
    if dialect.row_per_instance:
        rows = [(names[one.category_id], _text([one], size_px, dialect)) for one in instances]
        nothing = [] if dialect.has_classes else [("", "")]
        return [form.row(image, label, text) for label, text in rows or nothing]
    if not dialect.has_classes:
        return [form.row(image, "", _text(instances, size_px, dialect))]
    rows = []
    for category in dataset.categories:
        members = [instance for instance in instances if instance.category_id == category.id]
        if members or form.layout.is_joined:
            rows.append((category.name, _text(members, size_px, dialect)))
    return [form.row(image, label, text) for label, text in rows]


def _text(instances: Sequence[Instance], size_px: tuple[int, int], dialect: Preset) -> str:
    """The union of instances as run-length text, empty without instances."""
    if not instances:
        return ""
    segmentations = [instance.segmentation for instance in instances]
    union = union_segmentations(segmentations, width_px=size_px[0], height_px=size_px[1])
    return mask_to_text(decode_mask(union), by_rows=dialect.by_rows, is_relative=dialect.is_relative)
