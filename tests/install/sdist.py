"""The real sdist, fetched once for all tests of a process through the package index that pip is configured for."""

import functools
import tempfile
from pathlib import Path

from d2tune.install import detectron2 as installer

_FOLDER = tempfile.TemporaryDirectory(prefix="d2tune-test-sdist-")


@functools.cache
def real_sdist() -> Path:
    return installer.download_sdist(Path(_FOLDER.name))


@functools.cache
def unpacked_sdist() -> Path:
    """The sdist as it is, not mended; not to be written to."""
    return installer.unpack(real_sdist(), Path(_FOLDER.name, "as-it-is"))
