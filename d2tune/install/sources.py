"""Where Detectron2's Python sources come from: the sdist of 0.6 on a package index, or a checkout of upstream."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from d2tune.errors import D2TuneError, MachineError
from d2tune.files import sha256_file

SDIST_PROJECT = "pb1-detectron2"
SDIST_VERSION = "0.6"
SDIST_NAME = f"{SDIST_PROJECT}-{SDIST_VERSION}.tar.gz"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
SDIST_PAGE = f"the page of {SDIST_PROJECT} {SDIST_VERSION} on PyPI (Download files)"

PROJECTS = {
    "point_rend": "projects/PointRend/point_rend",
    "deeplab": "projects/DeepLab/deeplab",
    "panoptic_deeplab": "projects/Panoptic-DeepLab/panoptic_deeplab",
}
"""The projects that upstream installs as subpackages of ``detectron2.projects``, and their folders in the sources."""


def download_sdist(folder: Path) -> Path:
    """Fetch the sdist with the indexes, proxies and certificates that pip is configured for.

    ``pip download`` itself refuses this sdist: it runs its ``setup.py``, which needs torch and a compiler. So pip's
    own finder and session are asked for the file alone, and nothing in it is run.

    Raises:
        MachineError: No configured index has the file, or it cannot be reached.
    """
    by_hand = f"Download {SDIST_NAME} from {SDIST_PAGE} and run: d2tune setup --sdist path/to/{SDIST_NAME}"
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
        sha256 = sha256_file(path)
    except OSError as error:
        raise MachineError(f"the sdist cannot be read: {error.strerror}", file=path) from error
    if sha256 != SDIST_SHA256:
        raise MachineError(
            "this is not the Detectron2 sdist that d2tune knows, and it was not installed",
            file=path,
            found=f"SHA-256 {sha256}",
            expected=SDIST_SHA256,
            hint=f"Take {SDIST_NAME} from {SDIST_PAGE}",
        )


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack the regular files of ``sdist`` into ``folder`` and return the one top folder.

    Raises:
        MachineError: A name leads out of the folder, or the file is not a tar archive.
    """
    try:
        with tarfile.open(sdist) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                names = PurePosixPath(member.name).parts
                if ".." in names or member.name.startswith("/") or "\\" in member.name:
                    raise MachineError("a name leads out of the archive", file=sdist, place=member.name)
                target = folder.joinpath(*names)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MachineError(f"the archive cannot be unpacked: {error}", file=sdist) from error
    return folder / f"{SDIST_PROJECT}-{SDIST_VERSION}"


def is_checkout(folder: Path) -> bool:
    """Whether a folder holds upstream's repository: the package, its projects and the model zoo's configs."""
    needed = ("detectron2/__init__.py", "configs", *PROJECTS.values())
    return all((folder / name).exists() for name in needed)


def copy_checkout(checkout: Path, folder: Path) -> Path:
    """Copy what a wheel needs of a checkout into ``folder``, laid out as in the sdist, and return the folder.

    These are the Python files, which need no compiler, and the model zoo's configs; C++ sources and what was built
    from them stay behind.
    """
    zoo = "detectron2/model_zoo/configs"
    for path in sorted((checkout / "detectron2").rglob("*.py")):
        name = path.relative_to(checkout).as_posix()
        if not name.startswith(f"{zoo}/"):  # a link to, or a copy of, the folder that is copied below
            _copy(path, folder / name)
    for place in PROJECTS.values():
        for path in (checkout / place).glob("*.py"):
            _copy(path, folder / place / path.name)
    for path in (checkout / "configs").rglob("*"):
        if path.suffix in (".py", ".yaml"):
            _copy(path, folder / zoo / path.relative_to(checkout / "configs"))
    _copy(checkout / "LICENSE", folder / "LICENSE")
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
