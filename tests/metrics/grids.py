"""Grids of seeds: a few in every run, all of them with the marker ``extended``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest


def seeds(count: int, *, few: Collection[int] = (0, 1)) -> list[Any]:
    """The seeds from 0 to ``count - 1``; all but ``few`` carry the marker ``extended``."""
    return [seed if seed in few else pytest.param(seed, marks=pytest.mark.extended) for seed in range(count)]
