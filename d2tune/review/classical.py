"""The classical methods that were scored for a project, beside its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d2tune.baseline.result import FOLDER, read_baseline
from d2tune.errors import D2TuneError, RunError
from d2tune.metrics.metric import Metric
from d2tune.review.sources import Side


@dataclass(frozen=True, slots=True)
class ClassicalRow:
    """A row of the table: a run or a method.

    Attributes:
        name: Its name.
        metric: The main metric with its interval.
        is_run: Whether it is a run.
        words: What was chosen in training; for a run its preset.
    """

    name: str
    metric: Metric
    is_run: bool
    words: str


def classical_rows(sides: Sequence[Side]) -> tuple[list[ClassicalRow], list[str]]:
    """The runs and the classical methods on the same data, the best first.

    ``d2tune baseline`` writes its file beside the run folders of the project.

    Args:
        sides: The models of a report, the first one a run.

    Returns:
        The rows, none where no method was scored; and a line about what cannot be shown.
    """
    first = sides[0]
    folder = first.path.resolve().parent / FOLDER
    try:
        baseline = read_baseline(folder)
    except D2TuneError as error:
        return [], [error.one_line()]
    if baseline is None or first.main is None:
        return [], []
    data_sha256 = first.evaluation.get("data_sha256")
    if baseline.data_sha256 != data_sha256:
        hint = "Run `d2tune baseline` again."
        message = "is of other data than the evaluation of the run, so its methods are not shown"
        return [], [RunError(message, file=folder, hint=hint).one_line()]
    same = [side for side in sides if side.evaluation.get("data_sha256") == data_sha256]
    rows = [
        ClassicalRow(side.name, side.main, True, (side.summary.preset if side.summary else None) or "")
        for side in same
        if side.main is not None
    ]
    rows += [ClassicalRow(row.title, row.main, False, row.chosen) for row in baseline.rows]
    return sorted(rows, key=lambda row: -1.0 if row.metric.value is None else row.metric.value, reverse=True), []
