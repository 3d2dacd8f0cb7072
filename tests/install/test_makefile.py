"""What `make` says and does before there is an environment."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = ("awk", "bash", "find", "make", "mkdir", "rm", "touch")
# Stands in for another Python: answers its version, whether it is new enough, and whether it has venv.
PYTHON = """#!{shell}
case "$2" in
  *print*) echo {version} ;;
  *version_info*) exit {too_old} ;;
  *) exit {no_venv} ;;
esac
"""


@pytest.fixture
def programs(tmp_path):
    """A folder that is the whole PATH: make's own tools, and no Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def add_python(programs, version, *, too_old=0, no_venv=0):
    path = programs / "python3"
    path.write_text(PYTHON.format(shell=programs / "bash", version=version, too_old=too_old, no_venv=no_venv))
    path.chmod(0o755)


def make(*arguments, path=None, folder=REPOSITORY):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    environment["PATH"] = str(path) if path else environment["PATH"]
    program = shutil.which("make")
    return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        (None, "Python 3.10 or newer is needed, but there is no python3"),
        ({"version": "3.8", "too_old": 1}, "Python 3.10 or newer is needed, but python3 is Python 3.8"),
        ({"version": "3.12", "no_venv": 1}, "python3 (Python 3.12) has no venv module"),
    ],
    ids=["no Python", "an old Python", "no venv module"],
)
def test_setup_says_what_python_it_needs(programs, tmp_path, python, expected):
    if python:
        add_python(programs, **python)
    done = make("setup", f"VENV={tmp_path / 'venv'}", path=programs)
    assert done.returncode != 0
    error = done.stderr.splitlines()[0]
    assert expected in error
    assert "apt install" in error
    assert not (tmp_path / "venv").exists()


def test_help_is_the_default_and_names_every_target():
    done = make()
    assert done.returncode == 0
    targets = {"setup", "doctor", "annotate", "data", "convert", "train", "evaluate", "predict", "demo", "test", "lint"}
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == targets | {"clean", "help"}


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (
            ("train", "PROJECT=faces", "ARGS=train.iterations=5"),
            "train_net.py --config projects/faces.yaml train.iterations=5",
        ),
        (("convert",), "d2tune convert projects/balloon.yaml"),
        (("data", "PROJECT=chipset"), "d2tune data projects/chipset.yaml"),
        (("evaluate",), "d2tune eval projects/balloon.yaml"),
        (("predict", "SRC=photo.jpg"), "d2tune predict projects/balloon.yaml photo.jpg"),
        (("annotate",), "d2tune annotate projects/balloon.yaml"),
        (("setup", "DETECTRON2=a requirement"), 'd2tune.install.detectron2 --requirement "a requirement"'),
        (("setup", "SDIST=file.tar.gz"), 'd2tune.install.detectron2  --sdist "file.tar.gz"'),
        (("test",), 'pytest -m "not gpu"'),
    ],
)
def test_each_target_shows_the_command_below_it(arguments, command):
    done = make("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


def test_clean_keeps_the_environment_the_data_and_the_runs(tmp_path):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    kept = ["datasets/mine/train/a.json", "runs/balloon/1/metrics.jsonl", ".venv/bin/python", "d2tune/cli.py"]
    removed = ["build/x", "d2tune.egg-info/x", ".mypy_cache/x", "d2tune/__pycache__/x.pyc", "tests/a/__pycache__/x.pyc"]
    for name in kept + removed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert make("clean", folder=tmp_path).returncode == 0
    assert all((tmp_path / name).exists() for name in kept)
    assert not any((tmp_path / name).parent.exists() for name in removed)
