"""Images of any number of channels, read window by window.

An image is a photo, a ``.npy`` or ``.npz`` array, a TIFF with any number of pages and bands, or a folder of such
files whose channels are stacked. `raster_files.layout_of` distinguishes channels from rows and columns.

- Photos have 1 channel where they are gray (8 or 16 bits) and 3 where they are colored: red, green, blue. Their EXIF
  orientation is applied, their alpha dropped, and palettes are resolved.
- All bands and pages of a TIFF are channels, the fourth of four as well, which many programs mark as alpha where it is
  near infrared. Overviews and mask pages are skipped.
- NumPy files, uncompressed TIFFs and tiled ones of any compression are read window by window; of a TIFF in strips
  whole strips are decoded; photos and ``.npz`` arrays are decoded whole.
"""

from __future__ import annotations

import fnmatch
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.images import IMAGE_SUFFIXES
from d2tune.annotations.io.raster_files import ARRAY_SUFFIXES, StoredArray, open_arrays, reading
from d2tune.annotations.model.options import RasterOptions
from d2tune.errors import DataError

_GEO_DRIVERS = {
    ".tif": "GTiff",
    ".tiff": "GTiff",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".jp2": "JP2OpenJPEG",
}


@dataclass(frozen=True, slots=True)
class Georeference:
    """The position of an image on earth.

    Attributes:
        crs: Coordinate reference system as WKT text; None where only the transform is known.
        transform: ``(a, b, c, d, e, f)``: the position of column x and row y is ``(a x + b y + c, d x + e y + f)``.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Member:
    """The array of a file, and the positions of its channels in the image.

    Attributes:
        path: The file.
        array: Its values.
        channels: The channels of the file that are used.
        places: Their positions in the image.
    """

    path: Path
    array: StoredArray
    channels: list[int]
    places: list[int]


class Raster:
    """An image of any number of channels, read window by window; a context manager.

    Args:
        path: The file or folder.
        files: Its arrays in the order of the channels, each with its file.
        options: The channels to use, and the no-data value.

    Attributes:
        path: The file or folder.
        height_px: Rows.
        width_px: Columns.
        channels: Number of values per pixel.
        dtype: Type of the values of `read`: uint8 or float32.
        stored_dtype: Type of the values of `read_stored`.

    Raises:
        DataError: Files differ in size, or a channel does not exist.
    """

    def __init__(self, path: Path, files: Sequence[tuple[Path, StoredArray]], options: RasterOptions) -> None:
        self.path = path
        self._files = list(files)
        self._paths = list(dict.fromkeys(file for file, _ in files))
        first_path, first = files[0]
        self.height_px, self.width_px = first.size_px
        for file, array in files:
            if array.size_px != first.size_px:
                raise DataError(
                    f"the files of one image differ in size: {first_path.name} and {file.name}",
                    file=path,
                    found=f"{_size(first)} and {_size(array)} px",
                    expected="the same size",
                    hint="Resample them to the same grid.",
                )
        self._members = list(_members(path, files, options.channels))
        self.channels = sum(len(member.places) for member in self._members)
        self._nodata = [
            {value for value in (options.nodata, member.array.nodata) if value is not None} for member in self._members
        ]
        self.stored_dtype = np.result_type(*(member.array.pixels.dtype for member in self._members))
        is_uint8 = all(
            member.array.pixels.dtype in (np.uint8, np.bool_) and not any(_fits(value, np.uint8) for value in nodata)
            for member, nodata in zip(self._members, self._nodata, strict=True)
        )
        self.dtype = np.dtype(np.uint8 if is_uint8 else np.float32)

    def __enter__(self) -> Raster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; no window can be read any more."""
        for _, array in self._files:
            array.close()
        self._files, self._members = [], []

    @cached_property
    def georeference(self) -> Georeference | None:
        """The position of the image, of a folder that of its first file with a position; None without rasterio."""
        candidates = map(georeference_of, self._paths)
        return next((georeference for georeference in candidates if georeference is not None), None)

    @property
    def nodata(self) -> float | None:
        """The no-data value that the file declares, where it is the same for all channels."""
        values = {member.array.nodata for member in self._members}
        return values.pop() if len(values) == 1 else None

    def read(
        self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None
    ) -> NDArray[Any]:
        """Read a window.

        Args:
            top_px: First row.
            left_px: First column.
            height_px: Rows; None reads to the lower border.
            width_px: Columns; None reads to the right border.

        Returns:
            ``(h, w, C)``. 8-bit values without a no-data value stay uint8, booleans become 0 and 1. All other values
            are float32: NaN, infinities and no-data values are NaN; whole numbers beyond 16,777,216 and doubles are
            rounded to the nearest float32.

        Raises:
            DataError: The file is broken.
            ValueError: The window extends beyond the image.
        """
        rows, columns = self._window(top_px, left_px, height_px, width_px)
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.channels), dtype=self.dtype)
        for member, nodata in zip(self._members, self._nodata, strict=True):
            with reading(member.path):
                values = member.array.window(rows, columns, member.channels)
                out[..., member.places] = values if self.dtype == np.uint8 else _as_float(values, nodata)
        return out

    def read_stored(
        self, top_px: int = 0, left_px: int = 0, height_px: int | None = None, width_px: int | None = None
    ) -> NDArray[Any]:
        """Read a window ``(h, w, C)`` of the stored values, with no-data values; see `read`."""
        rows, columns = self._window(top_px, left_px, height_px, width_px)
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.channels), dtype=self.stored_dtype)
        for member in self._members:
            with reading(member.path):
                out[..., member.places] = member.array.window(rows, columns, member.channels)
        return out

    def _window(self, top_px: int, left_px: int, height_px: int | None, width_px: int | None) -> tuple[slice, slice]:
        bottom_px = self.height_px if height_px is None else top_px + height_px
        right_px = self.width_px if width_px is None else left_px + width_px
        if not (0 <= top_px < bottom_px <= self.height_px and 0 <= left_px < right_px <= self.width_px):
            raise ValueError(
                f"rows {top_px} to {bottom_px} and columns {left_px} to {right_px} are not a window of an image of "
                f"{self.height_px} x {self.width_px} px"
            )
        return slice(top_px, bottom_px), slice(left_px, right_px)


