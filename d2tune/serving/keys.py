"""Keys of clients: random, shown once, and kept as hashes in a file.

A key has 256 random bits, so a single SHA-256 is enough: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from d2tune import files
from d2tune.errors import ProjectError

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}) sha256:([0-9a-f]{64})")
_HEAD = "# Keys of `d2tune serve`: on each line a client and the SHA-256 of its key. Remove a line to revoke it.\n"
_LARGEST_BYTES = 1 << 20
_START = "d2t_"


class Keys:
    """The keys of a server.

    Args:
        hashes: The SHA-256 of each key, by the name of its client.
    """

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self._hashes = dict(hashes)

    def client(self, key: str) -> str | None:
        """The name of the client of a key, None for an unknown one; it takes the same time for all of them."""
        digest = hashlib.sha256(key.encode("utf-8", errors="surrogatepass")).digest()
        name = None
        for client, expected in self._hashes.items():
            if hmac.compare_digest(digest, expected):
                name = client
        return name


def key_of(headers: Mapping[str, str]) -> str | None:
    """The key in the headers of a request; None without.

    Args:
        headers: ``Authorization: Bearer KEY``, ``X-API-Key: KEY``, or ``Authorization: Basic`` with the key as the
            password, which browsers ask for.
    """
    if "x-api-key" in headers:
        return headers["x-api-key"]
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
        except ValueError:  # not base64, not ASCII, or not text
            return None
    return None


def read_keys(path: Path) -> Keys:
    """Read a file of keys.

    Raises:
        ProjectError: It cannot be read, a line is not that of a key, or it has none.
    """
    hashes = _read(path)
    if not hashes:
        raise ProjectError("the file has no keys", place=str(path), hint=_hint(path))
    return Keys(hashes)


def add_key(path: Path, name: str) -> str:
    """Make a key and add its hash to a file, which is created if it does not exist.

    Args:
        path: The file.
        name: Name of the client.

    Returns:
        The key, which is stored nowhere.

    Raises:
        ProjectError: The file cannot be read or written, or has this name already.
    """
    hashes = _read(path) if path.exists() else {}
    key = _START + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    if not _LINE.fullmatch(line):
        expected = "letters, digits, dots, dashes and underscores, at most 64"
        raise ProjectError("the name of the client is invalid", place="--new-key", found=name, expected=expected)
    if name in hashes:
        hint = "Remove its line to revoke its key, or choose another name."
        raise ProjectError("the client has a key already", place=str(path), found=name, hint=hint)
    before = path.read_text("utf-8") if path.exists() else _HEAD
    try:
        files.write_text(path, f"{before.rstrip()}\n{line}\n")
        path.chmod(0o600)
    except OSError as error:
        raise ProjectError(f"cannot be written: {error.strerror or error}", place=str(path)) from None
    return key


def _read(path: Path) -> dict[str, bytes]:
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST_BYTES).decode("utf-8-sig")
    except OSError as error:
        message = f"the file of keys cannot be read: {error.strerror or error}"
        raise ProjectError(message, place=str(path), hint=_hint(path)) from None
    except UnicodeDecodeError:
        raise ProjectError("the file of keys is not text", place=str(path), hint=_hint(path)) from None
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        hit = _LINE.fullmatch(line.strip())
        if hit is None:  # the line itself may be a key
            expected = "NAME sha256:HASH"
            raise ProjectError(
                "is not the hash of a key", place=f"{path}: line {number}", expected=expected, hint=_hint(path)
            )
        if hit[1] in hashes:
            message, hint = "the client has two keys", "Remove the line of one, or give it another name."
            raise ProjectError(message, place=f"{path}: line {number}", found=hit[1], hint=hint)
        hashes[hit[1]] = bytes.fromhex(hit[2])
    return hashes


def _hint(path: Path) -> str:
    return f"Make a key with `d2tune serve --new-key CLIENT --keys {path}`."
