"""Real processes with terminals as people have them: closed, without Unicode, read by ``head``; and odd names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cases import on_demand

COMMAND = [sys.executable, "-m", "d2tune"]
ODD = "ba\x1b[2Jd\u202egnp.\u200bé气"
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}


def labelme(folder: Path, name: str, *, label: str = "b", points: object = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    shape = {"label": label, "points": points or [[1, 1], [20, 1], [20, 20]], "shape_type": "polygon", "flags": {}}
    content: dict[str, object] = {
        "version": "5.0.1",
        "flags": {},
        "shapes": [shape],
        "imagePath": f"{name}.png",
        "imageData": None,
    }
    text = json.dumps(content | {"imageHeight": 30, "imageWidth": 40})
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def run(
    *words: object, cwd: Path, redirect: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command through a shell, which does what ``redirect`` says."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirect}', "bash", *COMMAND, *map(str, words)],
        cwd=cwd,
        env=os.environ | (environment or {}),
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(200):
        labelme(folder, f"p{number:03d}", label=f"label{number}", points=[[1, 1], [60, 1], [60, 20]])
    return folder


@pytest.mark.parametrize("module", ["d2tune", "d2tune.cli"])
def test_the_package_is_the_command(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "check", "missing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: missing: there is no such file or folder\n")
    helped = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: d2tune ")


REDIRECTS = on_demand(["| head -n 1", "| true", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"], "| true", "<&- >&- 2>&-")


@pytest.mark.parametrize("redirect", REDIRECTS)
def test_a_reader_that_goes_away_stops_nothing(redirect: str, photos: Path, tmp_path: Path) -> None:
    done = run("check", photos, "--findings", "findings.json", cwd=tmp_path, redirect=redirect)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"Broken pipe" not in done.stderr and b"Exception" not in done.stderr
    assert len(json.loads((tmp_path / "findings.json").read_text("utf-8"))) == 200, (
        "complete, and nothing printed into it"
    )


def test_an_error_has_its_status_without_a_reader(tmp_path: Path) -> None:
    for redirect in (">&- 2>&-", "2>&1 | true"):
        assert run("check", "missing", cwd=tmp_path, redirect=redirect).returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_the_output_is_an_error(photos: Path, tmp_path: Path) -> None:
    done = run("check", photos, cwd=tmp_path, redirect="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode() == "error: the system: No space left on device\n"


@pytest.mark.extended
@pytest.mark.parametrize("environment", [ASCII, ASCII | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_terminals_without_unicode(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "气球"
    labelme(folder, "bé", label="气球", points=[[1, 1], [60, 1], [60, 20]])
    labelme(folder, "c")
    (tmp_path / "我.yaml").write_text("data: {root: 气球, train: ., val: 0.5}\n", encoding="utf-8")
    for words in (
        ["check", folder],
        ["check", folder, "--report", "page.html"],
        ["convert", folder, "--out", "out.json"],
        ["convert", folder, "--to", "labelme", "--out", "out"],
        ["split", folder, "--val", "0.5", "--no-duplicates"],
        ["new", "蓝", "--data", folder, "--out", "new.yaml"],
        ["check", tmp_path / "我.yaml"],
    ):
        done = run(*words, cwd=tmp_path, environment=environment)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        done.stdout.decode("ascii")
        done.stderr.decode("ascii")
    assert rb"\u6c14\u7403" in run("check", folder, cwd=tmp_path, environment=environment).stdout
    for line in ("train 无.yaml", "predict 无", "eval 无", "--help", "train --help"):
        done = run(*line.split(), cwd=tmp_path, environment=environment)
        assert b"Traceback" not in done.stderr and done.returncode == int("--help" not in line)


@pytest.mark.extended
def test_names_reach_the_terminal_without_control_characters(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    labelme(folder, "a", label=ODD)
    labelme(folder, ODD, points=[[1, 1], [60, 1], [60, 20]])
    (tmp_path / "p.yaml").write_text(f"data: {{root: data, train: ., val: 0.5}}\nclasses: [b, {json.dumps(ODD)}]\n")
    for words in (
        ["check", folder],
        ["check", "p.yaml"],
        ["convert", folder, "--out", "out.json"],
        ["split", folder, "--val", "0.5", "--no-duplicates"],
        ["new", "n", "--data", folder, "--out", "new.yaml"],
        ["check", ODD],
        ["train", f"{ODD}.yaml"],
        ["predict", ODD],
        ["eval", ODD],
        ["compare", ODD, ODD],
        ["sample", ODD, "--out", "s"],
        [ODD],
    ):
        done = run(*words, cwd=tmp_path)
        for text in (done.stdout.decode(), done.stderr.decode()):
            assert "\x1b" not in text and "\u202e" not in text and "\u200b" not in text, words
    assert "\\x1b[2Jd\\u202egnp.\\u200bé气" in run("check", folder, cwd=tmp_path).stdout.decode()


@pytest.mark.extended
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    labelme(tmp_path / "data", "a")
    labelme(tmp_path / "data", "b", points=[[3, 3], [30, 3], [3, 25]])
    text = "task: semantic\ndata: {root: data, train: ., val: 0.5, background: sky}\nclasses: [sky, b]\n"
    text += "model: {preset: unet, encoder: mobilenet_v2}\nweights: scratch\ntrain: {iterations: 1, image_size: 32}\n"
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    nowhere = str(tmp_path / "file" / "folder")
    for environment in ({"D2TUNE_CACHE": nowhere}, {"D2TUNE_CACHE": "", "XDG_CACHE_HOME": "", "HOME": nowhere}):
        done = run("train", "p.yaml", cwd=tmp_path, environment=environment)
        line = done.stderr.decode().splitlines()[-1]
        assert done.returncode == 1 and "D2TUNE_CACHE" in line and line.startswith("error: ")
        assert not (tmp_path / "runs").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file", "p.yaml"]


def test_empty_variables_leave_the_cache_where_it_is(tmp_path: Path) -> None:
    script = "from d2tune.files import cache_folder; print(cache_folder())"
    home = {"HOME": str(tmp_path), "D2TUNE_CACHE": " ", "XDG_CACHE_HOME": ""}
    for environment in (home, home | {"XDG_CACHE_HOME": "relative"}):
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(tmp_path / ".cache" / "d2tune")
