"""Files of label maps that are written row by row: tiled TIFF, ``.npy``, and a colored preview."""

from __future__ import annotations

import io
import tempfile
import zlib
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.annotations.io.rasters import Georeference
from d2tune.files import atomic_write
from d2tune.report.sheets.drawing import instance_colors

_TILE_PX = 512
_CLASSIC_TIFF_BYTES = 4_000_000_000  # 4-byte offsets reach to 2**32, of which the directory needs some
_NODATA_TAG = 42113  # GDAL's, a decimal number as text
_GEO_TAGS = {33550: "d", 33922: "d", 34264: "d", 34735: "H", 34736: "d", 34737: "s"}  # GeoTIFF 1.1, 7.1.1

_File = TypeVar("_File", bound="_RowsFile")


class _RowsFile(ABC):
    """An image that is written from top to bottom; to be used as a context manager.

    The file appears when the context ends without an error and all rows are written. After an error an existing file
    is unchanged and no temporary file remains.

    Args:
        path: The file; its folder is created if it does not exist.
        height_px: Height of the image.
        width_px: Width of the image.
        dtype: Type of the values.
    """

    def __init__(self, path: str | Path, *, height_px: int, width_px: int, dtype: DTypeLike) -> None:
        self.path = Path(path)
        self.height_px = height_px
        self.width_px = width_px
        self.dtype = np.dtype(dtype)
        self._rows_px = 0
        self._stack = ExitStack()

    def write(self, rows: NDArray[Any]) -> None:
        """Write the next rows ``(h, W)``.

        Raises:
            ValueError: The type or width differs from that of the image, or the image has fewer rows.
        """
        is_fitting = rows.ndim == 2 and rows.shape[1] == self.width_px and rows.dtype == self.dtype
        if not is_fitting or self._rows_px + len(rows) > self.height_px:
            raise ValueError(
                f"{self.path}: rows {rows.shape} of {rows.dtype} at {self._rows_px}, "
                f"for an image {(self.height_px, self.width_px)} of {self.dtype}"
            )
        self._write(rows, self._rows_px)
        self._rows_px += len(rows)

    def _open(self) -> None:
        """Open the file; everything that must be closed is added to the stack."""
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def _write(self, rows: NDArray[Any], top_px: int) -> None:
        """Write rows ``(h, W)`` from ``top_px`` on."""

    @abstractmethod
    def _finish(self) -> None:
        """Finish the file after the last row."""

    def __enter__(self: _File) -> _File:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if self._rows_px != self.height_px:
                raise ValueError(f"{self.path}: {self._rows_px} of {self.height_px} rows were written")
            self._finish()


class LabelTiff(_RowsFile):
    """A label map as a tiled, deflate-compressed palette TIFF with a byte per pixel; BigTIFF if 4 GB are exceeded.

    Tiles are compressed when their rows are complete and kept in an unnamed file beside ``path``. A row of tiles is in
    memory: 512 bytes for each pixel of the width. The nodata value is `IGNORE_LABEL`.

    Args:
        path: The file.
        height_px: Height of the image.
        width_px: Width of the image.
        colors: ``(K, 3)`` RGB, 0 to 255, of the class ids; None takes `instance_colors`. Other ids are black.
        georeference: Position of the image on earth; needs rasterio, which also reads it.
    """

    _tiles: IO[bytes]

    def __init__(
        self,
        path: str | Path,
        *,
        height_px: int,
        width_px: int,
        colors: NDArray[np.uint8] | None = None,
        georeference: Georeference | None = None,
    ) -> None:
        super().__init__(path, height_px=height_px, width_px=width_px, dtype=np.uint8)
        self._palette = _palette(colors)
        self._extra_tags = _geo_tags(georeference) if georeference is not None else []
        self._tile_bytes: list[int] = []
        self._band = np.full((_TILE_PX, width_px), IGNORE_LABEL, np.uint8)

    def _open(self) -> None:
        super()._open()
        tiles = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115 - the stack closes it
        self._tiles = self._stack.enter_context(tiles)

    def _write(self, rows: NDArray[Any], top_px: int) -> None:
        taken = 0
        while taken < len(rows):
            at = (top_px + taken) % _TILE_PX
            block = rows[taken : taken + _TILE_PX - at]
            self._band[at : at + len(block)] = block
            taken += len(block)
            if at + len(block) == _TILE_PX:
                self._compress_band()

    def _compress_band(self) -> None:
        for left in range(0, self.width_px, _TILE_PX):
            tile = np.full((_TILE_PX, _TILE_PX), IGNORE_LABEL, np.uint8)
            block = self._band[:, left : left + _TILE_PX]
            tile[:, : block.shape[1]] = block
            self._tile_bytes.append(self._tiles.write(zlib.compress(tile.tobytes(), 6)))
        self._band.fill(IGNORE_LABEL)

    def _finish(self) -> None:
        if self.height_px % _TILE_PX:
            self._compress_band()
        self._tiles.seek(0)
        is_big = sum(self._tile_bytes) + 16 * len(self._tile_bytes) > _CLASSIC_TIFF_BYTES
        with (
            atomic_write(self.path) as stream,
            tifffile.FileHandle(stream, name=self.path.name) as handle,
            tifffile.TiffWriter(handle, bigtiff=is_big) as writer,
        ):
            writer.write(
                (self._tiles.read(length) for length in self._tile_bytes),
                shape=(self.height_px, self.width_px),
                dtype=self.dtype,
                tile=(_TILE_PX, _TILE_PX),
                compression="zlib",
                photometric="palette",
                colormap=self._palette.T.astype(np.uint16) * 257,
                extratags=[(_NODATA_TAG, "s", 0, str(IGNORE_LABEL), True), *self._extra_tags],
                metadata=None,
                software=False,
            )


