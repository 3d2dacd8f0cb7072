"""Shared by all plots: a page with a header, fonts and colors, text that fits the page, reproducible files."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from matplotlib import rcParams, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from PIL import Image

from d2tune.errors import printable
from d2tune.files import write_bytes
from d2tune.report.sheets.drawing import shortened

DPI = 200

INK, GRAY, GRID, EMPTY = "#1c1e24", "#5f636b", "#e3e5e9", "#f4f5f7"
ACCENT, BAR = "#0b6e75", "#6fb5ba"
LINES = ("#0b6e75", "#d55e00", "#56b4e9", "#6a3d9a", "#1c1e24")
"""Colors of lines, far apart for every color vision."""

MARGIN_IN = 0.28
_TITLE_PT, _SUBTITLE_PT = 12.5, 9.0
_LINE_HEIGHT = 1.32
_FACE = "DejaVu Sans"
_LONGEST = 120
_UNITS = ("", "k", "M", "G", "T")
_UNDRAWABLE = "\u25a1"
_FURTHER_FACES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "IPAexGothic", "IPAGothic",
    "Microsoft YaHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "Hiragino Sans", "PingFang SC", "Arial Unicode MS",
    "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai", "Nirmala UI",
)  # fmt: skip
_RULES = {
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "hatch.linewidth": 0.6,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with these rules and without the user's matplotlib settings, which are restored at the end."""
    with style.context(["default", {**_RULES, "font.family": _faces()}]):
        yield


