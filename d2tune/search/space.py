"""The space of a search: keys of a project and the values that they may have, from a YAML file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from d2tune.errors import ProjectError
from d2tune.project import LoadedProject, flatten
from d2tune.project.overrides import number
from d2tune.project.yaml_files import read_yaml
from d2tune.text import describe, nearest_hint

if TYPE_CHECKING:
    from optuna import Trial

Load = Callable[[Sequence[str]], LoadedProject]
"""Reads the project of a search with further overrides, ``key=value``."""

Kind = Literal["uniform", "log_uniform", "integer", "choice"]

KINDS: tuple[Kind, ...] = ("uniform", "log_uniform", "integer", "choice")

_FIXED = (
    *("name", "task", "data", "classes", "things", "stuff", "tracking", "tracking_group", "intended_use"),
    *("train.seed", "SEED"),
)
"""Keys that no trial may have of its own, with those below them: their metrics could not be compared, or by luck."""

_EXAMPLE = "such as train.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A key, and the values that it may have.

    Attributes:
        key: A dotted key of a project, or a raw Detectron2 key.
        kind: ``uniform`` and ``log_uniform`` are numbers between two ends, ``integer`` whole numbers from one to
            another, ``choice`` any of some values.
        low: The lower end, included.
        high: The upper end, included.
        step: Distance of whole numbers.
        choices: The values of a choice.
    """

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Trial) -> Any:
        """The value in a trial, which is stored with it."""
        if self.kind == "choice":  # as text, because Optuna stores no lists
            return json.loads(str(trial.suggest_categorical(self.key, [json.dumps(one) for one in self.choices])))
        if self.kind == "integer":
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=self.step)
        return trial.suggest_float(self.key, self.low, self.high, log=self.kind == "log_uniform")

    def stored(self, value: Any) -> Any:
        """A value as it is, from how it is stored."""
        return json.loads(value) if self.kind == "choice" else value

    def word(self, value: Any) -> str:
        """The override that sets a value."""
        return f"{self.key}={json.dumps(value)}"

    def examples(self) -> tuple[Any, ...]:
        """The ends, or all choices."""
        if self.kind == "choice":
            return self.choices
        if self.kind == "integer":
            return int(self.low), int(self.high) - int(self.high - self.low) % self.step
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class Space:
    """What a search varies.

    Attributes:
        file: Where it was read from.
        parameters: In the order of the file.
    """

    file: Path
    parameters: tuple[Parameter, ...]

    def to_json(self) -> dict[str, Any]:
        """The parameters by key, as JSON has them."""
        plain = {one.key: asdict(one) for one in self.parameters}
        return dict(json.loads(json.dumps(plain)))

    def words(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these values."""
        return [one.word(values[one.key]) for one in self.parameters]


def read_space(file: Path, load: Load) -> Space:
    """Read a space, and check each end and choice as an override of the project.

    Args:
        file: A YAML file with a key and its values a line.
        load: Reads the project.

    Raises:
        ProjectError: The file, a key or a value is invalid.
    """
    try:
        raw = read_yaml(file)
    except FileNotFoundError:
        raise ProjectError("no such file", file=file, hint=f"Write a key and its values, {_EXAMPLE}.") from None
    if not isinstance(raw, dict) or not raw:
        raise ProjectError(
            "is not the space of a search",
            file=file,
            found=describe(raw),
            expected=f"keys with their values, {_EXAMPLE}",
        )
    space = Space(file, tuple(_parameter(file, str(key), value) for key, value in raw.items()))
    for one in space.parameters:
        _check(space, one, load)
    return space


def _parameter(file: Path, key: str, raw: Any) -> Parameter:
    """The parameter of a line.

    Raises:
        ProjectError: It is invalid.
    """

    def wrong(message: str, value: Any = raw, hint: str | None = None) -> ProjectError:
        return ProjectError(message, file=file, place=key, found=describe(value), hint=hint)

    fixed = next((one for one in _FIXED if key == one or key.startswith(f"{one}.")), None)
    if fixed is not None:
        raise ProjectError(
            "cannot be searched: trials with other values of it cannot be compared",
            file=file,
            place=key,
            hint=f"Remove it; keys outside of {', '.join(_FIXED)} can be searched.",
        )
    if not isinstance(raw, dict):
        raise wrong(f"must be a mapping, {_EXAMPLE}")
    unknown = next((str(name) for name in raw if name not in (*KINDS, "step")), None)
    if unknown is not None:
        near = nearest_hint(unknown, KINDS, otherwise="Keys are dotted, such as train.learning_rate.")
        raise wrong(f"unknown kind of values {unknown!r}; the kinds are {', '.join(KINDS)}", hint=near)
    kinds = [kind for kind in KINDS if kind in raw]
    if len(kinds) != 1:
        raise wrong(f"must have one of {', '.join(KINDS)}")
    (kind,) = kinds
    if "step" in raw and kind != "integer":
        raise wrong("step goes with integer")
    if kind == "choice":
        choices = raw[kind]
        if not isinstance(choices, list) or len(choices) < 2 or _repeated(choices):
            raise wrong("choice must be a list of two different values or more", choices)
        return Parameter(key=key, kind=kind, choices=tuple(choices))
    low, high = _ends(raw[kind], whole=kind == "integer") or (0.0, 0.0)
    if not low < high:
        what = "two whole numbers" if kind == "integer" else "two numbers"
        raise wrong(f"{kind} must be {what}, the smaller first", raw[kind])
    if kind == "log_uniform" and low <= 0:
        raise wrong("log_uniform must be above 0", low)
    step = raw.get("step", 1)
    if kind == "integer" and (not isinstance(step, int) or isinstance(step, bool) or not 1 <= step <= high - low):
        raise wrong(f"step must be a whole number from 1 to {high - low:g}", step)
    return Parameter(key=key, kind=kind, low=low, high=high, step=step)


def _ends(value: Any, *, whole: bool) -> tuple[float, float] | None:
    """The ends of a range; None where they are not two finite numbers."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    ends = [number(end) if isinstance(end, str) else end for end in value]  # YAML 1.1 takes 1e-3 for text
    if any(not isinstance(end, int | float) or isinstance(end, bool) or not abs(end) < 1e15 for end in ends):
        return None
    low, high = map(float, ends)
    if whole and not (low.is_integer() and high.is_integer()):
        return None
    return low, high


def _repeated(choices: Sequence[Any]) -> bool:
    try:
        texts = [json.dumps(choice) for choice in choices]
    except (TypeError, ValueError):  # a date or a mapping with other keys than texts
        return True
    return len(set(texts)) < len(texts)


def _check(space: Space, one: Parameter, load: Load) -> None:
    """Check the ends or choices of a parameter with the project, and a fraction between the ends.

    Raises:
        ProjectError: A value is invalid.
    """
    is_raw = one.key[:1].isupper()
    ends = one.examples()
    fraction = math.floor((one.low + one.high) / 2) + 0.5
    fractions = [min(fraction, one.high)] if one.kind in ("uniform", "log_uniform") else []
    for value in (*ends, *fractions):
        try:
            loaded = load([one.word(value)])
            if is_raw:
                _check_raw(one.key, loaded)
            if one.key == "model.preset":
                _check_preset(loaded)
        except ProjectError as error:
            is_around = error.place is None or one.key == error.place or one.key.startswith(f"{error.place}.")
            message = error.message if is_around else f"{error.place}: {error.message}"
            hint = error.hint or (None if value in ends else "Whole numbers are of the kind integer.")
            raise ProjectError(
                message, file=space.file, place=one.key, found=error.found, expected=error.expected, hint=hint
            ) from None


def _check_raw(key: str, loaded: LoadedProject) -> None:
    from d2tune.modeling.config import DERIVED, preset_config

    if key not in loaded.project.detectron2:  # a key that the project has a key of its own for
        return
    known = flatten(preset_config(loaded.project.model.preset))
    if key in DERIVED:
        raise ProjectError("is derived and cannot be set", place=key, hint=DERIVED[key])
    if key not in known:
        raise ProjectError("Detectron2 has no such key", place=key, hint=nearest_hint(key, known))
    value = loaded.project.detectron2[key]
    if type(known[key]) is int and isinstance(value, float) and not value.is_integer():
        raise ProjectError("must be a whole number", place=key, found=describe(value))


def _check_preset(loaded: LoadedProject) -> None:
    from d2tune.modeling.config import check_model

    check_model(loaded.project)
