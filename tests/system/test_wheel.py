"""The wheel, in an environment and a folder that know nothing of this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.install.sdist import real_sdist
from tests.system.commands import ROOT

pytestmark = pytest.mark.slow

SOURCES = ("d2tune", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
QUICK = (
    "model.preset=pointrend_mobilenet_v2_fpn",
    "weights=scratch",
    "train.iterations=4",
    "train.image_size=96",
    "train.batch_size=2",
    "train.eval_every=0",
    "train.precision=float32",
    "TEST.DETECTIONS_PER_IMAGE=5",
)


def run(*command: object, folder: Path, **environment: str) -> str:
    """The standard output of a command that must end well; nothing of this checkout and no index is in reach."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MAKE"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=variables | {"PIP_NO_INDEX": "1", "PYTHONNOUSERSITE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that ``python -m build`` makes by way of the sdist."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    run(sys.executable, "-m", "build", "--no-isolation", folder=folder)
    assert [path.name for path in (folder / "dist").glob("*.tar.gz")] == ["d2tune-0.1.0.tar.gz"]
    (made,) = (folder / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and with this one's other packages, but for d2tune and Detectron2.

    The packages are links in a folder that a ``.pth`` file names. pip counts such a folder as outside of the
    environment, so it installs nothing that is there already and can remove nothing from it.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (folder / "borrowed").mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("d2tune", "detectron2", "__editable__", "__pycache__")):
            (folder / "borrowed" / entry.name).symlink_to(entry)
    base = str(folder / "venv")
    site = Path(sysconfig.get_path("purelib", vars={"base": base, "platbase": base}))
    (site / "borrowed.pth").write_text(f"{folder / 'borrowed'}\n", encoding="utf-8")
    run(folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel, folder=folder)
    return folder / "venv"


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("d2tune/")}
    files = (path for path in (ROOT / "d2tune").rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"d2tune/py.typed", "d2tune/install/constraints.txt"} < packed


@pytest.mark.extended
def test_from_the_wheel_to_a_trained_model(environment: Path, tmp_path: Path) -> None:
    command = environment / "bin" / "d2tune"
    variables = {"D2TUNE_CACHE": str(tmp_path / "cache")}
    where = run(environment / "bin" / "python", "-c", "import d2tune; print(d2tune.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert "setup" in run(command, "--help", folder=tmp_path)
    installed = run(command, "setup", "--sdist", real_sdist(), folder=tmp_path)
    assert "Installed Detectron2 0.6 (built by d2tune, no compiled operators)" in installed
    assert str(environment) in installed
    assert "Kept Detectron2 0.6" in run(command, "setup", folder=tmp_path)
    assert "Training can run here." in run(command, "doctor", folder=tmp_path)
    run(command, "sample", "balloon", "--out", "photos", "--images", 8, folder=tmp_path)
    run(command, "new", "balloons", "--data", "photos", folder=tmp_path)
    run(command, "train", "balloons.yaml", *QUICK, "--output-dir", "run", folder=tmp_path, **variables)
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["metrics"]["segm"]["AP"]["value"] >= 0
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} >= {"model_best.pth", "model_final.pth"}
