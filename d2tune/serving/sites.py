"""Whose pages may make a browser call a server: neither those of other sites nor those that only seem to be its own.

A browser sends requests to any address that a page names, with the rights of the person before it: to a server on the
same machine or network, which no firewall stands before. What a page of another site may send without asking is refused
by the headers that the browser adds. A page whose own name an attacker points at the address of the server (DNS
rebinding) is of the same site for the browser; it is refused by that name.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from d2tune.errors import ProjectError

ANY = "*"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PRIVATE_ENDS = (".localhost", ".local", ".internal", ".lan", ".svc", ".home.arpa")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:.]+\](:\d{1,5})?")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def is_foreign_page(method: str, headers: Headers, *, origins: Collection[str], names: Collection[str]) -> bool:
    """Whether a request is a change that a browser sends for a page of another site.

    Browsers add ``Sec-Fetch-Site`` where the address is HTTPS or of their own machine, and ``Origin`` to all changes;
    see https://www.w3.org/TR/fetch-metadata and RFC 6454. Programs add neither.

    Args:
        method: The method; requests that change nothing are answered, because the page cannot read the answer.
        headers: The headers.
        origins: Origins whose pages may call the server.
        names: Names by which the server is known, also where a proxy in front puts another one into ``Host``.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if method in _SAFE or (origin is not None and (origin in origins or ANY in origins)):
        return False
    if site is not None:
        return site not in ("same-origin", "none")
    if origin is None:
        return False
    own = urlsplit(origin) if _ORIGIN.fullmatch(origin) else None
    return own is None or (own.netloc != headers.get("host", "").lower() and own.hostname not in names)


def is_known_host(host: str, names: Collection[str]) -> bool:
    """Whether the header ``Host`` cannot be the name of a stranger's page.

    Addresses are not names, and the names of a machine or of a private network are not those of pages elsewhere:
    without a dot, or with an end that no public name has (RFC 6761, 6762 and 8375, ``.internal``, ``.lan``, ``.svc``).

    Args:
        host: The header, empty where there is none: browsers always send it.
        names: Further names by which the server is known.
    """
    if not host:
        return True
    hit = _HOST.fullmatch(host.lower())
    if hit is None:
        return False
    name = hit[1].strip("[]").rstrip(".")
    if "." not in name or name.endswith(_PRIVATE_ENDS) or name in names or name == socket.gethostname().lower():
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def check_sites(origins: Collection[str], names: Collection[str]) -> None:
    """Refuse origins and names of hosts that no browser sends as they are written.

    Raises:
        ProjectError: One is.
    """
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            expected = "such as https://their.site or http://localhost:3000, in lower case and without a path; * is any"
            raise ProjectError("is not an origin", place="--cors", found=origin, expected=expected)
    for name in names:
        if not _NAME.fullmatch(name):
            expected = "a name in lower case without a port, such as models.example.com"
            raise ProjectError("is not the name of a host", place="--allow-host", found=name, expected=expected)
