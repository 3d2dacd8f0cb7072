"""The lowest score of the instances of each class, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from d2tune.errors import PackageError, check_range
from d2tune.modeling.loaded import DEFAULT_THRESHOLD
from d2tune.packages.manifest import Manifest, Threshold
from d2tune.packages.measured import Described
from d2tune.project.yaml_files import read_yaml
from d2tune.text import counted, describe, nearest_hint

BEST_F1: Literal["best-f1"] = "best-f1"

LEAST_OBJECTS = 30
"""Annotated objects of a class behind its best-F1 threshold, so that it is taken without being asked for.

A threshold that is best on few objects is best for their chance: on new images its F1 is lower than that of the best
threshold, by 5 to 7 points in the mean of 5 objects, 3 to 4 of 10, about 2 of 20, and 1.3 to 1.7 of 30, of which 9 in
10 thresholds lose under 5 points (``benchmarks/thresholds.py``). From 30 objects on that is less than what the default
loses where it does not fit a model.
"""


_ORIGINS = {"best-f1": "best F1 on {objects}", "given": "given when it was packaged", "default": "default: {why}"}


def choose_thresholds(
    choice: str | None, classes: Sequence[str], rows: Sequence[Mapping[str, Any]] | None
) -> dict[str, Threshold]:
    """The threshold of each class.

    Args:
        choice: ``best-f1`` takes the best-F1 threshold of each class that has one; a number is for all classes; a file
            of YAML or JSON has a number for some or all classes. None, and what a file does not name, takes the
            best-F1 threshold of classes with at least `LEAST_OBJECTS` objects, and the default for others.
        classes: The classes in the order of their ids.
        rows: The classes of the evaluation of the weights; None where they were not evaluated.

    Raises:
        PackageError: The number is not between 0 and 1, the file cannot be read or names an unknown class, or there is
            no evaluation that ``best-f1`` needs.
        ProjectError: The file is not valid YAML.
    """
    if choice == BEST_F1 and rows is None:
        hint = "Evaluate them first with `d2tune eval RUN`, or give a number."
        raise PackageError("the weights have no evaluation", place="--thresholds", found=BEST_F1, hint=hint)
    given = {} if choice in (None, BEST_F1) else _given(str(choice), classes)
    least = 1 if choice == BEST_F1 else LEAST_OBJECTS
    by_class = {str(row["name"]): row for row in rows or ()}
    return {
        name: Threshold(value=given[name], origin="given")
        if name in given
        else _of_evaluation(by_class.get(name), least, evaluated=rows is not None)
        for name in classes
    }


def origin_in_words(manifest: Described, name: str) -> str:
    """Where the threshold of a class comes from: ``best F1 on 50 objects: precision 88.9 %, recall 48.0 %``."""
    threshold = manifest.thresholds[name]
    objects = counted(threshold.objects or 0, "object")
    words, quality = _ORIGINS[threshold.origin].format(objects=objects, why=threshold.why), quality_of(manifest, name)
    return f"{words}: {quality}" if quality else words


def quality_of(manifest: Described, name: str) -> str:
    """Precision and recall of the instances that have the best-F1 threshold of a class; empty where not known."""
    rows = manifest.metrics.classes if manifest.metrics else ()
    best = next((row.get("best_f1") for row in rows if row.get("name") == name), None)
    values = [best.get(key) for key in ("precision", "recall")] if isinstance(best, dict) else []
    numbers = [value for value in values if isinstance(value, (int, float))]
    if manifest.thresholds[name].origin != BEST_F1 or len(numbers) < 2:
        return ""
    return f"precision {numbers[0]:.1f} %, recall {numbers[1]:.1f} %"


def threshold_lines(manifest: Manifest) -> list[str]:
    """The thresholds with their origins, classes that share both in one line: ``balloon 0.5 (given)``."""
    lines: dict[str, list[str]] = {}
    for name, one in manifest.thresholds.items():
        lines.setdefault(f"{one.value:g} ({origin_in_words(manifest, name)})", []).append(name)
    return [f"{', '.join(names)} {line}" for line, names in lines.items()]


def _of_evaluation(row: Mapping[str, Any] | None, least: int, *, evaluated: bool) -> Threshold:
    if row is None:
        why = "the evaluation does not have the class" if evaluated else "the weights were not evaluated"
        return Threshold(value=DEFAULT_THRESHOLD, origin="default", why=why)
    objects, best = int(row["instances"]), row["best_f1"]
    if best["threshold"] is None:
        return Threshold(value=DEFAULT_THRESHOLD, origin="default", why=str(best["reason"]))
    if objects < least:
        why = f"{counted(objects, 'object')} in the evaluation, fewer than {least}"
        return Threshold(value=DEFAULT_THRESHOLD, origin="default", why=why)
    # rounded down, so that the instance with this score has it
    return Threshold(value=math.floor(1e6 * best["threshold"] + 1e-6) / 1e6, origin=BEST_F1, objects=objects)


def _given(choice: str, classes: Sequence[str]) -> dict[str, float]:
    try:
        number = float(choice)
    except ValueError:
        return _from_file(Path(choice), classes)
    check_range(number, place="--thresholds", least=0, most=1)
    return dict.fromkeys(classes, number)


def _from_file(path: Path, classes: Sequence[str]) -> dict[str, float]:
    expected = "best-f1, a number from 0 to 1, or a file with a number for each class, such as `car: 0.4`"
    if not path.is_file():
        raise PackageError("there is no such file", file=path, place="--thresholds", expected=expected)
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise PackageError("has no thresholds", file=path, found=describe(content), expected=expected)
    for name, value in content.items():
        if name not in classes:
            hint = nearest_hint(str(name), classes) or f"The classes are {', '.join(classes)}."
            raise PackageError("is not a class of the run", file=path, place=str(name), hint=hint)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise PackageError(
                "the threshold is invalid", file=path, place=str(name), found=describe(value), expected="from 0 to 1"
            )
    return {str(name): float(value) for name, value in content.items()}
