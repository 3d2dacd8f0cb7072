"""How a training went: the values of ``metrics.jsonl`` over the iterations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d2tune.text import counted

TOTAL_LOSS = "total_loss"
RATE = "lr"
_VALIDATION = "val/"


@dataclass(frozen=True, slots=True)
class Curve:
    """A value over the iterations.

    Attributes:
        iterations: Iterations completed when it was logged, rising.
        values: As many.
    """

    iterations: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The value after the last iteration."""
        return self.values[-1]


@dataclass(frozen=True, slots=True)
class History:
    """The curves of a training.

    Attributes:
        curves: By the name under which a value was logged.
        problem: What of the file cannot be read; empty where all of it can.
    """

    curves: Mapping[str, Curve] = field(default_factory=dict)
    problem: str = ""

    def losses(self) -> dict[str, Curve]:
        """The terms of the training loss, without their sum."""
        return {name: curve for name, curve in self.curves.items() if name.startswith("loss_")}

    def validation_loss(self) -> Curve | None:
        """The loss on the validation split, where it was logged."""
        names = [name for name in self.curves if name.startswith(_VALIDATION) and "loss" in name.split("/")[-1]]
        total = [name for name in names if name.endswith(TOTAL_LOSS)] or names
        return self.curves[total[0]] if len(total) == 1 else None


def read_history(path: Path) -> History:
    """Read ``metrics.jsonl``; of an iteration that was logged twice, as after a resume, the later line counts.

    Args:
        path: The file. A missing file has no curves.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return History(problem="no metrics were logged")
    except OSError as error:
        return History(problem=f"the logged metrics cannot be read: {error.strerror}")
    points: dict[str, dict[int, float]] = {}
    damaged = 0
    for line in lines:
        row = _row(line)
        if row is None:
            damaged += bool(line.strip())
            continue
        iteration = int(row.pop("iteration")) + 1
        for name, value in row.items():
            points.setdefault(name, {})[iteration] = value
    curves = {name: _curve(values) for name, values in points.items()}
    problem = f"{counted(damaged, 'line')} of the logged metrics cannot be read" if damaged else ""
    return History(curves, problem)


def _row(line: bytes) -> dict[str, float] | None:
    """The finite numbers of a line; None where it is not a line of metrics."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("iteration")) is not int:
        return None
    return {name: value for name, value in row.items() if type(value) in (int, float) and math.isfinite(value)}


def _curve(points: Mapping[int, float]) -> Curve:
    iterations: Sequence[int] = sorted(points)
    return Curve(tuple(iterations), tuple(float(points[at]) for at in iterations))
