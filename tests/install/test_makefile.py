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


def make(*arguments, path=None, folder=REPOSITORY, variables=None):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | (variables or {})
    environment["PATH"] = str(path) if path else environment["PATH"]
    program = shutil.which("make")
    return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        (None, "Python 3.11 or newer is needed, but there is no python3"),
        ({"version": "3.8", "too_old": 1}, "Python 3.11 or newer is needed, but python3 is Python 3.8"),
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


def test_python_keeps_what_it_compiles_whatever_the_environment_says(programs, tmp_path):
    log = tmp_path / "log"
    add_program(
        programs, "python3", f'#!{programs / "bash"}\necho "${{PYTHONDONTWRITEBYTECODE-unset}}" >> {log}\nexit 1\n'
    )
    make("setup", f"VENV={tmp_path / 'venv'}", path=programs, variables={"PYTHONDONTWRITEBYTECODE": "1"})
    assert set(log.read_text().split()) == {"unset"}


def test_help_is_the_default_and_names_every_target():
    done = make()
    assert done.returncode == 0
    names = (
        "setup doctor new annotate data convert train evaluate predict demo app docs test test-all gpu lint clean help"
    )
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == set(names.split())


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
        (("setup", "DETECTRON2=a requirement"), 'd2tune setup --requirement "a requirement"'),
        (("setup", "SDIST=file.tar.gz"), 'd2tune setup  --sdist "file.tar.gz"'),
        (("test",), '-m "not gpu and not extended"'),
        (("test-all",), '-m "not gpu"'),
        (("gpu",), "-m pytest -m gpu"),
        (("gpu",), "benchmarks/gpu.py"),
    ],
)
def test_each_target_shows_the_command_below_it(arguments, command):
    done = make("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


# Stand in for the programs that `make browser` asks; the second writes down what it was asked to do.
ID = "#!{shell}\necho {number}\n"
APT_GET = "#!{shell}\necho $@ >> {log}\nexit {status}\n"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def add_program(programs, name, text):
    (programs / name).write_text(text)
    (programs / name).chmod(0o755)


def add_system(programs, tmp_path, *, user, status=0):
    add_program(programs, "id", ID.format(shell=programs / "bash", number=user))
    add_program(programs, "apt-get", APT_GET.format(shell=programs / "bash", log=tmp_path / "log", status=status))


@pytest.mark.parametrize("browser", BROWSERS)
def test_a_browser_that_is_there_is_taken(programs, tmp_path, browser):
    add_system(programs, tmp_path, user=0)
    add_program(programs, browser, "")
    assert make("browser", path=programs).returncode == 0
    assert not (tmp_path / "log").exists()


def test_root_gets_a_browser_from_the_system(programs, tmp_path):
    add_system(programs, tmp_path, user=0)
    done = make("browser", path=programs)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == "update\ninstall -y --no-install-recommends chromium\n"


def test_a_browser_that_cannot_be_had_stops_the_tests(programs, tmp_path):
    add_system(programs, tmp_path, user=0, status=100)
    assert make("browser", path=programs).returncode != 0
    assert (tmp_path / "log").read_text() == "update\n"


@pytest.mark.parametrize(("target", "program"), [("browser", "chromium"), ("encoder", "ffmpeg")])
def test_others_must_install_programs_themselves(programs, tmp_path, target, program):
    add_system(programs, tmp_path, user=1000)
    done = make(target, path=programs)
    assert done.returncode != 0
    assert f"sudo apt install {program}" in done.stderr.splitlines()[0]
    assert not (tmp_path / "log").exists()


def test_root_gets_an_encoder_from_the_system_unless_it_is_there(programs, tmp_path):
    add_system(programs, tmp_path, user=0)
    assert make("encoder", path=programs).returncode == 0
    assert (tmp_path / "log").read_text() == "update\ninstall -y --no-install-recommends ffmpeg\n"
    add_program(programs, "ffmpeg", "")
    (tmp_path / "log").unlink()
    assert make("encoder", path=programs).returncode == 0
    assert not (tmp_path / "log").exists()


def test_the_tests_look_for_a_browser_before_anything_else():
    done = make("--dry-run", "test")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("for name in chromium chromium-browser google-chrome google-chrome-stable; do")


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
