"""How the file of a photo stores its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FULL_RANGE = 65535
"""The largest value of 16 bits."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the file of a photo stores its pixels, where that is not 8-bit gray, palette or RGB of one image.

    Attributes:
        kind: ``8-bit``; ``16-bit``: 9 to 16 bits without a sign; ``integer``: other whole numbers; ``float``.
        white: The stored value that becomes 255. It is the same for all 16-bit images of a project.
        is_stated: Whether the file states a smaller range than its type has.
        color: The color model that is converted to RGB, such as LAB or CMYK; empty for gray and RGB.
        has_frames: Whether the file has further images after the first.
    """

    kind: Literal["8-bit", "16-bit", "integer", "float"] = "8-bit"
    white: float = 255
    is_stated: bool = False
    color: str = ""
    has_frames: bool = False

    @property
    def is_deep(self) -> bool:
        """Whether values are divided by `white`, which the images of a project share."""
        return self.kind in ("16-bit", "integer")
