"""A folder of images with predictions, and the page for judging them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.world import Served, opened, served, write_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


@pytest.fixture
def site(world: Path) -> Iterator[Served]:
    with served(opened(world, title="Cats & dogs")) as running:
        yield running
