"""Every command in the README's shell blocks is run, in order, in a copy of the project."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from d2tune.samples import render_sample
from tests.docs.blocks import blocks, commands
from tests.shared_files import SHARED
from tests.system.commands import ROOT, d2tune_here, succeeded

pytestmark = pytest.mark.slow

QUICK = "train.batch_size=2 train.image_size=96 weights=scratch TEST.DETECTIONS_PER_IMAGE=5"
"""Makes a training last seconds; the commands are otherwise as the README has them."""

FOLDERS = ("d2tune", "projects", "tools")
FILES = ("setup.py", "pyproject.toml", "Makefile", "README.md")


def steps() -> list[str]:
    """The commands of the README, in order; its Python is a command too."""
    words: list[str] = []
    for block in blocks(ROOT / "README.md", "bash", "python"):
        words += commands(block.text) if block.language == "bash" else [f"python -c {shlex.quote(block.text)}"]
    return words


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that shares this one's environment."""
    folder = tmp_path_factory.mktemp("clone")
    ready = ROOT / ".venv" / ".d2tune-ready"
    sources = [ROOT / name for name in FILES if name not in ("README.md", "Makefile")]
    sources += (ROOT / "d2tune" / "install").glob("*.py")
    assert ready.is_file() and all(path.stat().st_mtime <= ready.stat().st_mtime for path in sources), (
        "the environment is not the one that `make setup` makes of this checkout; run it first"
    )
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    for name in (".venv", ".venv-labelme"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def execute(command: str, folder: Path, **environment: str) -> str:
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    path = {"PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=quiet | path | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def labelme_open(command: str, folder: Path) -> Iterator[None]:
    """Start Labelme without a screen, see that it stays up until the context ends, and close it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment | {"QT_QPA_PLATFORM": "offscreen"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            while not (lines and "--validate-label exact" in lines[-1]) and (line := process.stdout.readline()):
                lines.append(line)
            yield
        finally:
            still_open = process.poll() is None
            if still_open:
                os.killpg(process.pid, signal.SIGKILL)
            lines.append(process.communicate()[0])
    assert still_open and "--validate-label exact" in "".join(lines), "".join(lines)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(command: str, folder: Path, port: int) -> Iterator[None]:
    """Start a server at a port, wait until it is ready, and end it with SIGTERM."""
    words = ["bash", "-c", f"exec {command} --port {port}"]
    path = {"PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    with subprocess.Popen(words, cwd=folder, env=os.environ | path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert f"http://127.0.0.1:{port}" in process.stdout.readline()
            yield
        except BaseException:
            process.kill()
            raise
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_whole_readme(copy: Path) -> None:
    with ExitStack() as opened:
        run_the_readme(copy, opened)


def run_the_readme(copy: Path, opened: ExitStack) -> None:
    """Programs that stay open, and what takes the program itself, are processes; the rest runs in this one."""
    render_sample("balloon", copy / "datasets" / "mine", images=8)
    ran, port = [], free_port()
    mine = copy / "datasets" / "mine"
    for command in steps():
        if command == "make test":
            continue  # it is what runs this test
        if command == "make demo":
            out = execute(command, copy, ARGS=f"train.iterations=4 {QUICK}")
            assert "contact_sheet.png" in out.splitlines()[-1]
        elif command.startswith("make annotate"):
            opened.enter_context(labelme_open(command, copy))
        elif command.startswith("d2tune train "):
            out = execute(f"{command} train.iterations=4 {QUICK}", copy)
            assert "contact_sheet.png" in out.splitlines()[-1]
            # photos to be annotated later, and one to send to the server
            (mine / "new").mkdir()
            for photo in (mine / "val").glob("*.jpg"):
                shutil.copy2(photo, mine / "new")
                shutil.copy2(photo, copy / "photo.jpg")
        elif command.startswith("d2tune serve "):
            opened.enter_context(serving(command, copy, port))
        elif command.startswith("curl "):
            assert '"objects"' in execute(command.replace(":8000/", f":{port}/"), copy)
        elif command.startswith("d2tune "):
            succeeded(d2tune_here(*shlex.split(command)[1:], folder=copy))
        else:
            execute(command, copy)
        ran.append(command.split()[0])
    assert ran.count("d2tune") >= 7 and ran.count("make") == 2 and "python" in ran
    (latest,) = {path.parents[1] for path in (copy / "runs" / "mine").glob("*/predictions/predictions.json")}
    assert (latest / "evaluation" / "evaluation.json").is_file()
    assert (copy / "check.html").is_file() and (latest / "report.html").is_file()
    assert {path.stem for path in (mine / "new").glob("*.json")} == {path.stem for path in (mine / "new").glob("*.jpg")}


def healthy_and_on_one_screen(report: str) -> None:
    lines = report.splitlines()
    assert lines[-1] == "Training can run here." and len(lines) <= 24, report
    names = {line[6:].partition("  ")[0] for line in lines if line.startswith(("ok ", "warn "))}
    assert names >= {"Detectron2", "torch", "device", "precision", "weights", "disk", "memory"}, report


def test_what_is_named_in_passing(copy: Path, tmp_path: Path, serve: Callable[[Path], str]) -> None:
    assert "make TARGET" in execute("make help", copy)
    healthy_and_on_one_screen(execute("make --silent doctor", copy))
    with zipfile.ZipFile(tmp_path / "balloon.zip", "w", zipfile.ZIP_STORED) as archive:
        for path in sorted((SHARED / "data" / "balloon").rglob("*.*")):
            archive.write(path, Path("balloon") / path.relative_to(SHARED / "data" / "balloon"))
    address = f"{serve(tmp_path)}/balloon.zip"
    out = execute("make data PROJECT=balloon", copy, D2TUNE_BALLOON_URL=address)
    assert "76" in out and len(list((copy / "datasets" / "balloon" / "train").glob("*.jpg"))) == 61
