"""YAML as people write it: a key that is written twice is an error, and every error has its line."""

from __future__ import annotations

import codecs
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from d2tune.errors import ProjectError

_MERGE = "tag:yaml.org,2002:merge"

_HINTS = {
    "'\\t'": "Indent with spaces; YAML allows no tabs there.",
    "unknown escape": "In double quotes a backslash begins an escape: write Windows paths in single quotes or with /.",
    "another document": "Keep one document: remove the line ---.",
}
"""What to do, by words of the problem."""


def read_yaml(file: Path) -> Any:
    """The content of a YAML file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        ProjectError: The file cannot be read or is not valid YAML, or a mapping in it has a key twice.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        hint = "Name the file. To continue the run in a folder: d2tune train PROJECT.yaml --resume --output-dir FOLDER."
        raise ProjectError("is a folder", file=file, expected="a project file", hint=hint) from None
    except OSError as error:
        raise ProjectError(f"cannot be read: {error.strerror or error}", file=file) from None
    return parse_yaml(_decoded(content, file), file=file)


def parse_yaml(text: str, *, file: Path | None = None) -> Any:
    """The value of a YAML text.

    Args:
        text: One document.
        file: The file that errors name.

    Raises:
        ProjectError: The text is not valid YAML, or a mapping in it has a key twice.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _refuse_repeated_keys(root, loader, file)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        problem = getattr(error, "problem", None) or str(error)
        if problem.startswith("but"):
            problem = f"{getattr(error, 'context', None)}, {problem}"
        hint = next((hint for words, hint in _HINTS.items() if words in problem), None)
        raise ProjectError(f"is not valid YAML: {problem}", file=file, place=place, hint=hint) from None
    except (ValueError, OverflowError) as error:
        # a date or a number that its own pattern allows and Python does not, such as 2024-02-31
        raise ProjectError(f"is not valid YAML: {error}", file=file, hint="Write such a text in quotes.") from None
    except RecursionError:
        raise ProjectError("is not valid YAML: it is nested too deeply", file=file) from None


def _decoded(content: bytes, file: Path) -> str:
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ProjectError(
            "is not UTF-8 text",
            file=file,
            place=f"line {line}",
            found=f"byte 0x{content[error.start]:02x}",
            hint="Save the file as UTF-8.",
        ) from None


def _refuse_repeated_keys(root: Node, loader: yaml.SafeLoader, file: Path | None) -> None:
    """Look at all mappings below a node; keys that a merge (``<<``) brings may be replaced, so they do not count."""
    waiting: list[tuple[Node, str, frozenset[int]]] = [(root, "", frozenset())]
    seen: set[int] = set()
    while waiting:
        node, place, above = waiting.pop()
        if id(node) in above:
            raise ProjectError("an alias contains itself", file=file, place=_place(node, place))
        if id(node) in seen or isinstance(node, ScalarNode):
            continue
        seen.add(id(node))
        within = above | {id(node)}
        if isinstance(node, SequenceNode):
            waiting += [(item, f"{place}[{number}]", within) for number, item in enumerate(node.value)]
        elif isinstance(node, MappingNode):
            _refuse_repeated(node, loader, place, file)
            for key, value in node.value:
                inner = str(key.value) if isinstance(key, ScalarNode) else "?"
                waiting.append((value, f"{place}.{inner}" if place else inner, within))


def _refuse_repeated(node: MappingNode, loader: yaml.SafeLoader, place: str, file: Path | None) -> None:
    first: dict[Hashable, Node] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            continue
        value = (_MERGE,) if key.tag == _MERGE else loader.construct_object(key)
        if not isinstance(value, Hashable):
            continue
        if value in first:
            hint = "Keep one of them."
            if key.tag == _MERGE:
                hint = "Merge several mappings in one list: <<: [*a, *b]."
            raise ProjectError(
                f"the key {key.value!r} is written twice",
                file=file,
                place=place or None,
                found=f"line {first[value].start_mark.line + 1} and line {key.start_mark.line + 1}",
                hint=hint,
            )
        first[value] = key


def _place(node: Node, place: str) -> str:
    line = f"line {node.start_mark.line + 1}"
    return f"{place}, {line}" if place else line
