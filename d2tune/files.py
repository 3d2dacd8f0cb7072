"""Atomic writing of files, hashes, locks, and the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from d2tune.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that is renamed to ``path`` when the context ends without an error.

    Raises:
        OSError: The folder cannot be created or written; no temporary file remains.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(target)  # a full disk names no file
        raise


_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp")


def temporary_of(path: Path) -> str | None:
    """The name, up to 40 letters of it, that a temporary file of `atomic_write` would get; None for other files."""
    hit = _TEMPORARY.fullmatch(path.name)
    return hit["name"] if hit else None


def put_second_name(path: Path, second: Path) -> None:
    """Give a file a second name, in the same folder, and replace what had this name; at no time is one missing.

    Where a file system has no hard links the file is copied.

    Raises:
        OSError: The folder cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f".{second.name[:40]}.", suffix=".tmp", dir=second.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.unlink()
        try:
            temporary.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, second)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_write(path) as stream:
        stream.write(content)


def write_chunks(path: str | Path, chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` to ``path`` in order, atomically; from a generator, a single chunk is in memory."""
    with atomic_write(path) as stream:
        stream.writelines(chunks)


def holds(path: str | Path, chunks: Iterable[bytes]) -> bool:
    """Whether ``path`` is a file whose content is exactly ``chunks`` in order."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as stream:
        return all(stream.read(len(chunk)) == chunk for chunk in chunks) and not stream.read(1)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically, with the line ends as given."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Write ``value`` as UTF-8 JSON, atomically; lone surrogates become escapes.

    Raises:
        ValueError: ``value`` has NaN or an infinite number, which JSON does not allow.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8", errors="backslashreplace"))


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_files(folder: str | Path, paths: Iterable[Path]) -> str:
    """A SHA-256 over the names, relative to ``folder``, and the contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        name = path.relative_to(folder).as_posix()
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0" + bytes.fromhex(sha256_file(path)))
    return digest.hexdigest()


def refuse_foreign(path: Path, *, is_own: Callable[[bytes], bool]) -> None:
    """Check that a file to be written replaces only an earlier file of the same kind.

    Args:
        path: The file to be written.
        is_own: Whether the content of an existing file is of this kind.

    Raises:
        DataError: The file exists, is not empty, and is not of this kind.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return
    if content.strip() and not is_own(content):
        raise DataError(
            "the file exists, is not of this kind, and is not overwritten",
            file=path,
            hint="Write to another file.",
        )


def holds_rows_with(content: bytes, keys: Iterable[str]) -> bool:
    """Whether ``content`` is a JSON list of objects that all have ``keys``."""
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError):
        return False
    wanted = set(keys)
    return isinstance(rows, list) and all(isinstance(row, dict) and wanted <= set(row) for row in rows)


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder until it is closed by the processes that have it, or they end.

    Returns:
        Whether it is locked; False if another process has it, None where the system or the file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def cache_folder() -> Path:
    """The folder of downloads and label maps: ``D2TUNE_CACHE``, or ``d2tune`` in the cache folder of the user."""
    own = os.environ.get("D2TUNE_CACHE", "").strip()
    if own:
        return Path(own).expanduser()
    import platformdirs  # here, because the installer uses this module before anything is installed

    return platformdirs.user_cache_path("d2tune", appauthor=False)
