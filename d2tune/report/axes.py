"""The common pieces of charts as inline SVG: the field, its grid and its ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 22, 46
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def number(value: float) -> str:
    """A number with three significant digits and separated thousands.

    >>> number(0.04567), number(3.14159), number(12345.6), number(8.0)
    ('0.0457', '3.14', '12,346', '8')
    """
    if value == int(value) or abs(value) >= 100:
        return f"{round(value):,}"
    return f"{value:.3g}"


def svg(pieces: Sequence[str], name: str, *, height: float = HEIGHT) -> Markup:
    """A chart of the width of the field.

    Args:
        pieces: SVG elements.
        name: The text in place of the chart.
        height: Its height in its own units.
    """
    body = "".join(pieces)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(name)}">{body}</svg>'
    )


def chart(pieces: Sequence[str], x_label: str, name: str, *, center: float = LEFT + PLOT_WIDTH / 2) -> Markup:
    """A chart with a label below its x axis.

    Args:
        pieces: SVG elements.
        x_label: What the x axis shows.
        name: The text in place of the chart.
        center: Where the label is centered.
    """
    return svg([*pieces, f'<text class="axis middle" x="{center}" y="{HEIGHT - 8}">{escape(x_label)}</text>'], name)


def y_at(share: float) -> float:
    """The y coordinate of a share from 0 (bottom) to 1 (top) of the field."""
    return TOP + (1 - share) * PLOT_HEIGHT


def grid(y: float, text: str) -> str:
    """A horizontal line through the field with its value."""
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick end" x="{LEFT - 7}" y="{y + 4:.1f}">{escape(text)}</text>'
    )


def tick(x: float, text: str) -> str:
    """A value on the x axis."""
    y = HEIGHT - BOTTOM
    return (
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>'
        f'<text class="tick middle" x="{x:.1f}" y="{y + 17}">{escape(text)}</text>'
    )


def linear_ticks(low: float, high: float) -> list[float]:
    """About five round values between two values, both included."""
    step = nice_step((high - low) / 5)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def nice_step(rough: float) -> float:
    """The least of 1, 2, 5 times a power of 10 that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * 0.999999)


def nice_top(value: float) -> float:
    """The end of an axis from 0 that holds a value, at a round number."""
    step = nice_step(max(value, 1e-9) / 5)
    return math.ceil(value / step - 1e-9) * step
