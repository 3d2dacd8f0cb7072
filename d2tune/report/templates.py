"""Documents from templates, with everything that comes from files escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def filled(
    package: str,
    template: str,
    context: Mapping[str, Any],
    *,
    finalize: Callable[[Any], Any],
    keep_trailing_newline: bool = False,
) -> str:
    """A template of a package with its values; a missing value is an error.

    Args:
        package: The package with the folder ``templates``.
        template: Name of the file.
        context: The values by name.
        finalize: Applied to each value before it is escaped.
        keep_trailing_newline: Whether the document ends with the line end of the template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
    return environment.get_template(template).render(context)
