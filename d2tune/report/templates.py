"""Documents from templates, with everything that comes from files escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from d2tune.errors import DataError
from d2tune.text import printable


def filled(
    package: str,
    template: str,
    context: Mapping[str, Any],
    *,
    finalize: Callable[[Any], Any],
    keep_trailing_newline: bool = False,
) -> str:
    """A template of a package with its values; a missing value is an error.

    Templates may include ``page_head.html``, the beginning of a page with its ``page_title`` and ``generator``, and
    ``page.css``, the style of pages.

    Args:
        package: The package with the folder ``templates``.
        template: Name of the file.
        context: The values by name.
        finalize: Applied to each value before it is escaped.
        keep_trailing_newline: Whether the document ends with the line end of the template.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("d2tune.report", "styles")]),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
    return environment.get_template(template).render(context)


def readable(limit: int) -> Callable[[Any], Any]:
    """A ``finalize``: text without control characters and lone surrogates, shortened; markup and images unchanged.

    Args:
        limit: Most characters of a text.
    """

    def finalize(value: Any) -> Any:
        if not isinstance(value, str) or isinstance(value, Markup) or value.startswith("data:image/jpeg;base64,"):
            return value
        return printable(value if len(value) <= limit else f"{value[: limit - 1]}…")

    return finalize


def ticked(text: str) -> Markup:
    """Text with its backquoted words as HTML code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(printable(text)))))


def refuse_foreign_page(path: Path, generator: str) -> None:
    """Stop where a page would overwrite a file that is not a page of the same program.

    Args:
        path: The page to be written.
        generator: The program, which the first lines of its pages name.

    Raises:
        DataError: The file exists and is not such a page, or is a folder.
    """
    if path.is_dir():
        raise DataError("the report must be a file, not a folder", file=path, hint="Name a file, such as report.html.")
    if path.exists():
        with path.open("rb") as stream:
            start = stream.read(2000)
        if f'<meta name="generator" content="{generator}"'.encode() not in start:
            raise DataError(
                f"the file exists and is not a page of {generator}, so it is not overwritten",
                file=path,
                hint="Name another file.",
            )
