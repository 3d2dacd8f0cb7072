"""Detectron2 in the running environment: looking at it, and installing it for ``d2tune setup``.

A Detectron2 that is there already is kept. Otherwise the Python sources of Detectron2 0.6 are taken from the package
index that pip is configured for, checked, fixed (see ``compatibility``), packed into a wheel and installed. No compiler
and no git are needed. Importing this module needs the standard library only.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d2tune.errors import MachineError
from d2tune.install import compatibility
from d2tune.install.sources import is_checkout
from d2tune.install.wheel import make_wheel, make_wheel_of_checkout

CONSTRAINTS = Path(__file__).resolve().parent / "constraints.txt"


@dataclass(frozen=True)
class Installed:
    """The Detectron2 of an environment.

    Attributes:
        version: What ``detectron2.__version__`` says.
        folder: Where the package lies.
        compiled: Whether its C++ operators are there.
        fixes: The list of changes if d2tune built it, None where it came from elsewhere.
        import_error: Why it cannot be imported, None where it can.
    """

    version: str | None
    folder: str
    compiled: bool
    fixes: str | None
    import_error: str | None


# MENDS.txt is what an earlier d2tune called the list of changes.
_LOOK = """
import importlib.metadata, importlib.util, json
fields = None
spec = importlib.util.find_spec("detectron2")
if spec is not None and spec.origin is not None:
    fields = {"version": None, "folder": spec.origin.removesuffix("__init__.py").rstrip("/\\\\"), "compiled": False}
    fields.update({"fixes": None, "import_error": None})
    try:
        metadata = importlib.metadata.distribution("detectron2")
        fields["fixes"] = metadata.read_text("COMPATIBILITY.txt") or metadata.read_text("MENDS.txt")
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        import detectron2, detectron2.model_zoo, detectron2.projects.point_rend
        fields["version"] = detectron2.__version__
        fields["compiled"] = importlib.util.find_spec("detectron2._C") is not None
    except Exception as error:
        fields["import_error"] = f"{type(error).__name__}: {error}"
print("d2tune:" + json.dumps(fields))
"""


def installed() -> Installed | None:
    """The Detectron2 that a new process of this environment would import, or None.

    Raises:
        MachineError: The environment's Python does not run.
    """
    with tempfile.TemporaryDirectory() as neutral:
        done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, cwd=neutral)
    answer = [line for line in done.stdout.splitlines() if line.startswith("d2tune:")]
    if not answer:
        raise MachineError("Python failed while it looked for Detectron2", found=done.stderr.strip()[-300:])
    fields = json.loads(answer[-1].removeprefix("d2tune:"))
    return None if fields is None else Installed(**fields)


def is_kept(present: Installed) -> bool:
    """Whether an installed Detectron2 stays: any that works, unless d2tune built 0.6 with an older list of fixes."""
    if present.import_error is not None:
        return False
    fixes = present.fixes
    return fixes is None or fixes == compatibility.summary() or fixes.startswith(compatibility.OF_A_CHECKOUT)


def install(*, requirement: str | None = None, sdist: Path | None = None) -> str:
    """Make sure that this environment has a Detectron2 that can be imported.

    Args:
        requirement: Any pip requirement (name, URL, wheel, folder) to install instead of 0.6. A folder that is a
            checkout of upstream's repository is installed without its C++ extension.
        sdist: The sdist of ``pb1-detectron2`` 0.6 as a file, instead of the one from the package index.

    Returns:
        One sentence that says what was done.

    Raises:
        MachineError: It could not be done; an earlier installation is left as it was.
    """
    present = installed()
    if requirement is None and present is not None:
        if present.fixes is None and present.import_error is not None:
            raise MachineError(
                f"the Detectron2 installed here cannot be imported: {present.import_error}",
                file=present.folder,
                hint=f"Fix it, or remove it and run d2tune setup again: {sys.executable} -m pip uninstall detectron2",
            )
        if is_kept(present):
            return f"Kept {describe(present)}"
    with tempfile.TemporaryDirectory(prefix="d2tune-detectron2-") as name:
        folder = Path(name)
        wheel = make_wheel(folder, sdist=sdist) if requirement is None else _wheel_of(requirement, folder)
        _install_wheel(wheel)
    now = installed()
    if now is None or now.import_error is not None:
        problem = "there is no package named detectron2" if now is None else now.import_error
        raise MachineError(f"Detectron2 was installed but cannot be imported: {problem}", hint="Run: d2tune doctor")
    return f"Installed {describe(now)}"


def describe(detectron2: Installed) -> str:
    """One line about a Detectron2: version, kind and place."""
    builder = "not built by d2tune" if detectron2.fixes is None else "built by d2tune"
    operators = "compiled operators" if detectron2.compiled else "no compiled operators"
    return f"Detectron2 {detectron2.version} ({builder}, {operators}) in {detectron2.folder}"


def _wheel_of(requirement: str, folder: Path) -> Path:
    if is_checkout(Path(requirement)):
        return make_wheel_of_checkout(folder, Path(requirement))
    # Upstream's setup.py imports torch, so it must be built in this environment.
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), requirement)
    return next(folder.glob("*.whl"))


def _install_wheel(wheel: Path) -> None:
    """Install ``wheel`` in place of any other Detectron2, then what it depends on."""
    _pip("install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))
    _pip("install", "--quiet", str(wheel))


def missing_constraints(constraints: str, installed_names: Iterable[str]) -> str:
    """The constraints on packages that are not installed yet: installed versions, above all that of torch, stay.

    Args:
        constraints: Lines such as ``torch==2.11.0``.
        installed_names: Names of the packages of the environment.
    """
    present = {_normalized(name) for name in installed_names}
    lines = [line for line in constraints.splitlines() if line.strip() and not line.startswith("#")]
    return "".join(f"{line}\n" for line in lines if _normalized(line.partition("==")[0]) not in present)


def _normalized(name: str) -> str:
    """The name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _pip(*arguments: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        installed_names = [str(package.metadata["Name"]) for package in importlib.metadata.distributions()]
        constraints.write_text(missing_constraints(CONSTRAINTS.read_text("utf-8"), installed_names), encoding="utf-8")
        command = [sys.executable, "-m", "pip", *arguments, "--constraint", str(constraints)]
        status = subprocess.run(command).returncode
    if status != 0:
        raise MachineError(f"pip failed: {' '.join(command)}", hint="Its own message is above this line")
