"""Color maps: the class of each color of a mask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS
from d2tune.annotations.io.json_files import JsonError, decode_text, read_bytes
from d2tune.errors import DataError

ColorMap = dict[tuple[int, int, int], str]
"""Class names by color: red, green, blue."""

COLOR_MAPS = ("class_dict.csv", "labelmap.txt", "label_colors.txt")
"""The files that are looked for beside masks."""

_NUMBERS = r"(?P<r>\d{1,3})\s*[,;\s]\s*(?P<g>\d{1,3})\s*[,;\s]\s*(?P<b>\d{1,3})"
_NAME_FIRST = re.compile(rf"\s*(?P<name>[^#\s,:;][^,:;\t]*?)\s*[,:;\s]\s*{_NUMBERS}(?!\d)")
_NAME_LAST = re.compile(rf"\s*{_NUMBERS}\s*[,:;\s]\s*(?P<name>[^\s,:;][^,:;\t]*?)\s*$")
_WITHOUT_COLOR = re.compile(r"\s*(?P<name>[^#\s:][^:]*?)\s*:\s*:[^:]*:[^:]*")
_BLACK = (0, 0, 0)
_CODE = np.array([65536, 256, 1])


def voc_color(index: int) -> tuple[int, int, int]:
    """The color of an index in the palette of Pascal VOC: its bits in threes, from the highest bit of each channel."""
    channels = [0, 0, 0]
    for step in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> (3 * step + channel)) & 1) << (7 - step)
    return channels[0], channels[1], channels[2]


def read_color_map(path: Path) -> ColorMap:
    """Class names by color from a text file with a class per line: a name and three numbers from 0 to 255.

    The name is before or after the numbers, separated by commas, colons, spaces or tabs. Classes of a ``labelmap.txt``
    without a color (``name:::``) have the color of their place in the palette of VOC. Other lines are skipped.

    Raises:
        DataError: The file cannot be read, has no color, or has a number above 255 or a color with two names.
    """
    try:
        text, _ = decode_text(read_bytes(path))
    except (OSError, JsonError) as error:
        raise DataError(f"the color map cannot be read ({error})", file=path) from error
    table: ColorMap = {}
    for number, name, color in _entries(text):
        if max(color) > 255 or table.get(color, name) != name:
            raise DataError(
                "the color is invalid",
                file=path,
                place=f"line {number}",
                found=f"{name} {color}",
                expected="three numbers from 0 to 255, and each color once",
            )
        table[color] = name
    if not table:
        raise DataError("the color map has no color", file=path, expected="lines such as: road,128,64,128")
    return table


def _entries(text: str) -> Iterator[tuple[int, str, tuple[int, int, int]]]:
    """Line, class and color of each line that has a class."""
    place = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _NAME_FIRST.match(line) or _NAME_LAST.match(line):
            yield number, match["name"], (int(match["r"]), int(match["g"]), int(match["b"]))
        elif match := _WITHOUT_COLOR.fullmatch(line):
            yield number, match["name"], voc_color(place)
        else:
            continue
        place += 1


def color_map_in(*folders: Path) -> ColorMap:
    """The first color map in folders; an empty color map where there is none."""
    places = (folder / name for folder in folders for name in COLOR_MAPS)
    path = next((place for place in places if place.is_file()), None)
    return {} if path is None else read_color_map(path)


@dataclass(frozen=True, slots=True, eq=False)
class ColorClasses:
    """The classes of the pixels of a color mask.

    Attributes:
        names: Class names by number; those of pixels without a class are ``_background_``.
        classes: The number of each pixel's class, ``(H, W)``.
        unknown: Colors that fill an area and have no class, with their numbers of pixels, by their places among the
            colors of the mask. All other colors, as those of smoothed edges, have the class of the nearest color.
    """

    names: tuple[str, ...]
    classes: NDArray[np.intp]
    unknown: dict[int, tuple[tuple[int, int, int], int]]


def classify(pixels: NDArray[np.uint8], colors: ColorMap, *, exact: bool = False) -> ColorClasses:
    """The classes of a mask ``(H, W, 3)`` by its colors.

    Black is the background where the color map does not name it, and so are classes with the name of a background.

    Args:
        pixels: The mask.
        colors: The color map.
        exact: Whether every color must be in the color map; else those that fill no area may lie between two colors.
    """
    table = colors if _BLACK in colors else {_BLACK: "_background_", **colors}
    shown = {color: "_background_" if is_no_class(name) else name for color, name in table.items()}
    names = list(dict.fromkeys(shown.values()))
    known = np.array(list(shown), dtype=np.int64)
    class_of = np.array([names.index(name) for name in shown.values()], dtype=np.intp)
    codes = pixels.astype(np.int64) @ _CODE
    present, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    unknown = ~np.isin(present, known @ _CODE) & np.isin(present, present if exact else _filled_with(codes))
    return ColorClasses(
        tuple(names),
        class_of[_nearest(present, known)][inverse].reshape(codes.shape),
        {place: (_color(int(present[place])), int(counts[place])) for place in np.flatnonzero(unknown).tolist()},
    )


def _color(code: int) -> tuple[int, int, int]:
    return code >> 16, (code >> 8) & 255, code & 255


def is_no_class(name: str) -> bool:
    """Whether a name in a color map stands for the pixels that have no class."""
    return name in SPECIAL_LABELS or name.lower() in ("background", "void")


def _filled_with(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values ``(K,)`` that fill a block of 3 x 3 pixels anywhere in ``(H, W)``, or all of a smaller image.

    Smoothed edges are mixtures one or two pixels wide, so their values fill no block.
    """
    height, width = (min(3, size) for size in codes.shape)
    blocks = np.lib.stride_tricks.sliding_window_view(codes, (height, width))
    same = np.ones(blocks.shape[:2], dtype=bool)
    for row in range(height):
        for column in range(width):
            same &= blocks[..., row, column] == blocks[..., 0, 0]
    filled: NDArray[np.int64] = np.unique(blocks[..., 0, 0][same])
    return filled


def _nearest(codes: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.intp]:
    """The row of ``known`` ``(K, 3)`` nearest to each color code ``(N,)``; the first of several nearest rows."""
    colors = np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=1)
    best = np.zeros(len(codes), dtype=np.intp)
    least = np.full(len(codes), np.iinfo(np.int64).max)
    for number, color in enumerate(known):
        distance = np.sum((colors - color) ** 2, axis=1)
        nearer = distance < least
        best[nearer], least[nearer] = number, distance[nearer]
    return best
