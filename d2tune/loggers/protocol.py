"""What a dashboard must be able to do besides taking scalars."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ImageLog(Protocol):
    """Takes a PNG under a name."""

    def log_image(self, key: str, file: Path) -> None:
        """Log the image."""
