"""Which of several models is best, and how surely: paired comparisons on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d2tune.errors import D2TuneError, RunError
from d2tune.evaluation.comparison import RunComparison
from d2tune.metrics.bootstrap import Comparison
from d2tune.review.sources import Side
from d2tune.text import counted


@dataclass(frozen=True, slots=True)
class Standing:
    """Several models beside each other.

    Attributes:
        best: The model with the highest main metric; None without any metric.
        second: The next one on the same data; None where there is none.
        to_first: For each model the comparison of its main metric with that of the first one; None for the first one
            and where they cannot be compared.
        sentence: Which one is best, and how surely; empty for a single model.
        problems: A line about each model that cannot be compared.
    """

    best: Side | None
    second: Side | None
    to_first: tuple[Comparison | None, ...]
    sentence: str
    problems: tuple[str, ...]


def standing(sides: Sequence[Side]) -> Standing:
    """Compare models with the first one, and the best with the next one.

    Args:
        sides: At least one.
    """
    problems: list[str] = []
    scored = sorted((side for side in sides if _value(side) is not None), key=lambda side: -(_value(side) or 0.0))
    best = scored[0] if scored else None
    second = next((side for side in scored[1:] if best is not None and _on_same_data(side, best)), None)
    if len(sides) == 1:
        return Standing(best, None, (None,), "", ())
    made: dict[tuple[str, str], RunComparison | None] = {}

    def compared(a: Side, b: Side) -> RunComparison | None:
        key = a.name, b.name
        if key not in made:
            made[key] = _compared(a, b, problems)
        return made[key]

    reference = next((side for side in sides if side.compared is not None), sides[0])
    to_first = [None if side is reference else _main(compared(reference, side)) for side in sides]
    sentence = "" if best is None else f"{best.name} has the highest {_metric_name(best)}, {best.main}."
    if best is not None and second is not None:
        pair = (
            (reference, best) if second is reference else (reference, second) if best is reference else (second, best)
        )
        result = _main(compared(*pair))
        if result is not None:
            sentence = _sentence(best, second, result)
    return Standing(best, second, tuple(to_first), sentence, tuple(dict.fromkeys(problems)))


def _value(side: Side) -> float | None:
    return None if side.main is None else side.main.value


def _metric_name(side: Side) -> str:
    return "" if side.main_place is None else side.main_place.title


def _on_same_data(a: Side, b: Side) -> bool:
    """Whether two models were evaluated on the same data; what has no hash is on the data of its run."""
    hashes = [side.evaluation.get("data_sha256") or _hash_of_run(side) for side in (a, b)]
    return a.evaluation.get("task") == b.evaluation.get("task") and hashes[0] == hashes[1]


def _hash_of_run(side: Side) -> str | None:
    return None if side.evaluated is None else side.evaluated.content["data_sha256"]


def _compared(a: Side, b: Side, problems: list[str]) -> RunComparison | None:
    if a.compared is None or b.compared is None:
        missing = a if a.compared is None else b
        problems.append(f"{missing.name} is not compared with the others, because its predictions are not read")
        return None
    if a.compared.truth_sha256 != b.compared.truth_sha256:
        hint = "Evaluate both with `d2tune eval RUN --data DATA`, and compare them with `d2tune compare`."
        message = f"was evaluated on other data than {a.name}, so it is not compared with it"
        problems.append(RunError(message, file=b.name, hint=hint).one_line())
        return None
    try:
        return a.compared.compare(b.compared)
    except D2TuneError as error:
        problems.append(error.one_line())
        return None


def _main(comparison: RunComparison | None) -> Comparison | None:
    return None if comparison is None else comparison.metrics[comparison.main]


def _sentence(best: Side, second: Side, result: Comparison) -> str:
    """The best and the next one in words."""
    name = _metric_name(best)
    if result.difference is None or result.interval.low is None or result.interval.high is None:
        reason = result.interval.reason if result.difference is not None else result.verdict
        return f"{best.name} has the highest {name}, {best.main}; {reason}."
    low, high = sorted(abs(end) for end in (result.interval.low, result.interval.high))
    images = counted(result.images, "image")
    if result.better is None:
        span = f"{result.interval.low:+.1f} to {result.interval.high:+.1f}"
        return (
            f"{best.name} has the highest {name}, {best.main}, but on {images} it cannot be distinguished from "
            f"{second.name} with {second.main}: the 95 % interval of the difference is {span}."
        )
    return (
        f"{best.name} is better than {second.name}: {name} {best.main} against {second.main}, a difference of "
        f"{abs(result.difference):.1f} points (95 % interval {low:.1f} to {high:.1f}, {images})."
    )
