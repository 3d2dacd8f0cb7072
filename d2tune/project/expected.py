"""What a key of a project file may hold, in words, from its type in the schema."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_UNIONS = (Union, types.UnionType)


def expected(field: FieldInfo) -> str:
    """What a field takes: ``a number above 0, or auto``; all members of a union are named."""
    return field.description or _words(field.annotation, field.metadata)


def expected_item(field: FieldInfo) -> str:
    """What an item of a list or the value of a mapping takes."""
    kind = next(kind for kind in members(field.annotation) if get_origin(kind) in (tuple, dict))
    arguments = get_args(kind)
    return _words(arguments[1 if get_origin(kind) is dict else 0], [])


def is_section(annotation: Any) -> type[BaseModel] | None:
    """The section that a type is, or that is a member of a union; None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in _UNIONS:
        return next((hit for hit in map(is_section, get_args(annotation)) if hit), None)
    return None


def members(annotation: Any) -> list[Any]:
    """The types of a union, or the one type, without their constraints and without null."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in _UNIONS:
        return [kind for one in get_args(annotation) if one is not type(None) for kind in members(one)]
    return [annotation]


def takes_none(field: FieldInfo) -> bool:
    """Whether null is a value of a field."""
    return type(None) in get_args(field.annotation)


def _words(annotation: Any, metadata: Sequence[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        described = next((item.description for item in extra if isinstance(item, FieldInfo) and item.description), None)
        return described or _words(inner, [*metadata, *extra])
    if origin in _UNIONS:
        members = sorted((one for one in get_args(annotation) if one is not type(None)), key=_is_literal)
        return ", or ".join(_words(member, metadata) for member in members)
    if origin is Literal:
        return _listed(str(value) for value in get_args(annotation))
    if origin is tuple:
        item, *rest = get_args(annotation)
        if rest == [Ellipsis]:
            return "a list of names" if item is str else f"a list, each item {_words(item, [])}"
        return f"a list of {1 + len(rest)}, each {_words(item, [])}"
    if origin is dict:
        _, value = get_args(annotation)
        return "a mapping" if value is Any else f"a mapping, each value {_words(value, [])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section of keys"
    return _scalar(annotation, metadata)


def _scalar(annotation: Any, metadata: Sequence[Any]) -> str:
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return _bounded("a whole number", metadata)
    if annotation is float:
        return _bounded("a number", metadata)
    return "a path" if annotation is Path else "text"


def _bounded(what: str, metadata: Sequence[Any]) -> str:
    limits = dict(_limits(metadata))
    low, high = limits.get("ge"), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        return f"{what} from {low} to {high}" if "le" in limits else f"{what} from {low} and below {high}"
    if "gt" in limits and high is not None:
        return f"{what} between {limits['gt']} and {high}"
    if "gt" in limits:
        return f"{what} above {limits['gt']}"
    return f"{what} of {low} or more" if low is not None else what


def _limits(metadata: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _limits(item.metadata)
        for key in ("gt", "ge", "lt", "le"):
            if getattr(item, key, None) is not None:
                yield key, getattr(item, key)


def _is_literal(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def without_empty(raw: Mapping[Any, Any], section: type[BaseModel], *, is_profile: bool = False) -> dict[Any, Any]:
    """A section as it was read, where a key with nothing behind it stands for an empty section, list or mapping.

    A section whose keys are all commented out is such a key. Other keys with nothing behind them stay, for their own
    check.

    Args:
        raw: The section as it was read.
        section: What it may hold.
        is_profile: Whether it is laid over another one, which such a key then leaves as it is.
    """
    cleaned: dict[Any, Any] = {}
    for key, value in raw.items():
        field = section.model_fields.get(key)
        inner = None if field is None else is_section(field.annotation)
        if field is not None and value is None and inner is not None and takes_none(field):
            cleaned[key] = None
        elif inner is not None and (value is None or isinstance(value, Mapping)):
            cleaned[key] = without_empty(value or {}, inner, is_profile=is_profile)
        elif field is not None and value is None and get_origin(field.annotation) in (tuple, dict):
            if not is_profile:
                cleaned[key] = {} if get_origin(field.annotation) is dict else []
        else:
            cleaned[key] = value
    return cleaned
