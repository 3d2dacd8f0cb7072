"""A package as a folder: it appears whole or not at all, and replaces only an unchanged package."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import PackageError
from d2tune.packages.card import card_of
from d2tune.packages.manifest import CARD, FORMAT, NAME, FileEntry, Manifest, is_package
from d2tune.packages.read import read_package
from d2tune.versions import own_version


def write_folder(
    out: Path, entries: Mapping[str, Any], fill: Callable[[Path], None], *, force: bool = False
) -> Manifest:
    """Write a package.

    Args:
        out: The folder, which must not exist or be empty; with ``force``, it may be an unchanged package.
        entries: The entries of ``package.json`` but for the versions and the files.
        fill: Writes all files but ``package.json`` and the card into the folder that it is given.
        force: Whether an unchanged package is replaced.

    Raises:
        PackageError: The folder has something else, or cannot be written.
    """
    check_replaceable(out, force=force)
    with _new_folder(out) as folder:
        fill(folder)
        listed = {path.name: _entry(path) for path in sorted(folder.iterdir())}
        manifest = _manifest(entries, listed)
        files.write_text(folder / CARD, card_of(manifest))
        manifest = _manifest(entries, listed | {CARD: _entry(folder / CARD)})
        files.write_bytes(folder / NAME, manifest.to_bytes())
    return manifest


def check_replaceable(out: Path, *, force: bool) -> None:
    """Check that nothing but an unchanged package would be lost.

    Raises:
        PackageError: The folder is not empty, and is not a package, or was changed, or ``force`` is not set.
    """
    if not os.path.lexists(out) or (_is_folder(out) and not any(out.iterdir())):
        return
    if not _is_folder(out):
        what = "a link" if out.is_symlink() else "a file"
        raise PackageError(f"{what} is already there and is not replaced", file=out, hint=_ELSEWHERE)
    if not is_package(out):
        raise PackageError("the folder is not empty, and is not a package", file=out, hint=_ELSEWHERE)
    if not force:
        hint = "Write to another folder with --out, or replace it with --force."
        raise PackageError("the package is already there and is not replaced", file=out, hint=hint)
    listed = read_package(out).manifest.files
    for path in sorted(out.iterdir()):
        if path.name not in (NAME, *listed):
            raise PackageError("the folder has a file that is not the package's", file=path, hint=_ELSEWHERE)


_ELSEWHERE = "Write to another folder with --out, or move it away."


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _manifest(entries: Mapping[str, Any], listed: Mapping[str, FileEntry]) -> Manifest:
    own: dict[str, Any] = {
        "d2tune_package": FORMAT,
        "d2tune": own_version(),
        "files": dict(sorted(listed.items())),
        "sha256": "0" * 64,
    }
    return Manifest.model_validate({**entries, **own})


def _entry(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=files.sha256_file(path))


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place when the context ends without an error."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name[:40]}.", suffix=".tmp", dir=out.parent))
    except FileExistsError:
        raise PackageError("the folder of the package is a file", file=out.parent, hint=_ELSEWHERE) from None
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        yield folder
        _finish(folder)
        _take_place(folder, out)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> PackageError:
    return PackageError(f"the package cannot be written: {error.strerror or error}", file=out)


def _finish(folder: Path) -> None:
    """Let the content of files reach the disk before their folder gets its name, and give all the usual rights."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    folder.chmod(0o777 & ~mask)


def _take_place(folder: Path, out: Path) -> None:
    """Rename a folder to ``out``; what is there is removed afterwards, or stays where renaming fails."""
    if not out.exists():
        folder.rename(out)
        return
    with tempfile.TemporaryDirectory(prefix=f".{out.name[:40]}.", suffix=".old.tmp", dir=out.parent) as old:
        aside = Path(old) / out.name
        out.rename(aside)
        try:
            folder.rename(out)
        except OSError:
            aside.rename(out)
            raise
