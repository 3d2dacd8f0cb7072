"""The real sdist, fetched once for all tests of a process through the package index that pip is configured for."""

import functools
import tempfile
from pathlib import Path

from d2tune.install import sources

_FOLDER = tempfile.TemporaryDirectory(prefix="d2tune-test-sdist-")


@functools.cache
def real_sdist() -> Path:
    return sources.download_sdist(Path(_FOLDER.name))


@functools.cache
def unpacked_sdist() -> Path:
    """The sdist without any fix; not to be written to."""
    return sources.unpack(real_sdist(), Path(_FOLDER.name, "as-it-is"))