def save_png(path: str | Path, figure: Figure) -> None:
    """Draw a matplotlib Figure and write it as a PNG file, atomically; equal ones give equal bytes.

    Raises:
        OSError: The file cannot be written.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    png = io.BytesIO()
    Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB").save(
        png, "PNG", dpi=(DPI, DPI)
    )
    write_bytes(path, png.getvalue())


class Page:
    """A white page with a title and a subtitle. All places are inches from its left edge and from below the header.

    Args:
        width_in: Width of the page.
        body_in: Height below the header.
        title: What the plot shows.
        subtitle: Data, run and metric. Empty for none.

    Attributes:
        figure: matplotlib's Figure, for `save_png`.
        width_in: Width of the page.
    """

    def __init__(self, width_in: float, body_in: float, *, title: str, subtitle: str) -> None:
        room_in = width_in - 2 * MARGIN_IN
        titles = wrapped(title, room_in, _TITLE_PT, bold=True)
        subtitles = wrapped(subtitle, room_in, _SUBTITLE_PT)
        heads = [(line, _TITLE_PT, True, INK) for line in titles]
        heads += [(line, _SUBTITLE_PT, False, GRAY) for line in subtitles]
        header_in = MARGIN_IN + sum(line_in(size) for _, size, _, _ in heads) + 0.16
        self.width_in = width_in
        self._height_in = header_in + body_in
        self._header_in = header_in
        self.figure = Figure(figsize=(width_in, self._height_in), dpi=DPI, facecolor="white")
        top_in = MARGIN_IN - header_in
        for line, size, bold, color in heads:
            self.text(MARGIN_IN, top_in, line, size=size, bold=bold, color=color, va="top")
            top_in += line_in(size)

    def axes(self, left_in: float, top_in: float, wide_in: float, high_in: float) -> Axes:
        """Axes on a rectangle of the page."""
        bottom_in = self._height_in - self._header_in - top_in - high_in
        place = (left_in / self.width_in, bottom_in / self._height_in)
        return self.figure.add_axes((*place, wide_in / self.width_in, high_in / self._height_in))

    def at(self, x_in: float, y_in: float) -> tuple[float, float]:
        """A place as shares of the page, for artists."""
        return x_in / self.width_in, 1 - (self._header_in + y_in) / self._height_in

    def text(
        self,
        x_in: float,
        y_in: float,
        words: str,
        *,
        size: float = 9.0,
        color: str = INK,
        bold: bool = False,
        ha: str = "left",
        va: str = "center_baseline",
        rotation: float = 0.0,
    ) -> Text:
        """Write one line; the caller makes sure that it fits."""
        weight = "bold" if bold else "normal"
        return self.figure.text(
            *self.at(x_in, y_in), words, size=size, color=color, weight=weight, ha=ha, va=va, rotation=rotation
        )


def line_in(size: float) -> float:
    """Height of a line of text of ``size`` points, in inches."""
    return size * _LINE_HEIGHT / 72


def width_in(text: str, size: float, *, bold: bool = False) -> float:
    """How wide ``text`` is at ``size`` points, in inches; inside `house_style`."""
    return _width_px(text, size, bold, tuple(rcParams["font.family"])) / DPI


def drawable(text: str) -> str:
    """``text`` with control characters written out, and a box for every letter that no font has."""
    known = [_letters_of(findfont(FontProperties(family=face))) for face in rcParams["font.family"]]
    return "".join(
        letter if any(ord(letter) in letters for letters in known) else _UNDRAWABLE for letter in printable(text)
    )


def fitted(text: str, room_in: float, size: float, *, bold: bool = False) -> str:
    """``text`` as it can be drawn, with an ellipsis in its middle where it is wider than ``room_in``."""
    return shortened(drawable(text[:_LONGEST]), _Face(size, bold), room_in)


def fitted_names(names: Sequence[str], room_in: float, size: float, *, bold: bool = False) -> list[str]:
    """Each name as `fitted`; names that would look alike get their number, from 1, in front."""
    texts = [fitted(name, room_in, size, bold=bold) for name in names]
    seen = Counter(texts)
    return [
        text if seen[text] == 1 else fitted(f"#{number} {name}", room_in, size, bold=bold)
        for number, (text, name) in enumerate(zip(texts, names, strict=True), start=1)
    ]


def wrapped(text: str, room_in: float, size: float, *, bold: bool = False, most: int = 4) -> list[str]:
    """``text`` as it can be drawn, in lines no wider than ``room_in``; what is over after ``most`` lines is cut."""
    lines: list[str] = []
    for word in drawable(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == most or width_in(longer, size, bold=bold) <= room_in):
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, _Face(size, bold), room_in) for line in lines]


def short_count(count: int) -> str:
    """At most four letters: ``999``, ``1.2k``, ``12k``, ``3.4M``.

    >>> short_count(999), short_count(1234), short_count(12345), short_count(999999), short_count(3400000000)
    ('999', '1.2k', '12k', '1.0M', '3.4G')
    """
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f}{_UNITS[unit]}" if unit and value < 9.95 else f"{value:.0f}{_UNITS[unit]}"


def number_or_none(value: float | None) -> float | None:
    """``value``, or None for NaN and infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


class _Face:
    """Measures text in inches, for `shortened`."""

    def __init__(self, size: float, bold: bool) -> None:
        self._size, self._bold = size, bold

    def getlength(self, text: str, /) -> float:
        return width_in(text, self._size, bold=self._bold)


@lru_cache(maxsize=4096)
def _width_px(text: str, size: float, bold: bool, faces: tuple[str, ...]) -> float:
    face = FontProperties(family=list(faces), size=size, weight="bold" if bold else "normal")
    wide_px, _, _ = _ruler().get_text_width_height_descent(text, face, ismath=False)
    return float(wide_px)


@lru_cache(maxsize=1)
def _ruler() -> RendererAgg:
    return RendererAgg(8, 8, DPI)


def _faces() -> list[str]:
    """The font that comes with matplotlib and, for letters that it lacks, those of the machine that have them."""
    there = {entry.name for entry in fontManager.ttflist}
    return [_FACE, *(face for face in _FURTHER_FACES if face in there)]


@lru_cache(maxsize=32)
def _letters_of(font_file: str) -> frozenset[int]:
    return frozenset(get_font(font_file).get_charmap())
