"""Cases of tests, a few of them by default and all of them on demand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def on_demand(cases: Iterable[Any], *by_default: Any) -> list[Any]:
    """What `pytest.mark.parametrize` takes: the cases that are run by default, all others marked `extended`."""
    chosen, all_cases = list(by_default), list(cases)
    assert chosen and all(case in all_cases for case in chosen), "a case by default that is none of the cases"
    return [case if case in chosen else as_extended(case) for case in all_cases]


def as_extended(case: Any) -> Any:
    """A case that is run on demand; a tuple has the values of several arguments."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.extended)
