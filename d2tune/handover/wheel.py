"""The wheel of d2tune in a handover, so that those who take it over need nothing else from those who made it."""

from __future__ import annotations

import shutil
import zipfile
from email.parser import BytesParser
from pathlib import Path

from d2tune.errors import DataError
from d2tune.versions import own_version

WHEELS = "wheels"


def copy_wheel(source: Path, folder: Path) -> str:
    """Copy the wheel of this d2tune; returns the name of the file, relative to the handover.

    Args:
        source: The wheel.
        folder: The folder of the handover.

    Raises:
        DataError: It cannot be read, or is another library or another version.
    """
    stated = _stated(source)
    if stated != f"d2tune {own_version()}" or source.suffix != ".whl":
        expected = f"the wheel of d2tune {own_version()}, which `python -m build --wheel` makes in its checkout"
        raise DataError("is another wheel", file=source, place="--wheel", found=stated, expected=expected)
    (folder / WHEELS).mkdir()
    shutil.copyfile(source, folder / WHEELS / source.name)
    return f"{WHEELS}/{source.name}"


def _stated(path: Path) -> str:
    """Name and version as the metadata of a wheel state them; see PEP 427."""
    try:
        with zipfile.ZipFile(path) as wheel:
            metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            about = BytesParser().parsebytes(wheel.read(metadata), headersonly=True)
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        reason = getattr(error, "strerror", None) or "it is not a wheel"
        raise DataError(f"the wheel cannot be read: {reason}", file=path, place="--wheel") from None
    return f"{about['Name']} {about['Version']}"
