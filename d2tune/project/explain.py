"""What is wrong with a value of a project file, from the error of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from d2tune.errors import ProjectError
from d2tune.project.expected import expected, expected_item, is_section, members, takes_none
from d2tune.project.schema import Project
from d2tune.text import describe, nearest_hint

_LONGEST_VALUE = 80
_QUOTES = "Names that YAML reads as numbers, dates or truth values need quotes, such as '1' or 'yes'."


def refuse_unknown(raw: Mapping[Any, Any], section: type[BaseModel], file: Path, place: str) -> None:
    """Refuse a key that a section does not have.

    Raises:
        ProjectError: There is one; the hint names the most similar key.
    """
    fields = section.model_fields
    if (
        section is Project
        and not place
        and "data" not in raw
        and "names" in raw
        and {"train", "val", "nc"} & raw.keys()
    ):
        message = "the file describes a YOLO data set and is not a project file"
        next_step = f"Name its folder, {file.parent}, or write a project file with `d2tune new`."
        raise ProjectError(message, file=file, hint=next_step)
    for key, value in raw.items():
        where = f"{place}.{key}" if place else str(key)
        if key not in fields:
            known = [*fields, "profiles"] if section is Project and not place else list(fields)
            hint = nearest_hint(str(key), known, otherwise=f"Known here: {', '.join(known)}.")
            raise ProjectError(f"unknown key {str(key)!r}", file=file, place=where, hint=hint)
        inner = is_section(fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            refuse_unknown(value, inner, file, where)


def explained(error: ValidationError, raw: Mapping[str, Any], file: Path) -> ProjectError:
    """The first error of the schema as a line: the key, what it takes (all of a union), what was found, what to do.

    Args:
        error: Of the schema.
        raw: The project as it was read.
        file: The project file.
    """
    first = error.errors(include_url=False)[0]
    keys, field = _place(first["loc"])
    place = ".".join(map(str, keys)) or None
    if first["type"] == "missing":
        hint = "Name the folder of the images: data: {root: FOLDER}." if keys in (["data"], ["data", "root"]) else None
        return ProjectError(f"{place} is missing", file=file, hint=hint)
    if first["type"] == "value_error":
        return ProjectError(str(first["msg"]).removeprefix("Value error, "), file=file, place=place)
    if field is None:
        message = str(first["msg"])
        return ProjectError(message[:1].lower() + message[1:], file=file, place=place, found=_shown(first["input"]))
    depth = _depth(keys)
    if len(keys) > depth:
        item, value = expected_item(field), first["input"]
        hint = _QUOTES if item == "text" and not isinstance(value, (dict, list)) else None
        return ProjectError(f"must be {item}", file=file, place=place, found=_shown(value), hint=hint)
    value = _value_at(raw, keys)
    if value is None and not takes_none(field):
        hint = f"Write a value, or remove the key for its default, {_default(field)}."
        return ProjectError(f"is empty, but must be {expected(field)}", file=file, place=place, hint=hint)
    hint = _hint(str(keys[-1]), field, value)
    return ProjectError(f"must be {expected(field)}", file=file, place=place, found=_shown(value), hint=hint)


def _depth(keys: list[str | int]) -> int:
    """How many of the keys lead to a field of the schema, those below it not counted."""
    section: type[BaseModel] | None = Project
    for depth, key in enumerate(keys):
        if section is None or key not in section.model_fields:
            return depth
        section = is_section(section.model_fields[str(key)].annotation)
    return len(keys)


def _place(loc: tuple[int | str, ...]) -> tuple[list[str | int], FieldInfo | None]:
    """The keys of the file in an error's location, which names members of unions as well, and the last field."""
    keys: list[str | int] = []
    section: type[BaseModel] | None = Project
    field: FieldInfo | None = None
    for key in loc:
        if section is not None and key in section.model_fields:
            field = section.model_fields[str(key)]
            section = is_section(field.annotation)
            keys.append(key)
        elif isinstance(key, int) or (field is not None and _is_key_of_mapping(key, field, keys)):
            keys.append(key)
    return keys, field


def _is_key_of_mapping(key: str, field: FieldInfo, keys: list[str | int]) -> bool:
    return get_origin(field.annotation) is dict and key != "[key]" and len(keys) == _depth(keys)


def _value_at(raw: Mapping[str, Any], keys: list[str | int]) -> Any:
    value: Any = raw
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _hint(key: str, field: FieldInfo, value: object) -> str | None:
    kinds = members(field.annotation)
    lists = [kind for kind in kinds if get_origin(kind) is tuple]
    is_item = isinstance(value, (int, float)) and any(Ellipsis in get_args(kind) for kind in lists)
    if lists and (isinstance(value, str) or (is_item and not isinstance(value, bool))):
        return f"Write a list: {key}: [{value}]."
    if isinstance(value, str):
        choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        return nearest_hint(value, choices)
    if isinstance(value, dict) and lists:
        return f"Write a list: {key}: [{', '.join(map(str, value.values()))}]."
    if isinstance(value, list) and key in ("train", "val"):
        return "`d2tune split` writes a list of images, which may be of several folders."
    if key == "val":
        return "Write 0.2 to set a fifth of the images aside, or a folder; a name that is a number needs quotes."
    if str in kinds and not isinstance(value, (dict, list)):
        return _QUOTES
    return None


def _default(field: FieldInfo) -> str:
    return describe(field.get_default(call_default_factory=True))


def _shown(value: object) -> str:
    return describe(value, limit=_LONGEST_VALUE)
