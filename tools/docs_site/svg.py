"""Small drawings as SVG: shapes and text on a white card, which light and dark pages show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

TRUTH = "#0b7a3e"
PREDICTION = "#b3261e"
INK = "#1f2328"
FAINT = "#8a9099"
LINE = "#1558b0"

Point = tuple[float, float]


class Drawing:
    """What is drawn, in order.

    Args:
        width_px: Width.
        height_px: Height.
        title: What the drawing shows, for people who cannot see it.
    """

    def __init__(self, width_px: int, height_px: int, title: str) -> None:
        self._size = width_px, height_px
        self._title = title
        self._elements: list[str] = []

    def shape(self, name: str, **attributes: object) -> None:
        """Any element; underscores of attributes become hyphens."""
        written = " ".join(f'{key.replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
        self._elements.append(f"<{name} {written}/>")

    def text(self, at: Point, text: str, *, size: int = 13, color: str = INK, anchor: str = "start") -> None:
        """A line of text; ``anchor`` is ``start``, ``middle`` or ``end``."""
        x, y = at
        place = f'x="{_value(x)}" y="{_value(y)}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
        self._elements.append(f"<text {place}>{escape(text)}</text>")

    def line(self, points: Iterable[Point], *, color: str = LINE, width: float = 2, dashes: str = "") -> None:
        """A line through points."""
        places = " ".join(f"{_value(x)},{_value(y)}" for x, y in points)
        extra = {"stroke_dasharray": dashes} if dashes else {}
        self.shape("polyline", points=places, fill="none", stroke=color, stroke_width=width, **extra)

    def svg(self) -> str:
        """The file."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" font-family="system-ui, sans-serif">'
        )
        card = f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>'
        return "\n".join([head, f"<title>{escape(self._title)}</title>", card, *self._elements, "</svg>", ""])


class Axes:
    """A chart whose axes go from 0 to 1.

    Args:
        drawing: Where it is drawn.
        left_px, top_px, side_px: Its place, and the length of both axes.
        labels: Of the horizontal and the vertical axis.
    """

    def __init__(self, drawing: Drawing, left_px: float, top_px: float, side_px: float, labels: Sequence[str]) -> None:
        self._left, self._bottom, self._side = left_px, top_px + side_px, side_px
        drawing.line(
            [(left_px, top_px), (left_px, self._bottom), (left_px + side_px, self._bottom)], color=FAINT, width=1
        )
        for value in (0, 0.5, 1):
            x, y = self.at(value, value)
            drawing.text((x, self._bottom + 16), f"{value:g}", size=11, color=FAINT, anchor="middle")
            drawing.text((left_px - 6, y + 4), f"{value:g}", size=11, color=FAINT, anchor="end")
        drawing.text((left_px + side_px / 2, self._bottom + 34), labels[0], size=12, anchor="middle")
        drawing.text((left_px - 24, top_px - 10), labels[1], size=12)

    def at(self, x: float, y: float) -> Point:
        """The place of a value in the drawing."""
        return self._left + x * self._side, self._bottom - y * self._side


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(str(value))
