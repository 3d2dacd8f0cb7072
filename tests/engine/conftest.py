"""Trainings of which the tests look at no plots."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_evaluations(without_plots: None) -> None:
    """Evaluations without plots in all tests of this folder."""
