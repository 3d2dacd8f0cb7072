"""Output files: their paths, and the protection of what is there.

No output goes over an input, nor over a file that d2tune did not write as the same kind of output. What d2tune wrote is
known from the record of each folder, see `output_record`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.io.output_record import ANNOTATIONS, OwnFiles, write_own
from d2tune.annotations.model.dataset import Image
from d2tune.errors import DataError
from d2tune.files import write_bytes

_INPUTS: ContextVar[tuple[Callable[[], Iterable[Path]], ...]] = ContextVar("inputs", default=())


def beside(images: Sequence[Image], folder: Path, suffix: str) -> dict[int, Path]:
    """A path for every image id: the file name below ``folder`` with another suffix.

    Where the paths of two images would be the same, they keep their own suffix before the new one.
    """
    stems = {image.id: str(PurePosixPath(image.file_name).with_suffix("")) for image in images}
    whole: set[int] = set()
    while True:
        names = {image.id: (image.file_name if image.id in whole else stems[image.id]) + suffix for image in images}
        uses = Counter(names.values())
        more = {image.id for image in images if uses[names[image.id]] > 1} - whole
        if not more:
            break
        whole |= more
    places = {}
    for image in images:
        inside = PurePosixPath(*(step for step in PurePosixPath(names[image.id]).parts if step not in ("..", "/")))
        places[image.id] = folder / inside
    return places


@contextlib.contextmanager
def protected(inputs: Callable[[], Iterable[Path]]) -> Iterator[None]:
    """Let `refuse_existing` refuse to replace these files, even where d2tune wrote them.

    Args:
        inputs: Gives the files; it is called only where a file exists that is to be written.
    """
    token = _INPUTS.set((*_INPUTS.get(), inputs))
    try:
        yield
    finally:
        _INPUTS.reset(token)


def refuse_existing(
    paths: Iterable[Path],
    *,
    force: bool,
    kind: str = ANNOTATIONS,
    is_own: Callable[[Path], bool] | None = None,
) -> None:
    """Refuse to overwrite files, before anything is written.

    Args:
        paths: The files to be written.
        force: Whether files that d2tune wrote as this kind, and that were not changed since, are replaced. Others are
            never replaced.
        kind: The kind of the files; see `output_record`.
        is_own: Recognizes files that an earlier version wrote, which kept no record.

    Raises:
        DataError: A file exists; the message names the first one.
    """
    existing = [path for path in paths if os.path.lexists(path)]
    if not existing:
        return
    own = OwnFiles()
    inputs = {_identity(path) for paths in _INPUTS.get() for path in paths()} - {None}
    for path in existing:
        if _identity(path) in inputs:
            raise DataError(
                "the output would replace an input of this command", file=path, hint="Write to another folder."
            )
    foreign = [path for path in existing if not (own.is_unchanged(path, kind) or (is_own is not None and is_own(path)))]
    if not foreign and force:
        return
    first = foreign[0] if foreign else existing[0]
    others = len(foreign or existing) - 1
    more = f" (and {others} more)" if others else ""
    if not foreign:
        hint = "Write to another folder, or overwrite it with --force."
    elif kind in own.kinds(first):
        hint = "It was changed after d2tune wrote it. Write to another folder, or move it away."
    else:
        hint = f"d2tune did not write it as {kind}. Write to another folder, or move it away."
    raise DataError(f"the file is already there and is not overwritten{more}", file=first, hint=hint)


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and number of a file, behind links; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def write_output(path: Path, content: bytes | Iterable[bytes], *, kind: str = ANNOTATIONS) -> Path:
    """Write a file, or chunks of it, atomically, and record it as written by d2tune."""
    with write_own(path, kind) as stream:
        if isinstance(content, bytes):
            stream.write(content)
        else:
            stream.writelines(content)
    return path


def write_output_json(path: Path, value: Any, *, kind: str = ANNOTATIONS, indent: int | None = 2) -> Path:
    """`write_output` of UTF-8 JSON; lone surrogates become escapes.

    Raises:
        ValueError: ``value`` has NaN or an infinite number, which JSON does not allow.
    """
    return write_output(path, output_json(value, indent=indent), kind=kind)


def output_json(value: Any, *, indent: int | None = 2) -> bytes:
    """The content that `write_output_json` writes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", errors="backslashreplace")


def png_bytes(pixels: NDArray[Any]) -> bytes:
    """A PNG of gray values ``(H, W)`` or colors ``(H, W, 3)``, both uint8."""
    from PIL import Image as PilImage

    stream = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return stream.getvalue()


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write `png_bytes` to a file, atomically."""
    write_bytes(path, png_bytes(pixels))
    return path
