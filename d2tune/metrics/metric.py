"""One value of an evaluation, and the arithmetic of values that may be undefined."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Metric:
    """A value from 0 to 100, or None and the reason why it cannot be computed.

    Attributes:
        value: The value.
        reason: Why there is no value.
        low: Lower end of its interval, where an interval was computed.
        high: Upper end of its interval, where an interval was computed.
    """

    value: float | None
    reason: str | None = None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | str | None]:
        """A plain dict: ``value``, ``low``, ``high``, ``reason``."""
        return {"value": self.value, "low": self.low, "high": self.high, "reason": self.reason}

    def __str__(self) -> str:
        return "-" if self.value is None else f"{self.value:.1f}"


def metric(value: float | NDArray[np.float64], reason: str) -> Metric:
    """``value``, a number or an array without dimensions, as a `Metric`; NaN becomes None with ``reason``."""
    number = float(value)
    return Metric(None, reason) if math.isnan(number) else Metric(number)


def ratio(numerator: NDArray[Any] | np.float64, denominator: NDArray[Any] | np.float64) -> NDArray[np.float64]:
    """``numerator / denominator``, and NaN where the denominator is 0; the shapes are broadcast."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    quotient: NDArray[np.float64] = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return quotient


def mean_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of the values that are not NaN; NaN where all are NaN."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def with_interval(metric: Metric) -> str:
    """``56.1 (48.2 to 63.0)``, or the reason why there is no value."""
    if metric.value is None:
        return f"- ({metric.reason})"
    if metric.low is None or metric.high is None:
        return str(metric)
    return f"{metric} ({metric.low:.1f} to {metric.high:.1f})"