def open_raster(path: Path, options: RasterOptions | None = None, *, indices: bool = False) -> Raster:
    """Open an image; only its header is read, except for ``.npz`` arrays.

    Args:
        path: A file, or a folder whose files are stacked.
        options: How to read it.
        indices: Keep the indices of palettes instead of their colors, as label images need.

    Raises:
        DataError: The image does not exist or is broken, patterns do not match one file each, files of a folder
            differ in size, or a channel does not exist.
    """
    options = options or RasterOptions()
    paths = _stacked(path, options.stack) if path.is_dir() else [path]
    if options.stack and not path.is_dir():
        raise DataError(
            "the image is one file, and `stack` orders the files of a folder",
            file=path,
            hint="Remove `stack`, or make the image a folder.",
        )
    files: list[tuple[Path, StoredArray]] = []
    try:
        for file in paths:
            files += [(file, array) for array in open_arrays(file, indices=indices)]
        return Raster(path, files, options)
    except DataError:
        for _, array in files:
            array.close()
        raise


def is_raster_name(name: str) -> bool:
    """Whether a file's suffix is that of a photo, a TIFF or a NumPy array."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES | ARRAY_SUFFIXES  # noqa: PTH122 - called for every file


def natural_order(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A sorting key that puts ``2.tif`` before ``10.tif``."""
    pieces = re.findall(r"\d+|\D+", name.casefold())
    return [(not piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in pieces], name


def files_of(folder: Path) -> list[str]:
    """Names of the files that a folder stacks, in natural order."""
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and is_raster_name(entry.name)]
    return sorted((name for name in names if (folder / name).is_file()), key=natural_order)


def _stacked(folder: Path, patterns: Sequence[str]) -> list[Path]:
    names = files_of(folder)
    if not names:
        raise DataError("the folder contains no image file", file=folder, expected="photos, TIFFs, .npy or .npz")
    if not patterns:
        return [folder / name for name in names]
    chosen = []
    for pattern in patterns:
        hits = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if len(hits) != 1:
            raise DataError(
                f"the pattern {pattern!r} matches {'several files' if hits else 'no file'}",
                file=folder,
                place="stack",
                found=", ".join((hits or names)[:8]),
                expected="one file for each pattern",
                hint="Correct `stack` in data.label_images.",
            )
        chosen.append(folder / hits[0])
    return chosen


def _members(path: Path, files: Sequence[tuple[Path, StoredArray]], channels: Sequence[int]) -> Iterator[_Member]:
    """Assign the requested channels to the files."""
    total = sum(array.channels for _, array in files)
    wanted = list(channels) or list(range(total))
    beyond = next((channel for channel in wanted if not 0 <= channel < total), None)
    if beyond is not None:
        raise DataError(
            "the image does not have the channel",
            file=path,
            place="channels",
            found=str(beyond),
            expected=f"0 to {total - 1}",
            hint="Correct `channels` in data.label_images; channels count from 0.",
        )
    first = 0
    for file, array in files:
        places = [place for place, channel in enumerate(wanted) if first <= channel < first + array.channels]
        if places:
            yield _Member(file, array, [wanted[place] - first for place in places], places)
        first += array.channels


def _size(array: StoredArray) -> str:
    return f"{array.size_px[1]} x {array.size_px[0]}"


def _fits(value: float, dtype: Any) -> bool:
    """Whether a whole-number type can hold a value."""
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and float(value).is_integer() and limits.min <= value <= limits.max


def _as_float(values: NDArray[Any], nodata: set[float]) -> NDArray[np.float32]:
    """Values as float32, NaN where they are not finite or no-data values."""
    with np.errstate(over="ignore", invalid="ignore"):
        out = values.astype(np.float32)
    is_float = values.dtype.kind == "f"
    if is_float:
        out[~np.isfinite(out)] = np.nan
    for value in nodata:
        if is_float:
            with np.errstate(over="ignore"):
                out[values == values.dtype.type(value)] = np.nan
        elif _fits(value, np.uint8 if values.dtype == np.bool_ else values.dtype):
            out[values == int(value)] = np.nan
    return out


def georeference_of(path: Path) -> Georeference | None:
    """The position of a file on earth; None where it has none, or without rasterio."""
    if path.suffix.lower() not in _GEO_DRIVERS:
        return None
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path, driver=_GEO_DRIVERS[path.suffix.lower()]) as dataset:
                crs, transform = dataset.crs, dataset.transform
                text = crs.to_wkt() if crs else None
    except (RasterioError, OSError, ValueError):
        return None
    if text is None and transform.is_identity:
        return None
    a, b, c, d, e, f = (float(value) for value in transform[:6])
    return Georeference(text, (a, b, c, d, e, f))
