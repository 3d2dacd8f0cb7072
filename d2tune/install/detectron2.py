"""Install Detectron2 into the running environment: ``python -m d2tune.install.detectron2``.

A Detectron2 that is there already is kept. Otherwise the Python sources of Detectron2 0.6 are taken from the package
index that pip is configured for, checked, mended (see ``mends``), packed into a wheel and installed. No compiler and
no git are needed. Importing this module needs the standard library only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from d2tune.errors import D2TuneError, MachineError
from d2tune.files import sha256_file
from d2tune.install import compatibility

SDIST_PROJECT = "pb1-detectron2"
SDIST_VERSION = "0.6"
SDIST_NAME = f"{SDIST_PROJECT}-{SDIST_VERSION}.tar.gz"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
SDIST_PAGE = f"the page of {SDIST_PROJECT} {SDIST_VERSION} on PyPI (Download files)"

WHEEL_NAME = "detectron2-0.6-py3-none-any.whl"
DIST_INFO = "detectron2-0.6.dist-info"
MENDS_FILE = "MENDS.txt"
"""A file in the wheel's metadata that only a Detectron2 mended by d2tune has; it lists what was changed."""

PROJECTS = {
    "point_rend": "projects/PointRend/point_rend",
    "deeplab": "projects/DeepLab/deeplab",
    "panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}

REQUIRES = (
    # What 0.6 asked for, less black (used by one helper that prints configs), pydot and future (Caffe2 only).
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch>=1.8",
    "torchvision",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

CONSTRAINTS = Path(__file__).resolve().parent / "constraints.txt"


@dataclass(frozen=True)
class Installed:
    """The Detectron2 of an environment.

    Attributes:
        version: What ``detectron2.__version__`` says.
        folder: Where the package lies.
        compiled: Whether its C++ operators are there.
        mends: The list of changes if d2tune built it, None where it came from elsewhere.
        import_error: Why it cannot be imported, None where it can.
    """

    version: str | None
    folder: str
    compiled: bool
    mends: str | None
    import_error: str | None


_LOOK = """
import importlib.metadata, importlib.util, json
found = None
spec = importlib.util.find_spec("detectron2")
if spec is not None and spec.origin is not None:
    found = {"version": None, "folder": spec.origin.removesuffix("__init__.py").rstrip("/\\\\"), "compiled": False}
    found.update({"mends": None, "import_error": None})
    try:
        found["mends"] = importlib.metadata.distribution("detectron2").read_text("MENDS.txt")
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        import detectron2, detectron2.model_zoo, detectron2.projects.point_rend
        found["version"] = detectron2.__version__
        found["compiled"] = importlib.util.find_spec("detectron2._C") is not None
    except Exception as error:
        found["import_error"] = f"{type(error).__name__}: {error}"
print("d2tune:" + json.dumps(found))
"""


def installed() -> Installed | None:
    """The Detectron2 that a new process of this environment would import, or None."""
    with tempfile.TemporaryDirectory() as neutral:
        done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, cwd=neutral)
    answer = [line for line in done.stdout.splitlines() if line.startswith("d2tune:")]
    if not answer:
        raise MachineError("Python could not be asked for Detectron2", found=done.stderr.strip()[-300:])
    found = json.loads(answer[-1].removeprefix("d2tune:"))
    return None if found is None else Installed(**found)


def download_sdist(folder: Path) -> Path:
    """Fetch the sdist with the indexes, proxies and certificates that pip is configured for.

    ``pip download`` itself refuses this sdist: it runs its ``setup.py``, which needs torch and a compiler. So pip's
    own finder and session are asked for the file alone, and nothing in it is run.

    Raises:
        MachineError: No configured index has the file, or it cannot be reached.
    """
    by_hand = f"Download {SDIST_NAME} from {SDIST_PAGE} and run: make setup SDIST=path/to/{SDIST_NAME}"
    try:
        from pip._internal.commands import create_command

        command: Any = create_command("download")
        options, _ = command.parse_args(["--no-binary", SDIST_PROJECT])
        with command.main_context():
            session = command.get_default_session(options)
            candidates = command._build_package_finder(options, session).find_all_candidates(SDIST_PROJECT)
            links = [candidate.link for candidate in candidates if candidate.link.filename == SDIST_NAME]
            if not links:
                raise MachineError(f"no package index that pip knows has {SDIST_NAME}", hint=by_hand)
            response = session.get(links[0].url_without_fragment, headers={"Accept-Encoding": "identity"})
            response.raise_for_status()
            content = response.content
    except D2TuneError:
        raise
    except Exception as error:
        # pip's inner parts have no promised list of errors, and every one of them means the same to the user.
        raise MachineError(
            f"{SDIST_NAME} could not be downloaded through pip: {type(error).__name__} {error}", hint=by_hand
        ) from error
    path = folder / SDIST_NAME
    path.write_bytes(content)
    return path


def check_sdist(path: Path) -> None:
    """Compare the sdist with the known SHA-256.

    Raises:
        MachineError: The file cannot be read, or it is another one.
    """
    try:
        found = sha256_file(path)
    except OSError as error:
        raise MachineError(f"the sdist cannot be read: {error.strerror}", file=path) from error
    if found != SDIST_SHA256:
        raise MachineError(
            "this is not the Detectron2 sdist that d2tune knows, and it was not installed",
            file=path,
            found=f"SHA-256 {found}",
            expected=SDIST_SHA256,
            hint=f"Take {SDIST_NAME} from {SDIST_PAGE}",
        )


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack the regular files of ``sdist`` into ``folder`` and return the one top folder.

    Raises:
        MachineError: A name leads out of the folder, or it is no tar archive.
    """
    try:
        with tarfile.open(sdist) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                parts = PurePosixPath(member.name).parts
                if ".." in parts or member.name.startswith("/") or "\\" in member.name:
                    raise MachineError("a name leads out of the archive", file=sdist, place=member.name)
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MachineError(f"the archive cannot be unpacked: {error}", file=sdist) from error
    return folder / f"{SDIST_PROJECT}-{SDIST_VERSION}"


def _metadata() -> str:
    head = (
        "Metadata-Version: 2.1\n"
        "Name: detectron2\n"
        f"Version: {SDIST_VERSION}\n"
        "Summary: Detectron2 0.6 without compiled operators, mended by d2tune for today's torch, numpy and Pillow\n"
        "Home-page: https://github.com/facebookresearch/detectron2\n"
        "License: Apache-2.0\n"
        "License-File: LICENSE\n"
        "Requires-Python: >=3.7\n"
    )
    return head + "".join(f"Requires-Dist: {requirement}\n" for requirement in REQUIRES)


def build_wheel(source: Path, folder: Path) -> Path:
    """Pack the mended sources into a pure-Python wheel; the projects become subpackages of ``detectron2.projects``.

    The same sources give the same bytes.

    Returns:
        The wheel's path in ``folder``.
    """
    files = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in (source / "detectron2").rglob("*")
        if path.is_file()
    }
    for name, place in PROJECTS.items():
        for path in (source / place).glob("*.py"):
            files[f"detectron2/projects/{name}/{path.name}"] = path.read_bytes()
    files[f"{DIST_INFO}/METADATA"] = _metadata().encode()
    files[f"{DIST_INFO}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: d2tune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{DIST_INFO}/LICENSE"] = (source / "LICENSE").read_bytes()
    files[f"{DIST_INFO}/{MENDS_FILE}"] = compatibility.summary().encode()

    record = ""
    for name, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{DIST_INFO}/RECORD"] = f"{record}{DIST_INFO}/RECORD,,\n".encode()

    wheel = folder / WHEEL_NAME
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return wheel


def make_wheel(folder: Path, *, sdist: Path | None = None) -> Path:
    """Build the mended wheel in ``folder`` from ``sdist``, or from the configured index where none is given.

    Raises:
        MachineError: The sdist cannot be had, is not the known one, or does not fit the mends.
    """
    archive = download_sdist(folder) if sdist is None else sdist
    check_sdist(archive)
    source = unpack(archive, folder / "source")
    compatibility.apply(source)
    return build_wheel(source, folder)


def _pip(*arguments: str) -> None:
    constraint = ["--constraint", str(CONSTRAINTS)] if CONSTRAINTS.is_file() else []
    command = [sys.executable, "-m", "pip", *arguments, *constraint]
    if subprocess.run(command).returncode != 0:
        raise MachineError(f"pip failed: {' '.join(command)}", hint="Its own message stands above")


def install_wheel(wheel: Path) -> None:
    """Install ``wheel`` in place of any other Detectron2, then what it depends on."""
    _pip("install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))
    _pip("install", "--quiet", str(wheel))


def is_kept(present: Installed) -> bool:
    """Whether an installed Detectron2 stays: any that works, unless d2tune built it from an older list of mends."""
    return present.import_error is None and present.mends in (None, compatibility.summary())


def install(*, requirement: str | None = None, sdist: Path | None = None) -> str:
    """Make sure that this environment has a Detectron2 that can be imported.

    Args:
        requirement: Any pip requirement (name, URL, wheel, folder) to install instead of the mended 0.6.
        sdist: The sdist of ``pb1-detectron2`` 0.6 as a file, instead of the one from the package index.

    Returns:
        One sentence that says what was done.

    Raises:
        MachineError: It could not be done; an earlier installation is left as it was.
    """
    present = installed()
    if requirement is None and present is not None:
        if present.mends is None and present.import_error is not None:
            raise MachineError(
                f"the Detectron2 installed here cannot be imported: {present.import_error}",
                file=present.folder,
                hint=f"Mend it, or remove it and run make setup again: {sys.executable} -m pip uninstall detectron2",
            )
        if is_kept(present):
            return f"Kept {describe(present)}"
    with tempfile.TemporaryDirectory(prefix="d2tune-detectron2-") as name:
        folder = Path(name)
        if requirement is None:
            wheel = make_wheel(folder, sdist=sdist)
        else:
            # Upstream's setup.py imports torch, so it must be built in this environment.
            _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", name, requirement)
            wheel = next(folder.glob("*.whl"))
        install_wheel(wheel)
    now = installed()
    if now is None or now.import_error is not None:
        problem = "nothing named detectron2 is there" if now is None else now.import_error
        raise MachineError(f"Detectron2 was installed but cannot be imported: {problem}", hint="Run: d2tune doctor")
    return f"Installed {describe(now)}"


def describe(found: Installed) -> str:
    """One line about a Detectron2: version, kind and place."""
    kind = "mended by d2tune, no compiled operators" if found.mends is not None else "not built by d2tune"
    if found.mends is None:
        kind += ", compiled operators" if found.compiled else ", no compiled operators"
    return f"Detectron2 {found.version} ({kind}) in {found.folder}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m d2tune.install.detectron2", description=__doc__.splitlines()[0])
    parser.add_argument("--requirement", help="any pip requirement to install instead of the mended Detectron2 0.6")
    parser.add_argument("--sdist", type=Path, help=f"a downloaded {SDIST_NAME}, for machines without a package index")
    options = parser.parse_args(arguments)
    try:
        print(install(requirement=options.requirement, sdist=options.sdist))
    except D2TuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
