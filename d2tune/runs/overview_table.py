"""A list of runs as a table: filtered, sorted, and as wide as the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from d2tune.errors import ProjectError
from d2tune.metrics.metric import with_interval
from d2tune.report.tables import format_table
from d2tune.runs.overview import STATES, RunSummary
from d2tune.text import counted, duration, in_bytes, nearest_hint, printable

_SORTS: dict[str, Callable[[RunSummary], float | str]] = {
    "started": lambda run: _seconds(run.started or run.ended),
    "metric": lambda run: -1.0 if run.metric is None or run.metric.value is None else run.metric.value,
    "time": lambda run: run.training_s or 0.0,
    "size": lambda run: float(run.size_bytes),
    "project": lambda run: run.project,
    "state": lambda run: run.state,
}
SORTS = tuple(_SORTS)
"""What runs can be sorted by; numbers begin with the highest, names with the first."""

_DROPPED = ("train data", "steps", "size", "time", "started", "val data")
"""Columns that a narrow terminal does not get, the first one first."""

_SHORTEST_NOTE = 24


def arranged(
    runs: Sequence[RunSummary],
    *,
    sort: str = "started",
    reverse: bool = False,
    states: Sequence[str] = (),
    data: str | None = None,
    last: int | None = None,
) -> list[RunSummary]:
    """The wanted runs in the wanted order.

    Args:
        runs: All runs.
        sort: One of `SORTS`.
        reverse: Whether the order is reversed.
        states: States to keep; none keeps all.
        data: How the hash of the training or the validation split begins; None keeps all.
        last: How many to keep, the first ones of this order; None keeps all.

    Raises:
        ProjectError: A value is invalid.
    """
    _check(sort, SORTS, place="--sort")
    for state in states:
        _check(state, STATES, place="--state")
    if last is not None and last < 1:
        raise ProjectError("must be 1 or more", place="--last", found=str(last))
    kept = [run for run in runs if not states or run.state in states]
    if data is not None:
        hashes = data.strip().lower()
        kept = [
            run for run in kept if any((one or "").startswith(hashes) for one in (run.train_sha256, run.val_sha256))
        ]
    key = _SORTS[sort]
    has_names = all(isinstance(key(run), str) for run in kept)
    return sorted(kept, key=key, reverse=reverse == has_names)[:last]


def _check(value: str, known: Sequence[str], *, place: str) -> None:
    if value not in known:
        raise ProjectError(
            "is not valid", place=place, found=value, expected=", ".join(known), hint=nearest_hint(value, known)
        )


def runs_table(runs: Sequence[RunSummary], *, width: int | None = None) -> str:
    """The runs as a table with a line below it that counts them.

    Args:
        runs: The runs, in their order.
        width: Letters that fit on a line; columns are dropped and notes are cut to keep to it. None keeps everything.
    """
    columns = _columns(runs)
    dropped = list(_DROPPED)
    while (text := _formatted(columns, width)) is None and dropped:
        columns.pop(dropped.pop(0), None)
    table = text if text is not None else _formatted(_with_short_notes(columns), None)
    return f"{table}\n\n{_counts(runs)}"


def _columns(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    """The cells of each column by its header."""
    columns: dict[str, list[str]] = {"run": [printable(str(run.path)) for run in runs]}
    if any(run.project not in run.path.parts for run in runs):
        columns["project"] = [printable(run.project) for run in runs]
    columns |= {
        "state": [run.state for run in runs],
        "steps": [_steps(run) for run in runs],
        "metric (95 % interval)": [_metric(run) for run in runs],
        "train data": [(run.train_sha256 or "-")[:8] for run in runs],
        "val data": [(run.val_sha256 or "-")[:8] for run in runs],
        "started": ["-" if run.started is None else f"{run.started:%Y-%m-%d %H:%M}" for run in runs],
        "time": ["-" if run.training_s is None else duration(run.training_s) for run in runs],
        "size": [in_bytes(run.size_bytes) for run in runs],
    }
    notes = [_note(run) for run in runs]
    return columns | ({"note": notes} if any(notes) else {})


def _formatted(columns: dict[str, list[str]], width: int | None) -> str | None:
    """The table; None where it is wider than ``width`` with notes cut to `_SHORTEST_NOTE`."""
    cells = dict(columns)
    if width is not None and "note" in cells:
        others = {name: column for name, column in cells.items() if name != "note"}
        room = width - 2 - _width(others)
        if room < _SHORTEST_NOTE:
            return None
        cells["note"] = _cut(cells["note"], room)
    if width is not None and _width(cells) > width:
        return None
    align = "".join("r" if name in ("time", "size") else "l" for name in cells)
    return format_table(list(zip(*cells.values(), strict=True)), header=list(cells), align=align)


def _with_short_notes(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """The columns for a terminal that is too narrow in any case."""
    return columns | ({"note": _cut(columns["note"], _SHORTEST_NOTE)} if "note" in columns else {})


def _cut(notes: list[str], room: int) -> list[str]:
    return [note if len(note) <= room else f"{note[: room - 3]}..." for note in notes]


def _width(columns: dict[str, list[str]]) -> int:
    return sum(max(map(len, (name, *column))) for name, column in columns.items()) + 2 * (len(columns) - 1)


def _steps(run: RunSummary) -> str:
    if run.all_iterations is None or run.state == "finished":
        return str(run.iterations)
    share = f" ({100 * run.iterations // run.all_iterations} %)" if run.all_iterations else ""
    return f"{run.iterations}/{run.all_iterations}{share}"


def _metric(run: RunSummary) -> str:
    if run.metric is None:
        return "-"
    if run.metric.value is None:
        return f"{run.metric_name} -"
    return f"{run.metric_name} {with_interval(run.metric)}{' best' if run.is_best else ''}"


def _note(run: RunSummary) -> str:
    left = f", {duration(run.left_s)} left" if run.left_s is not None else ""
    return printable(run.note + left)


def _counts(runs: Sequence[RunSummary]) -> str:
    """``3 runs (2 finished, 1 running), 408 MB``."""
    by_state = {state: sum(run.state == state for run in runs) for state in STATES}
    states = ", ".join(f"{count} {state}" for state, count in by_state.items() if count)
    size = in_bytes(sum(run.size_bytes for run in runs))
    return f"{counted(len(runs), 'run')} ({states}), {size}" if runs else "0 runs"


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
