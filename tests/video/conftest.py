"""The videos that are encoded once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video.encoded import write_encoded


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos of `tests.video.encoded`."""
    return write_encoded(tmp_path_factory.mktemp("encoded"))
