"""What a dashboard must be able to do besides taking scalars."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class PictureLog(Protocol):
    """Takes a PNG under a name."""

    def log_picture(self, key: str, file: Path) -> None:
        """Log the picture."""
