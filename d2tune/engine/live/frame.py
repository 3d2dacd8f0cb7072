"""The lines of the live view, from the numbers of a training."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from d2tune.engine.live.curve import curve
from d2tune.metrics.metric import Metric, with_interval
from d2tune.text import counted, duration, in_bytes, printable

if TYPE_CHECKING:
    from rich.text import Text

_LABEL = 9
"""Letters of the names at the beginning of lines."""

_WIDEST = 110
"""Columns that the view takes at most; the rest of a wide terminal stays empty."""

_CURVE = (8, 24)
"""Letters of the curve of the loss, at least and at most."""


@dataclass(slots=True)
class Scored:
    """An evaluation.

    Attributes:
        metric: The main metric, with its interval where there is one.
        iteration: Iterations after which it was measured.
    """

    metric: Metric
    iteration: int


@dataclass(slots=True)
class Progress:
    """The numbers of a training.

    Attributes:
        project: Name of the project.
        metric_name: Name of the main metric.
        total: All iterations.
        batch_size: Images of an iteration.
        done: Iterations completed.
        losses: The total loss of each iteration of this start.
        terms: Current losses by name, smoothed.
        loss: Current total loss, smoothed; None before the first iteration.
        rate: Learning rate.
        step_s: Seconds of an iteration.
        data_s: Those of them that were spent waiting for images.
        left_s: Seconds left, evaluations included; None before the second iteration.
        elapsed_s: Seconds since the start.
        evaluations_left: Evaluations that follow.
        next_evaluation: Iterations after which the next one comes; None where none follows.
        last: The last evaluation.
        best: The best one.
        memory_bytes: Memory that is used, and all that there is; None where it is not known.
        memory_of: Whose memory: ``GPU`` or ``process``.
        now: What is done now.
    """

    project: str
    metric_name: str
    total: int
    batch_size: int
    done: int = 0
    losses: array[float] = field(default_factory=lambda: array("d"))
    terms: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    rate: float | None = None
    step_s: float | None = None
    data_s: float | None = None
    left_s: float | None = None
    elapsed_s: float = 0.0
    evaluations_left: int = 0
    next_evaluation: int | None = None
    last: Scored | None = None
    best: Scored | None = None
    memory_bytes: tuple[int, int] | None = None
    memory_of: str = "process"
    now: str = "starting"


def frame(progress: Progress, columns: int, *, blocks: bool = True) -> list[Text]:
    """The lines of the view.

    Args:
        progress: The numbers.
        columns: Columns of the terminal; fields that do not fit on their line are dropped, the last ones first.
        blocks: Whether the terminal has the letters of bars and curves; else they are ASCII.
    """
    width = max(1, min(columns - 1, _WIDEST))
    return [
        _bar_line(progress, width, blocks=blocks),
        _line("loss", _loss_fields(progress, width, blocks=blocks), width),
        _line(progress.metric_name, _metric_fields(progress), width, style="bold"),
        _line("speed", _speed_fields(progress), width),
        _line("now", [progress.now, f"{duration(progress.elapsed_s)} so far"], width),
    ]


def _line(label: str, fields: Sequence[str], width: int, *, style: str = "") -> Text:
    from rich.text import Text

    line = Text().append(f"{printable(label)[: _LABEL - 1]:<{_LABEL}}", style="dim")
    for number, one in enumerate(fields):
        text = printable(one)
        if line.cell_len + len(text) > width and number:
            break
        line.append(text + "   ", style=style if number == 0 else "")
    line.rstrip()
    line.truncate(width)
    return line


def _bar_line(progress: Progress, width: int, *, blocks: bool) -> Text:
    from rich.text import Text

    share = progress.done / progress.total if progress.total else 1.0
    counts = f" {progress.done}/{progress.total} {int(100 * share)} %"
    left = "" if progress.left_s is None else f"  {duration(progress.left_s)} left"
    evaluations = counted(progress.evaluations_left, "evaluation") if progress.evaluations_left else ""
    more = f" with {evaluations}" if left and evaluations else ""
    name = printable(progress.project)
    line = Text().append(f"{name if len(name) < _LABEL else name[: _LABEL - 2] + '~':<{_LABEL}}", style="bold")
    bar = width - _LABEL - len(counts) - len(left) - len(more)
    if bar < 10:
        bar, more = bar + len(more), ""
    if bar >= 4:
        bar = min(bar, 40)
        full = round(bar * share)
        line.append(("━" if blocks else "#") * full, style="green")
        line.append(("─" if blocks else ".") * (bar - full), style="bright_black")
    line.append(counts.lstrip() if bar < 4 else counts)
    line.append(left + more)
    line.truncate(width)
    return line


def _loss_fields(progress: Progress, width: int, *, blocks: bool) -> list[str]:
    if progress.loss is None:
        return ["-"]
    least, most = _CURVE
    letters = max(least, min(most, width - _LABEL - 40))
    fields = [f"{progress.loss:.3f}", curve(progress.losses, letters, blocks=blocks)]
    terms = [f"{_short(name)} {value:.3f}" for name, value in progress.terms.items()]
    return [one for one in [*fields, *(terms if len(terms) > 1 else ())] if one]


def _short(name: str) -> str:
    """``loss_mask_point`` as ``mask_point``."""
    return name.removeprefix("loss_").removeprefix("loss/") or name


def _metric_fields(progress: Progress) -> list[str]:
    if progress.last is None:
        when = progress.next_evaluation
        return ["no evaluation follows" if when is None else f"evaluation after {when} iterations"]
    fields = [f"{with_interval(progress.last.metric)} after {progress.last.iteration}"]
    if progress.best is not None and progress.best.metric.value is not None:
        fields.append(f"best {progress.best.metric} after {progress.best.iteration}")
    if progress.next_evaluation is not None:
        fields.append(f"next after {progress.next_evaluation}")
    return fields


def _speed_fields(progress: Progress) -> list[str]:
    fields = []
    if progress.step_s:
        fields += [f"{progress.step_s:.2f} s/it", f"{progress.batch_size / progress.step_s:.1f} images/s"]
    if progress.memory_bytes is not None:
        used, total = map(in_bytes, progress.memory_bytes)
        fields.append(f"{progress.memory_of} memory {used} of {total}")
    if progress.rate is not None:
        fields.append(f"lr {progress.rate:.2g}")
    if progress.step_s and progress.data_s is not None:
        fields.append(f"waiting for images {100 * progress.data_s / progress.step_s:.0f} %")
    return fields or ["-"]
