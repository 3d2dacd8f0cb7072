"""Packing Detectron2's Python sources, with the compatibility fixes, into a wheel that needs no compiler."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from pathlib import Path

from d2tune.errors import MachineError
from d2tune.install import compatibility
from d2tune.install.sources import PROJECTS, check_sdist, copy_checkout, download_sdist, unpack

FIXES_FILE = "COMPATIBILITY.txt"
"""A file in the wheel's metadata that only a Detectron2 built by d2tune has; it lists what was changed."""

REQUIRES = (
    # What 0.6 asked for, less black (used by one helper that prints configs), pydot and future (Caffe2 only), and
    # packaging, which the main branch asks for.
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "packaging",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch>=1.8",
    "torchvision",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)


def make_wheel(folder: Path, *, sdist: Path | None = None) -> Path:
    """Build the wheel of Detectron2 0.6 in ``folder`` from ``sdist``, or from the configured index without one.

    Raises:
        MachineError: The sdist cannot be had, is not the known one, or does not fit the fixes.
    """
    archive = download_sdist(folder) if sdist is None else sdist
    check_sdist(archive)
    source = unpack(archive, folder / "source")
    compatibility.apply(source)
    return pack(source, folder, changes=compatibility.summary())


def make_wheel_of_checkout(folder: Path, checkout: Path) -> Path:
    """Build a wheel in ``folder`` from a checkout of upstream's repository, without its C++ extension.

    Nothing in the checkout is run or changed.

    Raises:
        MachineError: The checkout does not say which version it is.
    """
    source = copy_checkout(checkout, folder / "source")
    fixes, additions = compatibility.apply_where_needed(source)
    return pack(source, folder, changes=compatibility.summary(fixes, additions, title=compatibility.OF_A_CHECKOUT))


def pack(source: Path, folder: Path, *, changes: str) -> Path:
    """Pack sources into a pure-Python wheel; the projects become subpackages of ``detectron2.projects``.

    The same sources give the same bytes.

    Args:
        source: Laid out as the sdist is.
        folder: Gets the wheel.
        changes: What d2tune changed in them.

    Returns:
        The wheel's path.
    """
    version = _version(source)
    info = f"detectron2-{version}.dist-info"
    files = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in (source / "detectron2").rglob("*")
        if path.is_file()
    }
    for name, place in PROJECTS.items():
        for path in (source / place).glob("*.py"):
            files[f"detectron2/projects/{name}/{path.name}"] = path.read_bytes()
    files[f"{info}/METADATA"] = _metadata(version).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: d2tune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/LICENSE"] = (source / "LICENSE").read_bytes()
    files[f"{info}/{FIXES_FILE}"] = changes.encode()
    files = dict(sorted(files.items()))
    files[f"{info}/RECORD"] = _record(files, info)
    wheel = folder / f"detectron2-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return wheel


def _version(source: Path) -> str:
    path = source / "detectron2" / "__init__.py"
    line = re.search(r'^__version__ = "([0-9][0-9A-Za-z.+]*)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    if line is None:
        raise MachineError("the sources do not say which version of Detectron2 they are", file=path)
    return line[1]


def _metadata(version: str) -> str:
    head = (
        "Metadata-Version: 2.1\n"
        "Name: detectron2\n"
        f"Version: {version}\n"
        "Summary: Detectron2 without compiled operators, with d2tune's compatibility fixes\n"
        "Home-page: https://github.com/facebookresearch/detectron2\n"
        "License: Apache-2.0\n"
        "License-File: LICENSE\n"
        "Requires-Python: >=3.7\n"
    )
    return head + "".join(f"Requires-Dist: {requirement}\n" for requirement in REQUIRES)


def _record(files: dict[str, bytes], info: str) -> bytes:
    record = ""
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    return f"{record}{info}/RECORD,,\n".encode()
