"""What to do next, each piece based on a value of the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from d2tune.evaluation.images.base import OF_TIDE, MistakeKind
from d2tune.metrics.coco.summary import SHOWN_SCORE
from d2tune.metrics.metric import Metric
from d2tune.report.check_page.advice import Advice, listed
from d2tune.review.sources import Side, section
from d2tune.text import counted

MOST = 6
"""How many pieces are given at most."""

_WIDE, _FEW_IMAGES = 15.0, 100
_COSTLY, _COSTLY_SIZE = 3.0, 15.0
_FEW_INSTANCES = 50
_WEAK = 0.6

_COSTS: dict[MistakeKind, tuple[str, str]] = {
    "missed": (
        "Objects are missed",
        "Annotate more images with objects like those below, and train longer or on larger images "
        "(`train.image_size`). If the missed ones have predictions of a low score, lower the thresholds.",
    ),
    "bad outline": (
        "Outlines are too far off",
        "Check the annotated outlines of the objects below first; then try larger images or a finer preset.",
    ),
    "wrong class": (
        "Classes are mixed up",
        "Look at the confusion below: annotate more of the rarer class of a pair, or merge classes that people cannot "
        "tell apart either, with `data.rename`.",
    ),
    "false alarm": (
        "False alarms cost precision",
        "Add images without objects that show what is predicted falsely; they are used as negatives. A higher "
        "threshold removes those of low scores.",
    ),
    "duplicate": (
        "Objects are predicted twice",
        "Check that parts of one object are not annotated as several; a lower `MODEL.ROI_HEADS.NMS_THRESH_TEST` "
        "removes more of the overlapping predictions.",
    ),
    "wrong class and outline": (
        "Predictions of a wrong class with a poor outline",
        "Look at them below: objects of a class that is not annotated are often among them.",
    ),
}


def advice(side: Side, *, leaks: int = 0) -> list[Advice]:
    """What to do next, the urgent first.

    Args:
        side: The model.
        leaks: Groups of near-duplicates that lie in both splits.
    """
    pieces = [*_data(side, leaks), *_course(side), *_costs(side), *_sizes(side), *_classes(side), *_scores(side)]
    pieces += list(_precision(side))
    return sorted(pieces, key=lambda piece: not piece.urgent)[:MOST]


def _data(side: Side, leaks: int) -> Iterator[Advice]:
    if leaks:
        text = (
            "The metrics are too high, because the model has seen nearly the same images in training. Keep each "
            "group in one split, as `d2tune split` does, and train again."
        )
        yield Advice(f"Near-duplicates lie in both splits ({counted(leaks, 'group')})", text, urgent=True)
    if section(side.record, "data").get("rendered_sample"):
        yield Advice("These are rendered images", "The metrics say nothing about photos. Train on your own data next.")


def _course(side: Side) -> Iterator[Advice]:
    place = side.main_place
    curve = None if place is None else side.history.curves.get(place.scalar)
    if curve is None or len(curve.values) < 2 or place is None:
        return
    best = max(range(len(curve.values)), key=curve.values.__getitem__)
    gain = curve.values[-1] - curve.values[-2]
    if best == len(curve.values) - 1 and gain > 1:
        text = (
            f"{place.title} rose by {gain:.1f} points between the last two evaluations. Train longer: "
            f"`--resume train.iterations={2 * curve.iterations[-1]}`."
        )
        yield Advice("It was still improving at the end", text)
    elif curve.values[best] - curve.values[-1] > 3:
        text = (
            f"{place.title} fell from {curve.values[best]:.1f} at iteration {curve.iterations[best]:,} to "
            f"{curve.values[-1]:.1f} at the end; the best weights were kept. Train shorter, or on more images."
        )
        yield Advice("It got worse after its best evaluation", text)


def _costs(side: Side) -> Iterator[Advice]:
    errors = section(side.evaluation, "analysis", "errors", "errors")
    costs = {OF_TIDE[kind]: section(error, "dAP").get("value") or 0.0 for kind, error in errors.items()}
    for kind, cost in sorted(costs.items(), key=lambda pair: -pair[1])[:2]:
        if cost >= _COSTLY:
            title, text = _COSTS[kind]
            yield Advice(f"{title}: {cost:.1f} points of AP50", text)


def _sizes(side: Side) -> Iterator[Advice]:
    rows = [row for row in section(side.evaluation, "analysis").get("sizes", ()) if row["AP"]["value"] is not None]
    if len(rows) < 2:
        return
    smallest, best = rows[0], max(rows, key=lambda row: row["AP"]["value"])
    low, high = smallest["AP"]["value"], best["AP"]["value"]
    if low < 0.5 * high and high - low > _COSTLY_SIZE:
        text = (
            f"AP is {low:.1f} for objects {smallest['name']}, and {high:.1f} {best['name']}. Train on larger images "
            "(`train.image_size`), or predict in windows: `d2tune eval RUN --windows`."
        )
        yield Advice("Small objects are weak", text)


def _classes(side: Side) -> Iterator[Advice]:
    rows = class_values(side)
    values = [value for _, value in rows if value is not None]
    if len(values) < 2:
        return
    mean = sum(values) / len(values)
    trained = section(side.record, "data", "train_instances")
    weak = sorted((value, name) for name, value in rows if value is not None and value < _WEAK * mean)
    if not weak:
        return
    few = [name for _, name in weak if trained.get(name, _FEW_INSTANCES) < _FEW_INSTANCES]
    names = listed([name for _, name in weak], limit=3)
    text = f"The mean over all classes is {mean:.1f}, that of {names} is {weak[0][0]:.1f}"
    text += " or more." if len(weak) > 1 else "."
    text += (
        f" {listed(few, limit=3)} had few objects to train on: annotate more." if few else " Look at the errors below."
    )
    yield Advice(f"Weak: {names}", text)


def _scores(side: Side) -> Iterator[Advice]:
    rows: Sequence[dict[str, Any]] = side.evaluation.get("classes", ())
    points = [(row["name"], row["best_f1"]) for row in rows if section(row, "best_f1").get("threshold") is not None]
    far = [(name, point) for name, point in points if abs(point["threshold"] - SHOWN_SCORE) > 0.2]
    if far:
        name, point = max(far, key=lambda pair: abs(pair[1]["threshold"] - SHOWN_SCORE))
        text = (
            f"For {name}, {point['threshold']:.2f} gives a precision of {point['precision']:.0f} % and a recall of "
            f"{point['recall']:.0f} %. `d2tune package RUN --thresholds best-f1` keeps such thresholds with the model."
        )
        yield Advice(f"{SHOWN_SCORE:g} is not the best threshold", text)


def _precision(side: Side) -> Iterator[Advice]:
    main, images = side.main, side.evaluation.get("images", 0)
    if main is None or main.low is None or main.high is None or main.high - main.low < _WIDE or images >= _FEW_IMAGES:
        return
    text = (
        f"On {counted(images, 'image')} the interval is {main.high - main.low:.0f} points wide: smaller improvements "
        "cannot be distinguished from chance. Four times as many images halve it."
    )
    yield Advice("The validation split is small", text)


def class_values(side: Side) -> list[tuple[str, float | None]]:
    """Each class with its value of the main metric, or of the metric of classes."""
    place, pairs = side.main_place, []
    for row in side.evaluation.get("classes", ()):
        metric = class_metric(row, place.kind if place else "", place.name if place else "")
        pairs.append((row["name"], None if metric is None else metric.value))
    return pairs


def class_metric(row: dict[str, Any], kind: str, name: str) -> Metric | None:
    """The metric of a class: ``kind`` and ``name`` where it has kinds, else its first one."""
    metrics = row["metrics"]
    value = section(metrics, kind).get(name) or metrics.get(name) or next(iter(metrics.values()), None)
    return Metric(**value) if isinstance(value, dict) and "value" in value else None
