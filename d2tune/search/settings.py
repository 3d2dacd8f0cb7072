"""What the trainings of one question have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2tune.project import Project, flatten

FREE = ("train.workers", "tracking", "tracking_group", "intended_use", "data.fold")
"""Keys of a project, or beginnings of them, that may differ between the trainings of one question."""


def settings_of(project: Project) -> dict[str, Any]:
    """The settings of a project by dotted key, without those that may differ; plain values as JSON has them."""
    settings: dict[str, Any] = flatten(project.model_dump(mode="json"))
    return {key: value for key, value in settings.items() if not is_free(key)}


def is_free(key: str) -> bool:
    """Whether a key may differ between the trainings of one question."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def first_difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key whose value changed, with both values as text; None if there is none."""
    for key in sorted({*then, *now}):
        if then.get(key) != now.get(key):
            return key, _shown(then, key), _shown(now, key)
    return None


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "nothing"
