"""An ``evaluation.json`` without the values that cannot be shown, so that one of them does not take the rest away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from d2tune.text import counted, describe

_COUNTS = ("instances", "found", "false", "pixels", "tp", "fp", "fn")
_REASON = "its entry in evaluation.json is invalid"


def cleaned(evaluation: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The evaluation with invalid metrics as undefined ones, and without rows of classes that have no valid counts.

    A metric is an object with the entry ``value``, a number or null, and the numbers ``low`` and ``high`` or neither.

    Args:
        evaluation: The content of an ``evaluation.json``.

    Returns:
        The evaluation, and a line about the values that are invalid; empty where all are valid.
    """
    invalid: list[tuple[str, Any]] = []
    content = {key: _cleaned(value, key, invalid) for key, value in evaluation.items()}
    metrics = content.get("metrics")
    if isinstance(metrics, dict):
        content["metrics"] = {kind: _metrics_only(values) for kind, values in metrics.items()}
    rows = content.get("classes")
    if isinstance(rows, list):
        content["classes"] = [row for at, row in enumerate(rows) if _is_class(row, f"classes.{at}", invalid)]
        if len(content["classes"]) < len(rows):
            content.pop("confusion", None)  # its rows are those of the classes
    if "images" in content and not _is_count(content["images"]):
        invalid.append(("images", content.pop("images")))
    if not invalid:
        return content, ""
    place, value = invalid[0]
    return content, f"{counted(len(invalid), 'value')} cannot be shown, such as {place}, which is {describe(value)}"


def _cleaned(value: Any, place: str, invalid: list[tuple[str, Any]]) -> Any:
    if isinstance(value, list):
        return [_cleaned(one, f"{place}.{at}", invalid) for at, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "value" in value:
        wrong = _wrong_entry(value)
        if wrong is not None:
            invalid.append((f"{place}.{wrong}", value.get(wrong)))
            return {"value": None, "low": None, "high": None, "reason": _REASON}
        return {key: value.get(key) for key in ("value", "low", "high", "reason")}
    return {key: _cleaned(one, f"{place}.{key}", invalid) for key, one in value.items()}


def _wrong_entry(metric: Mapping[str, Any]) -> str | None:
    """The first entry of a metric that is invalid; None where all are valid."""
    for key in ("value", "low", "high"):
        if metric.get(key) is not None and not _is_number(metric[key]):
            return key
    if (metric.get("low") is None) != (metric.get("high") is None):
        return "low" if metric.get("low") is None else "high"
    return "reason" if not isinstance(metric.get("reason"), str | None) else None


def _metrics_only(values: Any) -> dict[str, Any]:
    """Entries that are metrics; others of a kind are not shown."""
    return {name: one for name, one in values.items() if isinstance(one, dict)} if isinstance(values, dict) else {}


def _is_class(row: Any, place: str, invalid: list[tuple[str, Any]]) -> bool:
    if not isinstance(row, dict):
        invalid.append((place, row))
        return False
    if not isinstance(row.get("name"), str):
        invalid.append((f"{place}.name", row.get("name")))
        return False
    wrong = next((key for key in _COUNTS if key in row and not _is_count(row[key])), None)
    if wrong is not None:
        invalid.append((f"{place}.{wrong}", row[wrong]))
    return wrong is None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
