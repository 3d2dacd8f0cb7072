"""Fetch a public data set whose every file is known by its SHA-256."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from d2tune.errors import DataError, nearest
from d2tune.files import sha256_file

NAMES = ("balloon",)
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True)
class FetchResult:
    """The result of a download.

    Attributes:
        name: The data set.
        folder: The folder that holds its ``train`` and ``val``.
        files: How many files were checked.
        size_bytes: Their size together.
        source: The address they came from, None where the folder already had them.
    """

    name: str
    folder: Path
    files: int
    size_bytes: int
    source: str | None

    def summary(self) -> str:
        """One sentence for people."""
        origin = "already present" if self.source is None else f"from {self.source}"
        size_mb = self.size_bytes / 1e6
        return f"{self.name}: {self.files} files, {size_mb:.0f} MB, all checked, in {self.folder} ({origin})"


@dataclass(frozen=True)
class _File:
    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    url: str
    files: tuple[_File, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def fetch(name: str, out: str | Path, *, url: str | None = None, force: bool = False) -> FetchResult:
    """Put the public data set ``name`` into ``out``, as the folders ``train`` and ``val``.

    A folder that already has every file stays unchanged. A download that fails leaves nothing behind.

    Args:
        name: One of ``NAMES``.
        out: The folder to make.
        url: Where to take the archive from (a mirror, or ``file:///...``). Without it the environment variable
            ``D2TUNE_<NAME>_URL`` is used, and without that the place where the set was published.
        force: Replace a folder that has damaged or missing files of the set; other files stay, with an error.

    Raises:
        DataError: An unknown name, no network, an archive that is damaged or has other files than the known ones,
            or a folder that is in use.
    """
    if name not in NAMES:
        guess = nearest(name, NAMES)
        raise DataError(
            f"there is no public data set named {name!r}",
            expected=", ".join(NAMES),
            hint=f"Did you mean {guess}?" if guess else None,
        )
    manifest = _read_manifest(name)
    source = url or os.environ.get(f"D2TUNE_{name.upper()}_URL") or manifest.url
    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()):
        if _is_complete(folder, manifest):
            return FetchResult(name, folder, len(manifest.files), manifest.size_bytes, None)
        if not force:
            raise DataError(
                "the folder is not empty and does not have all files of the set",
                file=folder,
                hint="Name another folder, or pass --force to replace the files of the set",
            )
        _refuse_others(folder, manifest)
    elif folder.exists() and not folder.is_dir():
        raise DataError("the output must be a folder, not a file", file=folder, hint="Name another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            archive = _download(source, Path(temporary), folder=folder)
            _extract(archive, manifest, Path(temporary, "new"), source=source)
            _put_in_place(Path(temporary, "new"), folder, aside=Path(temporary, "old"))
    except OSError as error:
        raise DataError(f"the folder cannot be written: {error.strerror or error}", file=folder) from error
    return FetchResult(name, folder, len(manifest.files), manifest.size_bytes, source)


def _refuse_others(folder: Path, manifest: _Manifest) -> None:
    """Refuse to replace a folder that has files which are not of the set."""
    of_set = {file.path for file in manifest.files}
    below = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
    other = next((path for path in below if path.relative_to(folder).as_posix() not in of_set), None)
    if other is not None:
        raise DataError(
            "the folder has a file that is not of the set",
            file=other,
            hint="Name another folder, or move the file away",
        )


def _read_manifest(name: str) -> _Manifest:
    content = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    files = tuple(_File(entry["path"], entry["bytes"], entry["sha256"]) for entry in content["files"])
    return _Manifest(content["url"], files)


def _is_complete(folder: Path, manifest: _Manifest) -> bool:
    def fits(file: _File) -> bool:
        path = folder / file.path
        return path.is_file() and path.stat().st_size == file.size_bytes and sha256_file(path) == file.sha256

    return all(fits(file) for file in manifest.files)


def _download(source: str, temporary: Path, *, folder: Path) -> Path:
    """The archive on this machine: downloaded into ``temporary``, or the local file of a ``file:`` address.

    The files in it are checked one by one afterwards, so the archive needs no hash of its own.
    """
    scheme = source.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise DataError("the address is not valid", file=source, expected=" or ".join(f"{s}://..." for s in _SCHEMES))
    by_hand = f"Without a network, download it elsewhere, unzip it and put its train/ and val/ into {folder}"
    if scheme == "file":
        archive = Path(url2pathname(urlsplit(source).path))
        if not archive.is_file():
            raise DataError("the archive does not exist", file=source, hint=by_hand)
        return archive
    import pooch
    from requests.exceptions import ChunkedEncodingError, HTTPError

    pooch.get_logger().setLevel(logging.WARNING)  # it advises to note the hash of the archive
    try:
        bar = sys.stderr.isatty()
        return Path(pooch.retrieve(source, known_hash=None, fname="archive.zip", path=temporary, progressbar=bar))
    except HTTPError as error:
        status = None if error.response is None else f"HTTP {error.response.status_code} {error.response.reason}"
        raise DataError("the archive does not exist", file=source, found=status, hint=by_hand) from error
    except ChunkedEncodingError as error:
        message = f"the connection broke off before the end of the archive: {_innermost(error)}"
        raise DataError(message, file=source, hint=by_hand) from error
    except (ValueError, OSError) as error:
        message = f"the archive could not be downloaded: {_innermost(error)}"
        raise DataError(message, file=source, hint=by_hand) from error


def _innermost(error: BaseException) -> BaseException:
    """The error that began a chain: "Connection refused" below three of the HTTP library."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _extract(archive: Path, manifest: _Manifest, folder: Path, *, source: str) -> None:
    """Write the files of the manifest, and only those, from ``archive`` into ``folder``."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _entries(opened, source=source)
            for file in manifest.files:
                if file.path not in entries:
                    raise DataError("a file is missing from the archive", file=source, place=file.path)
                with opened.open(entries[file.path]) as stream:
                    content = stream.read(file.size_bytes + 1)
                _check(content, file, source=source)
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"the archive is damaged: {error}", file=source, hint="Download it again") from error


def _entries(opened: zipfile.ZipFile, *, source: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by their path from ``train`` or ``val`` on; the folder above them may have any name."""
    entries = {}
    for entry in opened.infolist():
        names = PurePosixPath(entry.filename).parts
        if ".." in names or entry.filename.startswith("/") or "\\" in entry.filename or ":" in entry.filename:
            raise DataError(
                "a path in the archive leads outside its folder; nothing was extracted",
                file=source,
                place=entry.filename,
            )
        if entry.is_dir() or names[0] == "__MACOSX":
            continue
        entries["/".join(names[-2:])] = entry
    return entries


def _check(content: bytes, file: _File, *, source: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(
            "the file differs from the published one; nothing was extracted",
            file=source,
            place=file.path,
            found=f"SHA-256 {digest}",
            expected=file.sha256,
            hint="Download it again, or from another address",
        )


def _put_in_place(new: Path, folder: Path, *, aside: Path) -> None:
    if folder.exists():
        folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
