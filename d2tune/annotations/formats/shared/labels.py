"""The rules that turn the labels of annotation files into class names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import nearest
from d2tune.text import describe, printable

SPECIAL_LABELS = frozenset({"__ignore__", "_background_"})
"""Labels that never become a category."""

_SUFFIX = re.compile(r"(.+)-(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """A label after all rules: the class name, and the number after it in the old ``person-1`` style."""

    label: str
    number: str | None = None


class Labels:
    """The rules that turn a label into a class name."""

    def __init__(self, options: ReadOptions) -> None:
        self.names: tuple[str, ...] | None = None
        if options.labels is not None:
            self.names = tuple(dict.fromkeys(name for name in options.labels if name not in SPECIAL_LABELS))
        self._known = frozenset(self.names or ())
        self._rename = options.rename
        self._strip = options.instance_suffix == "strip"

    def read(self, raw: object, unit: Unit, shape: int | None, *, line: int | None = None) -> Name | None:
        """The class name for a label, or None with a finding that gives the reason."""
        if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
            message = f"the label is {describe(raw)}, expected text"
            unit.note("error", "bad_shape", message, shape=shape, line=line)
            return None
        if not isinstance(raw, str):
            text = describe(raw)
            message = f"the label is the number {text}; it is read as the text {text!r}"
            unit.note("warning", "label_not_string", message, shape=shape, line=line)
            raw = text
        label = raw.strip()
        if label != raw:
            message = f"the label {raw!r} has spaces around it; it is read as {label!r}"
            unit.note("warning", "label_whitespace", message, shape=shape, line=line)
        if not label:
            unit.note("error", "bad_shape", "the label is empty", shape=shape, line=line)
            return None
        return self._known_name(label, unit, shape, line)

    def class_of(self, label: str) -> tuple[str | None, str | None]:
        """The class of a label without spaces around it, None where the label is ignored, and its number."""
        number = None
        name: str | None = label
        if (
            self._strip
            and label not in self._known
            and label not in self._rename
            and (match := _SUFFIX.fullmatch(label))
        ):
            name, number = match[1], match[2]
        if name in self._rename:
            name = self._rename[name]
        return (None if name in SPECIAL_LABELS else name), number

    def _known_name(self, label: str, unit: Unit, shape: int | None, line: int | None) -> Name | None:
        name, number = self.class_of(label)
        if name is None:
            unit.note("info", "ignored_label", f"the label {label!r} is ignored", shape=shape, line=line)
            return None
        if self.names is not None and name not in self._known:
            message = f"the label {name!r} is not in the list of classes; data.rename or --rename changes labels"
            hint = nearest(name, self.names)
            unit.note("error", "unknown_label", message, shape=shape, line=line, hint=hint)
            return None
        if name not in unit.labels and not name.isprintable() and printable(name) != name:
            message = f"the label {name!r} has line ends, control characters or characters that are not valid Unicode"
            hint = "give it another name with data.rename or --rename"
            unit.note("warning", "label_not_printable", message, shape=shape, line=line, hint=hint)
        unit.labels.setdefault(name, shape)
        return Name(name, number)
