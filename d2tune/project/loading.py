"""Reading a project file: YAML, profile, overrides, and every key checked."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from d2tune.errors import ProjectError, nearest
from d2tune.project.overrides import merge, numbers, set_dotted
from d2tune.project.profiles import choose_profile, take_profiles
from d2tune.project.schema import Project, Section

_NUMERIC = ("train", "detectron2")
"""Sections in which texts that read as numbers are numbers."""


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A project as read, with where it came from and which profile was merged.

    Attributes:
        project: The typed project, its relative paths made absolute.
        file: The project file.
        profile: The profile merged into it, or None.
    """

    project: Project
    file: Path
    profile: str | None

    def with_root(self, root: Path) -> LoadedProject:
        """The same project with its data in another folder."""
        data = self.project.data.model_copy(update={"root": root})
        return replace(self, project=self.project.model_copy(update={"data": data}))

    def with_detectron2(self, raw: Mapping[str, Any]) -> LoadedProject:
        """The same project with raw Detectron2 keys merged into its ``detectron2`` section."""
        merged = self.project.detectron2 | dict(raw)
        return replace(self, project=self.project.model_copy(update={"detectron2": merged}))


def load_project(
    path: str | Path,
    *,
    profile: str | None = None,
    hardware: Literal["gpu", "cpu"] = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> LoadedProject:
    """Read a project file, merge the profile for the hardware, and check every key.

    Args:
        path: A ``projects/*.yaml``.
        profile: Name of a profile to merge; None takes the one named as ``hardware``, where the file has it.
        hardware: What the machine has.
        overrides: Dotted project keys and their values, ``{"train.iterations": 500}``, merged last. Another
            ``data.root`` has no sample, unless ``data.sample`` is among them too.

    Raises:
        ProjectError: The file is missing or is not valid YAML, or a key or value in it is invalid.
    """
    file = Path(path)
    raw = _read_yaml(file)
    raw = {key: numbers(value) if key in _NUMERIC else value for key, value in raw.items()}
    profiles = take_profiles(raw, file)
    for name, section in profiles.items():
        _refuse_unknown(section, Project, file, f"profiles.{name}")
    chosen = choose_profile(profiles, profile, hardware, file)
    merged = merge(raw, profiles[chosen]) if chosen else raw
    for key, value in _without_sample(overrides or {}).items():
        set_dotted(merged, key, value)
    merged.setdefault("name", file.stem)
    _refuse_unknown(merged, Project, file, "")
    try:
        project = Project.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, file) from None
    return LoadedProject(_absolute(project, file.resolve().parent), file, chosen)


def _without_sample(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides, and no sample for a folder that a person named: a mistyped one must not be replaced."""
    return ({"data.sample": None} if "data.root" in overrides else {}) | dict(overrides)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        folder = file.parent if file.parent.is_dir() else Path()
        names = sorted(path.name for path in folder.glob("*.yaml"))
        like = nearest(file.name, names)
        raise ProjectError(
            "no such project file", file=file, hint=f"Did you mean {folder / like}?" if like else None
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"cannot be read: {error}", file=file) from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        raise ProjectError(f"is not valid YAML: {getattr(error, 'problem', error)}", file=file, place=place) from None
    if not isinstance(raw, dict):
        raise ProjectError(
            "is not a project", file=file, found=type(raw).__name__, expected="keys such as task, data and classes"
        )
    return raw


def _section_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((hit for hit in map(_section_of, get_args(annotation)) if hit), None)
    return None


def _refuse_unknown(raw: Mapping[Any, Any], section: type[Section], file: Path, place: str) -> None:
    fields = section.model_fields
    for key, value in raw.items():
        where = f"{place}.{key}" if place else str(key)
        if key not in fields:
            known = [*fields, "profiles"] if section is Project and not place else list(fields)
            like = nearest(str(key), known)
            hint = f"Did you mean {like!r}?" if like else f"Known here: {', '.join(known)}."
            raise ProjectError(f"unknown key {str(key)!r}", file=file, place=where, hint=hint)
        inner = _section_of(fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, file, where)


def _explained(error: ValidationError, file: Path) -> ProjectError:
    first = error.errors(include_url=False)[0]
    keys = [str(key) for key in first["loc"] if isinstance(key, int) or not _is_type_name(str(key))]
    place = ".".join(keys) or None
    if first["type"] == "missing":
        return ProjectError(f"{place} is missing", file=file)
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "value_error":
        return ProjectError(message, file=file, place=place)
    return ProjectError(message[:1].lower() + message[1:], file=file, place=place, found=repr(first["input"]))


def _is_type_name(key: str) -> bool:
    """Whether an error's location names a member of a union there, as pydantic does, and not a key of the file."""
    return key in ("str", "float", "int", "bool", "function-before") or key.startswith(("literal[", "constrained"))


def _absolute(project: Project, folder: Path) -> Project:
    root = project.data.root.expanduser()
    data = project.data.model_copy(update={"root": (folder / root).resolve()})
    weights = project.weights
    if weights not in ("auto", "scratch") and "://" not in weights:
        weights = str((folder / Path(weights).expanduser()).resolve())
    return project.model_copy(update={"data": data, "weights": weights})