def _palette(colors: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """``(256, 3)`` RGB of each value of a label map."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:IGNORE_LABEL] = instance_colors(IGNORE_LABEL) if colors is None else 0
    if colors is not None:
        palette[: len(colors)] = colors
    return palette


def _geo_tags(georeference: Georeference) -> list[tuple[int, str, int, Any, bool]]:
    """The TIFF tags that GDAL writes for a georeference, for tifffile."""
    from rasterio import Affine
    from rasterio.io import MemoryFile

    transform = Affine(*tuple(georeference.transform)[:6])
    with MemoryFile() as memory:
        about = {"count": 1, "dtype": "uint8", "crs": georeference.crs, "transform": transform}
        with memory.open(driver="GTiff", height=1, width=1, **about):
            pass
        with tifffile.TiffFile(io.BytesIO(memory.read())) as tiff:
            tags = tiff.pages.first.tags
            return [
                (code, kind, 0 if kind == "s" else tags[code].count, tags[code].value, True)
                for code, kind in _GEO_TAGS.items()
                if code in tags
            ]


class NpyRows(_RowsFile):
    """An array ``(H, W)`` as ``.npy``: a label map or confidence.

    Args:
        path: The file.
        height_px: Height of the image.
        width_px: Width of the image.
        dtype: Type of the values.
    """

    _stream: IO[bytes]

    def _open(self) -> None:
        self._stream = self._stack.enter_context(atomic_write(self.path))
        shape = (self.height_px, self.width_px)
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def _write(self, rows: NDArray[Any], top_px: int) -> None:
        self._stream.write(np.ascontiguousarray(rows).data)

    def _finish(self) -> None:
        pass


class Preview(_RowsFile):
    """A label map as a palette PNG whose long side is at most ``max_side_px``; ignored pixels are transparent.

    Each pixel of the preview is the middle pixel of the area that it represents.

    Args:
        path: The file.
        height_px: Height of the image.
        width_px: Width of the image.
        colors: See `LabelTiff`.
        max_side_px: Largest long side of the preview.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        height_px: int,
        width_px: int,
        colors: NDArray[np.uint8] | None = None,
        max_side_px: int = 2000,
    ) -> None:
        super().__init__(path, height_px=height_px, width_px=width_px, dtype=np.uint8)
        reduction = max(1.0, max(height_px, width_px) / max_side_px)
        self._rows, self._columns = (_middles(side, reduction) for side in (height_px, width_px))
        self._palette = _palette(colors)
        self._pixels = np.full((len(self._rows), len(self._columns)), IGNORE_LABEL, np.uint8)

    def _write(self, rows: NDArray[Any], top_px: int) -> None:
        first, end = np.searchsorted(self._rows, (top_px, top_px + len(rows)))
        self._pixels[first:end] = rows[self._rows[first:end] - top_px][:, self._columns]

    def _finish(self) -> None:
        image = Image.fromarray(self._pixels)
        image.putpalette(self._palette.tobytes())
        with atomic_write(self.path) as stream:
            image.save(stream, format="PNG", transparency=IGNORE_LABEL)


def _middles(side_px: int, reduction: float) -> NDArray[np.int64]:
    """Indices of the pixels along a side that are in the preview."""
    count = max(1, round(side_px / reduction))
    return ((np.arange(count) + 0.5) * side_px / count).astype(np.int64)
