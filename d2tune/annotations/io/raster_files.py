"""The pixels of one raster file, as arrays from which windows are read.

Every file becomes one or more `StoredArray`: pixels as they are stored, and the axes of the rows, columns and channels.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import math
import mmap
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.images import read_header
from d2tune.annotations.io.photos.pillow import open_pillow
from d2tune.annotations.io.photos.whole import refuse_missing_pixels
from d2tune.errors import DataError

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})

SEGMENT_CACHE_BYTES = 128 << 20
"""The memory limit for decoded tiles and strips of one TIFF, which neighboring windows share."""

_GDAL_NODATA_TAG = 42113
_ORIENTATION_TAG = 274
_WHITE_IS_ZERO, _PALETTE, _CMYK, _YCBCR, _CIELAB = 0, 3, 5, 6, 8
_BUILT_IN_COMPRESSIONS = frozenset({1, 8, 32773, 32946, 34925})
_DEEP_COLOR = ((16, 2), (16, 4), (16, 6))


class Pixels(Protocol):
    """An array that returns its values for one slice of each axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """The axes of an array.

    Attributes:
        rows: Axis of the rows.
        columns: Axis of the columns.
        channels: All other axes, the slowest first.
    """

    rows: int
    columns: int
    channels: tuple[int, ...] = ()


def layout_of(shape: Sequence[int]) -> Layout:
    """Distinguish channels from rows and columns by the shape of an array alone.

    - ``(H, W)``: one channel.
    - Three axes: the shorter of the first and the last axis is the channels, the last where they are equal. So
      ``(200, 300, 4)`` and ``(4, 200, 300)`` both have 4 channels.
    - Four axes: the first axis is dates, the others are as above: ``(T, H, W, C)`` or ``(T, C, H, W)``. The channels of
      a date are followed by those of the next date, T * C in total.

    Raises:
        ValueError: The array has another number of axes, or an axis of length 0.
    """
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"an array of {len(shape)} axes, {tuple(shape)}")
    if 0 in shape:
        raise ValueError(f"an array without values, {tuple(shape)}")
    if len(shape) == 2:
        return Layout(0, 1)
    first = len(shape) - 3
    dates = tuple(range(first))
    if shape[first] < shape[first + 2]:
        return Layout(first + 1, first + 2, (*dates, first))
    return Layout(first, first + 1, (*dates, first + 2))


@dataclass(frozen=True, slots=True)
class StoredArray:
    """The array of a file.

    Attributes:
        pixels: The values as stored.
        layout: Its axes.
        nodata: The no-data value that the file declares, if any.
        close: Closes the file.
    """

    pixels: Pixels
    layout: Layout
    nodata: float | None = None
    close: Callable[[], None] = lambda: None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[self.layout.rows], self.pixels.shape[self.layout.columns]

    @property
    def channels(self) -> int:
        """The number of values per pixel."""
        return math.prod(self.pixels.shape[axis] for axis in self.layout.channels)

    def window(self, rows: slice, columns: slice, channels: Sequence[int]) -> NDArray[Any]:
        """The values ``(h, w, len(channels))`` of some rows, columns and channels, as stored."""
        shape, layout = self.pixels.shape, self.layout
        key = [slice(0, length) for length in shape]
        key[layout.rows], key[layout.columns] = rows, columns
        chosen = np.asarray(channels, dtype=np.intp)
        if layout.channels:
            inner = math.prod(shape[axis] for axis in layout.channels[1:])
            first, last = int(chosen.min()) // inner, int(chosen.max()) // inner
            key[layout.channels[0]] = slice(first, last + 1)
            chosen = chosen - first * inner
        stored = self.pixels[tuple(key)]
        block: NDArray[Any] = np.array(stored) if isinstance(stored, np.memmap) else np.asarray(stored)
        _forget_pages(stored)
        block = block.transpose(layout.rows, layout.columns, *layout.channels)
        block = block.reshape(*block.shape[:2], -1)
        if np.array_equal(chosen, np.arange(block.shape[2])):
            return block
        return block[..., chosen]


