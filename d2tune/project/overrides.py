"""Values laid over a project: words of the command line, dotted keys, sections merged key by key."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from d2tune.errors import ProjectError
from d2tune.project.yaml_files import parse_yaml

LENGTHS = ("epochs", "iterations", "budget")
"""Keys of ``train`` that say how long a training is, of which a project has at most one."""


def parse_overrides(tokens: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split trailing command-line words into project keys and raw Detectron2 keys.

    ``train.iterations=500`` is a project key, ``SOLVER.BASE_LR=0.001`` a Detectron2 key, and so is the pair
    of words ``SOLVER.BASE_LR 0.001``.

    Returns:
        Project overrides and Detectron2 overrides, each by dotted key, values read as YAML.

    Raises:
        ProjectError: A word is neither ``key=value`` nor the first of a pair.
    """
    project: dict[str, Any] = {}
    detectron2: dict[str, Any] = {}
    words = list(tokens)
    last: str | None = None
    while words:
        word = words.pop(0)
        if "=" in word:
            key, text = word.split("=", 1)
        elif words and not word.startswith("-") and "=" not in words[0]:
            key, text = word, words.pop(0)
        else:
            hint = "For example train.iterations=500."
            if last is not None:
                hint = f"A value with blanks needs quotes: '{last} {word}'."
            raise ProjectError(f"{word!r} is not an override", expected="key=value", hint=hint)
        last = word if "=" in word else None
        (detectron2 if key[:1].isupper() else project)[key] = _value(text, is_raw=key[:1].isupper())
    return project, detectron2


def _value(text: str, *, is_raw: bool) -> Any:
    """A value of the command line as YAML, or as text where it is not valid YAML."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    if isinstance(value, (dict, list)):
        value = parse_yaml(text)
    return number(value) if is_raw and isinstance(value, str) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level of dotted keys.

    Raises:
        ValueError: A key is there twice, nested and dotted.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        twice = next((name for name in inner if name in flat), None)
        if twice is not None:
            raise ValueError(f"the key {twice!r} is there twice; keep one of them")
        flat |= inner
    return flat


def numbers(value: Any) -> Any:
    """A value from YAML with texts that begin with a digit and read as numbers, such as ``1e-3``, as numbers."""
    if isinstance(value, dict):
        return {key: numbers(inner) for key, inner in value.items()}
    return number(value) if isinstance(value, str) and value[:1].isdigit() else value


def number(text: str) -> str | float:
    """A text as a number where it reads as one: YAML 1.1 takes ``1e-3`` for text."""
    try:
        return float(text)
    except ValueError:
        return text


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` merged in, section by section; `LENGTHS` that are set replace each other."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            _drop_rivals(merged, key, value)
            merged[key] = copy.deepcopy(value)
    return merged


def set_dotted(target: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested sections; `LENGTHS` that are set replace each other."""
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(target.get(section), dict):
            target[section] = {}
        target = target[section]
    _drop_rivals(target, last, value)
    target[last] = value


def _drop_rivals(section: dict[str, Any], key: str, value: Any) -> None:
    for rival in LENGTHS if key in LENGTHS and value is not None else ():
        section.pop(rival, None)
