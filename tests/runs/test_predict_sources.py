"""What a person sees of a prediction on several sources: outputs, skipped images, progress, exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import d2tune
from d2tune.cli import main
from d2tune.errors import ProjectError
from d2tune.runs.prediction import progress
from tests.annotations.builders import photo
from tests.runs.random_runs import random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("runs") / "run", "instance")


def test_sources_of_all_kinds_have_unique_outputs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["one/a.png", "one/deep/a.png", "two/a.png", "three/a.png", "three/b.png"]
    for name in names:
        photo(tmp_path / name)
    (tmp_path / "one" / "torn.png").write_bytes(b"\x89PNG")
    (tmp_path / "list.txt").write_text("three/b.png\ngone.png\none/a.png\n", "utf-8")
    words = ["predict", str(run), "one", "t*/a.png", "--to", "coco", "--to", "overlays,rle", "--out", "out", "list.txt"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    table = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    order = ["one/a.png", "one/deep/a.png", "three/a.png", "two/a.png", "three/b.png"]
    assert [row["file_name"] for row in table["images"]] == order
    drawings = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.predicted.jpg")}
    assert drawings == {f"{name}.predicted.jpg" for name in names} and (tmp_path / "out" / "results.json").is_file()
    assert out.splitlines()[0].endswith("on 5 images: out") and "2 images skipped" in out.splitlines()
    assert "skipped: list.txt: line 2: the image does not exist; found gone.png" in err
    assert "skipped: one/torn.png: the image cannot be read" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone"], "gone: the image or folder does not exist"),
        (["empty"], "empty: the folder has no images"),
        (["empty/*.jpg"], "empty/*.jpg: the pattern stands for no image"),
        (["a.png", "--to", "coco,nothing"], "an instance run cannot write this format; found nothing"),
        (["a.png", "--to", ""], "an instance run cannot write this format"),
        (["torn.png"], "no image could be read"),
        (["a.png", "", "--out", "out"], "the path is empty"),
        (["a.png", "--shard", "0/4"], "Shards count from 1"),
    ],
)
def test_what_is_refused(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "a.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(run), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_video_is_not_an_image(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"clip\.mp4: a video is not predicted on as images\. Use `d2tune\."):
        d2tune.predict(run, [tmp_path, "clip.mp4"], out=tmp_path / "out")


def test_lines_of_progress_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six hours of two images a second, of which a tenth was finished before: few lines, with rate and time left."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.Progress(43200, 4320) as shown:
        for _ in range(4320, 43200):
            now[0] += 0.5
            shown.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "predicted on 4380 of 43200 images, 2 images/s, 5:23:30 left"
    assert 20 < len(lines) < 100 and all("2 images/s" in line for line in lines)


def test_a_short_prediction_shows_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(3, 0) as shown:
        for _ in range(3):
            shown.update()
    assert capsys.readouterr().err == ""