def _forget_pages(pixels: Any) -> None:
    """Release the pages of a mapped file that were read, which would take more memory with every window."""
    mapped = getattr(pixels, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of a library into a `DataError` with the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # each library raises many kinds of errors for broken files
        raise DataError(
            f"the image cannot be read ({error or type(error).__name__})",
            file=path,
            expected="a whole photo, TIFF, .npy or .npz file with 2 to 4 axes",
            hint="Replace the file, or save it again.",
        ) from error


def open_arrays(path: Path, *, indices: bool) -> list[StoredArray]:
    """Open one file; the channels of several arrays follow each other.

    Args:
        path: A photo, a TIFF, or a NumPy file.
        indices: Keep the indices of palettes instead of their colors.

    Raises:
        DataError: The file is missing, broken, or not an image.
    """
    if not path.is_file():
        raise DataError("the image does not exist", file=path, hint="Check the path.")
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in ARRAY_SUFFIXES:
            arrays = [_open_numpy(path)]
        elif suffix in TIFF_SUFFIXES:
            arrays = _open_tiff(path, indices=indices)
        else:
            arrays = [_open_photo(path, indices=indices)]
    for array in arrays:
        if array.pixels.dtype.kind not in "biuf":
            for opened in arrays:
                opened.close()
            raise DataError(
                "the values are not real numbers",
                file=path,
                found=str(array.pixels.dtype),
                expected="whole numbers, floats or booleans",
                hint="Save it with such a type, complex numbers as two channels.",
            )
    return arrays


def _open_numpy(path: Path) -> StoredArray:
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if stream.peek(2)[:2] != b"PK":
            content = np.load(path, mmap_mode="r", allow_pickle=False)
            return StoredArray(content, layout_of(content.shape))
        with np.load(stream, allow_pickle=False) as content:  # by its path, a broken file would stay open
            names = content.files
            if len(names) != 1 and "arr_0" not in names:
                raise DataError(
                    "the file does not contain exactly one array",
                    file=path,
                    found=", ".join(names) or "none",
                    expected="one array, or an array with the name arr_0",
                    hint="Save the array of the image in its own file.",
                )
            content = content["arr_0" if "arr_0" in names else names[0]]
    return StoredArray(content, layout_of(content.shape))


class _Photo:
    """An image that Pillow reads, decoded whole when its first window is read."""

    def __init__(self, path: Path, *, indices: bool) -> None:
        from PIL import Image as PilImage

        header = read_header(path)
        with path.open("rb") as stream, open_pillow(stream) as image:
            mode = image.mode
        self._path = path
        self._is_deep = _is_deep_color(path)
        self._mode = None if mode.startswith("I") or mode in ("F", "L") or indices else "RGB"
        if mode in ("1", "LA", "La") and not indices:
            self._mode = "L"
        channels = 3 if self._mode == "RGB" else PilImage.getmodebands(mode) if self._mode is None else 1
        self.shape = (header.height_px, header.width_px, channels)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)
        if self._is_deep:
            self.dtype = np.dtype(np.uint16)
            self.shape = (header.height_px, header.width_px, 3 if mode.startswith("RGB") else 1)
        elif self._mode is None:
            self.dtype = np.dtype({"F": np.float32, "I": np.int32}.get(mode, np.uint16 if mode[0] == "I" else np.uint8))
        self._pixels: NDArray[Any] | None = None

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        if self._pixels is None:
            pixels = self._decoded_deep() if self._is_deep else self._decoded()
            self._pixels = pixels.reshape(self.shape)
        return self._pixels[key]

    def _decoded(self) -> NDArray[Any]:
        from PIL import ImageOps

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with self._path.open("rb") as stream, open_pillow(stream) as image:
                image.load()
                refuse_missing_pixels(image, stream)
                ImageOps.exif_transpose(image, in_place=True)
                return np.asarray(image.convert(self._mode) if self._mode else image).astype(self.dtype)

    def _decoded_deep(self) -> NDArray[Any]:
        """A PNG of 16 bits and several channels, which Pillow would reduce to 8 bits; alpha is dropped."""
        import cv2

        pixels = cv2.imdecode(np.fromfile(self._path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError("the PNG is cut off or damaged")
        return np.ascontiguousarray(pixels[..., 2::-1] if self.shape[2] == 3 else pixels[..., :1])


def _open_photo(path: Path, *, indices: bool) -> StoredArray:
    pixels = _Photo(path, indices=indices)
    return StoredArray(pixels, Layout(0, 1, (2,)))


def _is_deep_color(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(26)
    return start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) == 26 and (start[24], start[25]) in _DEEP_COLOR


def _open_tiff(path: Path, *, indices: bool) -> list[StoredArray]:
    """Open a TIFF with tifffile where it can decode it, else with rasterio, else with Pillow."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors in a file are in the messages of this package
    with contextlib.ExitStack() as stack:
        tiff = stack.enter_context(tifffile.TiffFile(str(path)))
        _refuse_lost_pages(tiff)
        whole = [series for series in tiff.series if not (series.keyframe.is_reduced or series.keyframe.is_mask)]
        series = whole or list(tiff.series[:1])
        page = series[0].keyframe
        is_lone = len(series) == 1 and len(series[0].pages) == 1
        tag = page.tags.get(_ORIENTATION_TAG)
        orientation = 1 if tag is None else tag.value
        is_turned = orientation in range(2, 9)
        is_gray_or_color = page.samplesperpixel in (1, 3)
        is_color = is_turned or page.photometric in (_WHITE_IS_ZERO, _PALETTE, _CMYK, _CIELAB)
        if is_lone and is_color and not indices and page.dtype in (np.uint8, np.bool_):
            return [_open_photo(path, indices=False)]
        if is_turned:
            raise ValueError(f"its orientation is {orientation}, expected 1: save it upright")
        if page.photometric == _YCBCR or not _decodes(page):
            if is_lone and _is_installed("rasterio"):
                return [_open_with_rasterio(path)]
            if is_lone and is_gray_or_color:
                return [_open_photo(path, indices=indices)]
            raise ValueError(
                f"its compression {getattr(page.compression, 'name', page.compression)} needs `pip install "
                f"{'rasterio' if is_lone else 'imagecodecs'}`, or save it with Deflate or without compression"
            )
        arrays = [_open_series(path, tiff, image) for image in series]
        tiff_open = stack.pop_all()
        return [StoredArray(array.pixels, array.layout, array.nodata, tiff_open.close) for array in arrays]


def _refuse_lost_pages(tiff: Any) -> None:
    """Refuse a file whose last readable page is followed by another page, which tifffile skips."""
    last, layout, stream = tiff.pages[-1], tiff.tiff, tiff.filehandle
    stream.seek(last.offset)
    (tags,) = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))
    stream.seek(last.offset + layout.tagnosize + tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, stream.read(layout.offsetsize))
    if following:
        raise ValueError(f"it is cut off after page {len(tiff.pages)}")


def _decodes(page: Any) -> bool:
    """Whether tifffile can decode a page with the libraries that are installed."""
    try:
        page.decode(None, 0)
    except ValueError:
        return False
    return page.compression in _BUILT_IN_COMPRESSIONS or _is_installed("imagecodecs")


def _open_series(path: Path, tiff: Any, series: Any) -> StoredArray:
    """One image of a TIFF; all its pages and bands are channels, pages slowest.

    Where tifffile wrote a plain array without the names of its axes, `layout_of` distinguishes them.
    """
    planes, depth, height, width, samples = series.keyframe.shaped
    if depth != 1:
        raise ValueError(f"a volume of {depth} layers in one page")
    lead: tuple[int, ...] = (series.size // math.prod(series.keyframe.shaped),)
    layout = Layout(2, 3, (0, 1, 4))
    axes = series.axes
    before = axes.find("Y")
    if before > 0 and set(axes[:before]) == {"Q"} and planes == samples == 1 and axes.endswith("YX"):
        lead = series.shape[:before]
        plain = layout_of((*lead, height, width))
        place = [*range(before), before + 1, before + 2]
        channels = tuple(place[axis] for axis in plain.channels)
        layout = Layout(place[plain.rows], place[plain.columns], (*channels, before, before + 3))
    shape = (*lead, planes, height, width, samples)
    offset = series.dataoffset
    pixels: Pixels
    if offset is None:
        pixels = _Segments(tiff, series, shape)
    else:
        pixels = np.memmap(path, dtype=series.dtype.newbyteorder(tiff.byteorder), mode="r", offset=offset, shape=shape)
    return StoredArray(pixels, layout, _nodata_of(series.keyframe))


def _nodata_of(page: Any) -> float | None:
    tag = page.tags.get(_GDAL_NODATA_TAG)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


class _Segments:
    """The pages of a TIFF as an array ``(*pages, planes, H, W, samples)``; only the tiles of a window are decoded."""

    def __init__(self, tiff: Any, series: Any, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(series.dtype)
        self._file = tiff.filehandle
        self._pages = series.pages
        self._keyframe = page = series.keyframe
        self._tile_px = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, shape[-3]), shape[-2])
        )
        self._cache: OrderedDict[tuple[int, int], NDArray[Any] | None] = OrderedDict()
        self._cached_bytes = 0

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        *pages, planes, rows, columns, samples = key
        lengths = [axis.stop - axis.start for axis in (*pages, planes, rows, columns)]
        out = np.zeros((*lengths, self.shape[-1]), dtype=self.dtype)
        for place in itertools.product(*(range(axis.start, axis.stop) for axis in (*pages, planes))):
            target = out[tuple(at - axis.start for at, axis in zip(place, (*pages, planes), strict=True))]
            page = int(np.ravel_multi_index(place[:-1], self.shape[: len(pages)]))
            self._fill(page, place[-1], rows, columns, target)
        return out[..., samples]

    def _fill(self, page: int, plane: int, rows: slice, columns: slice, target: NDArray[Any]) -> None:
        """Copy the values of a window from its tiles into ``target`` ``(h, w, samples)``."""
        tile_height, tile_width = self._tile_px
        across, down = -(-self.shape[-2] // tile_width), -(-self.shape[-3] // tile_height)
        for tile_row in range(rows.start // tile_height, -(-rows.stop // tile_height)):
            for tile_column in range(columns.start // tile_width, -(-columns.stop // tile_width)):
                tile = self._tile(page, (plane * down + tile_row) * across + tile_column)
                top, left = tile_row * tile_height, tile_column * tile_width
                first_row, last_row = max(rows.start, top), min(rows.stop, top + tile_height)
                first_column, last_column = max(columns.start, left), min(columns.stop, left + tile_width)
                overlap = (
                    slice(first_row - rows.start, last_row - rows.start),
                    slice(first_column - columns.start, last_column - columns.start),
                )
                if tile is None:
                    target[overlap] = self._keyframe.nodata
                else:
                    target[overlap] = tile[first_row - top : last_row - top, first_column - left : last_column - left]

    def _tile(self, page: int, index: int) -> NDArray[Any] | None:
        """A decoded tile or strip ``(h, w, samples)``; None for a tile that the file does not contain."""
        if (page, index) in self._cache:
            self._cache.move_to_end((page, index))
            return self._cache[page, index]
        tile = self._decoded(page, index)
        self._cache[page, index] = tile
        self._cached_bytes += 0 if tile is None else tile.nbytes
        while self._cached_bytes > SEGMENT_CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= 0 if oldest is None else oldest.nbytes
        return tile

    def _decoded(self, page: int, index: int) -> NDArray[Any] | None:
        frame = self._pages[page]
        if frame is None:
            return None
        if index >= len(frame.dataoffsets) or index >= len(frame.databytecounts):
            raise ValueError(f"page {page + 1} has no tile {index + 1}")
        size = frame.databytecounts[index]
        if not size:
            return None
        self._file.seek(frame.dataoffsets[index])
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError(f"it is cut off in tile {index + 1} of page {page + 1}")
        tables = {} if frame.jpegtables is None else {"jpegtables": frame.jpegtables}
        decoded = self._keyframe.decode(content, index, **tables)[0]
        tile: NDArray[Any] = decoded[0]
        return tile


def _is_installed(library: str) -> bool:
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


class _RasterioPixels:
    """Bands ``(C, H, W)`` that GDAL reads window by window."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.shape = (dataset.count, dataset.height, dataset.width)
        self.dtype: np.dtype[Any] = np.dtype(dataset.dtypes[0])

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        bands, rows, columns = key
        numbers = list(range(bands.start + 1, bands.stop + 1))
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        values: NDArray[Any] = self._dataset.read(numbers, window=window)
        return values


def _open_with_rasterio(path: Path) -> StoredArray:
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = rasterio.open(path, driver="GTiff")
    return StoredArray(_RasterioPixels(dataset), Layout(1, 2, (0,)), dataset.nodata, dataset.close)
