"""The files of a prediction: what is predicted on, what is replaced, and what an interrupted call leaves."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

import d2tune
from d2tune.cli import main
from d2tune.errors import D2TuneError, DataError, ProjectError
from d2tune.inference.writers import journal
from d2tune.inference.writers.base import Writer
from tests.cases import on_demand
from tests.forked import exit_code
from tests.runs.random_runs import random_run
from tests.runs.test_load import photos, quick_run
from tests.runs.test_old_runs import old_run
from tests.shared_files import SHARED
from tests.system.commands import d2tune_here, succeeded

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_plots")]

MIXED = SHARED / "strangers" / "94_predict_mixed_folder"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def semantic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_run("semantic", tmp_path_factory.mktemp("runs"))


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder but for the records of what was written."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".d2tune-outputs.jsonl"
    }


def copied(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for path in photos(count):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def gray_images(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        PilImage.effect_noise((90 + number, 70), 60).save(folder / f"{number}.png")
    return folder


def test_a_mixed_folder(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ten photos of ten names; a HEIC is named, an empty file too; hidden files and outputs are no photos."""
    source = tmp_path / "photos"
    for path in sorted(MIXED.rglob("*")):
        if path.is_file():
            (source / path.relative_to(MIXED)).parent.mkdir(parents=True, exist_ok=True)
            (source / path.relative_to(MIXED)).write_bytes(path.read_bytes())
    (source / ".ipynb_checkpoints").mkdir()
    (source / ".ipynb_checkpoints" / "x-checkpoint.jpg").write_bytes((source / "one.jpg").read_bytes())
    (source / "old.jpg.predicted.jpg").write_bytes((source / "one.jpg").read_bytes())  # of an earlier version
    names = ["five.webp", "four.gif", "nine16.png", "nine8.png", "one.jpg", "one.png", "six.ppm", "sub/one.jpg"]
    names = sorted([*names, "three.avif", "two.JFIF"])
    logging.getLogger("d2tune").propagate = True
    for out in (source / "predicted", source / "predicted", source, source):
        result = d2tune.predict(run, source, out=out)
        table = json.loads((out / "predictions.json").read_text("utf-8"))
        assert sorted(row["file_name"] for row in table["images"]) == names
        assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.predicted.jpg")) == sorted(
            [f"{name}.predicted.jpg" for name in names]
            + ([f"predicted/{name}.predicted.jpg" for name in names] if out == source else [])
            + (["old.jpg.predicted.jpg"] if out == source else [])
        )
        assert len(result.skipped) == 1 and "eight.jpg" in result.skipped[0]
    assert "1 HEIC file" in caplog.text
    # 16 bits are the 8 bits of the same photo times 257, up to rounding
    eight, sixteen = d2tune.load_predictor(run, min_score=0).batch([source / "nine8.png", source / "nine16.png"])
    assert len(eight) and sixteen.scores == pytest.approx(eight.scores, abs=1e-3)


def test_label_maps_of_earlier_predictions_are_not_predicted_on(semantic_run: Path, tmp_path: Path) -> None:
    gray_images(tmp_path, 2)
    first = d2tune.predict(semantic_run, tmp_path, out=tmp_path)
    again = d2tune.predict(semantic_run, tmp_path, out=tmp_path)
    assert first.images == again.images == 2 and len(list((tmp_path / "labels").glob("*.png"))) == 2


def refuse(folder: Path, call: Any) -> str:
    """The line of a refusal, which must leave all files as they are."""
    before = content(folder)
    with pytest.raises(D2TuneError) as caught:
        call()
    assert content(folder) == before
    line = caught.value.one_line()
    assert "\n" not in line
    return line


def test_hand_made_label_images_are_not_replaced(semantic_run: Path, tmp_path: Path) -> None:
    name = "a.png"
    PilImage.effect_noise((64, 64), 60).save(tmp_path / name)
    (tmp_path / "labels").mkdir()
    PilImage.fromarray(np.ones((64, 64), np.uint8)).save(tmp_path / "labels" / name)
    for force in (False, True):
        line = refuse(
            tmp_path, lambda force=force: d2tune.predict(semantic_run, tmp_path / name, out=tmp_path, force=force)
        )
        assert f"labels/{name}: the file is already there" in line and "d2tune did not write it as predictions" in line


@pytest.mark.parametrize("name", ["predictions.json", "one.jpg.predicted.jpg"])
def test_a_persons_files_are_not_replaced(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "one.jpg").write_bytes((MIXED / "one.jpg").read_bytes())
    (tmp_path / name).write_bytes(b"[]")
    for force in (False, True):
        line = refuse(
            tmp_path, lambda force=force: d2tune.predict(run, tmp_path / "one.jpg", out=tmp_path, force=force)
        )
        assert f"{name}: the file is already there" in line


def test_a_corrected_labelme_file_stays_even_with_force(run: Path, tmp_path: Path) -> None:
    source = copied(tmp_path / "in", 3)
    d2tune.predict(run, source, out=source, to="labelme")
    first, second, third = sorted(source.glob("*.json"))
    first.write_text(first.read_text("utf-8").replace('"label"', '"label" '), "utf-8")
    corrected, before = first.read_bytes(), content(source)
    with pytest.raises(DataError, match="all 3 images already have a Labelme file"):
        d2tune.predict(run, source, out=source, to="labelme")
    result = d2tune.predict(run, source, out=source, to="labelme", force=True, min_score=0.9)
    assert first.read_bytes() == corrected and result.images == 2
    assert len(result.skipped) == 1 and "is not from a prediction, or was changed since" in result.skipped[0]
    assert {path.name for path in (second, third) if path.read_bytes() != before[path.name]}


def test_a_corrected_labelme_file_stays_beside_new_images_of_its_size(run: Path, tmp_path: Path) -> None:
    """Images of one size share a batch, in which the model also runs on those that are finished."""
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        PilImage.effect_noise((90, 70), 60).save(source / name)
    (source / "b.json").write_text('{"mine": true}', "utf-8")
    for force in (False, True):
        result = d2tune.predict(run, source, out=source, to="labelme", force=force)
        assert (source / "b.json").read_text("utf-8") == '{"mine": true}'
        assert result.images == 2 and len(result.skipped) == 1


@pytest.mark.parametrize("force", [False, True])
def test_labelme_files_of_a_person_stay_beside_other_formats(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, force: bool
) -> None:
    source = copied(tmp_path / "in", 3)
    images = sorted(source.iterdir())
    mine = images[0].with_suffix(".json")
    mine.write_text('{"mine": 1}', "utf-8")
    d2tune.predict(run, source, out=source, to="labelme,coco,rle", force=force)
    assert mine.read_text("utf-8") == '{"mine": 1}'
    assert all(image.with_suffix(".json").is_file() for image in images)
    d2tune.predict(run, source, out=tmp_path / "whole", to="coco,rle")
    for name in ("predictions.json", "results.json"):
        assert (source / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert f"1 Labelme file already there and not overwritten, such as {mine}" in caplog.text


def test_a_labelme_file_that_is_saved_during_the_prediction_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied(tmp_path / "in", 3)
    mine = sorted(source.iterdir())[2].with_suffix(".json")
    forward = Writer.predictions

    def predictions(self: Writer[Any, Any], done: Any = (), *, within: Any = None) -> Any:
        mine.write_text("mine", "utf-8")
        return forward(self, done, within=within)

    monkeypatch.setattr(Writer, "predictions", predictions)
    d2tune.predict(run, source, out=source, to="labelme")
    assert mine.read_text("utf-8") == "mine" and len(list(source.glob("*.json"))) == 3


@pytest.mark.parametrize("to", ["labelme", "labelme,coco"])
def test_labelme_files_of_an_earlier_prediction_stay_after_an_interruption_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    source = copied(tmp_path / "in", 4)
    third = sorted(source.iterdir())[2]
    d2tune.predict(run, third, out=source, to="labelme", min_score=0.9)
    earlier = third.with_suffix(".json").read_bytes()
    with monkeypatch.context() as patch:
        stop_at(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            d2tune.predict(run, source, out=source, to=to, min_score=0.0)
    d2tune.predict(run, source, out=source, to=to, min_score=0.0)
    assert third.with_suffix(".json").read_bytes() == earlier
    assert len(list(source.glob("[0-9]*.json"))) == 4


def test_the_default_folder_of_an_earlier_version_is_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes((MIXED / "one.jpg").read_bytes())
    out = run / "predictions"
    out.mkdir()
    (out / "predictions.json").write_text("{}")
    (out / "one.jpg.predicted.jpg").write_bytes(b"")
    assert d2tune.predict(run, tmp_path / "one.jpg").images == 1
    (out / "predictions.json").write_text("mine")
    with pytest.raises(DataError, match="It was changed after d2tune wrote it"):
        d2tune.predict(run, tmp_path / "one.jpg")


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let the ``count``-th image to be added stop the prediction."""
    original, calls = journal.Journal.add, []

    def add(self: journal.Journal, index: int, entry: Any) -> None:
        if len(calls) == count:
            raise error
        calls.append(index)
        original(self, index, entry)

    monkeypatch.setattr(journal.Journal, "add", add)


@pytest.mark.parametrize("stops", [pytest.param((1,), marks=pytest.mark.extended), (2, 1, 2)])
def test_an_interrupted_prediction_goes_on_with_the_same_bytes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    source = copied(tmp_path / "in", 6)
    (source / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    whole = d2tune.predict(run, source, out=tmp_path / "whole")
    out = tmp_path / "out"
    for stop in stops:
        with monkeypatch.context() as patch:
            stop_at(patch, stop, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt, match=r"interrupted after \d of 7 images; the same command goes on"):
                d2tune.predict(run, source, out=out)
        assert not (out / "predictions.json").exists() and list(out.glob("*.predicted.jpg"))
    ran: list[Any] = []
    forward = Writer.predictions

    def predictions(self: Writer[Any, Any], done: Any = (), *, within: Any = None) -> Any:
        ran.append(sorted(done))
        return forward(self, done, within=within)

    monkeypatch.setattr(Writer, "predictions", predictions)
    result = d2tune.predict(run, source, out=out)
    assert ran == [list(range(sum(stops)))]
    assert content(out) == content(tmp_path / "whole")
    assert (result.images, result.instances, result.skipped) == (whole.images, whole.instances, whole.skipped)


def test_two_predictions_at_once_do_not_mix_in_one_folder(run: Path, tmp_path: Path) -> None:
    """The second one is refused, and the first one ends as if it had been alone."""
    source, out = copied(tmp_path / "in", 3), tmp_path / "out"
    d2tune.predict(run, source, out=tmp_path / "whole", min_score=0.1)
    messages: list[str] = []
    original = Writer.predictions

    def predictions(self: Writer[Any, Any], done: Any = (), *, within: Any = None) -> Any:
        for number, result in enumerate(original(self, done, within=within)):
            if number == 1:
                with pytest.raises(DataError) as caught:
                    d2tune.predict(run, source, out=out, min_score=0.9)
                messages.append(caught.value.one_line())
            yield result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "predictions", predictions)
        d2tune.predict(run, source, out=out, min_score=0.1)
    assert messages == [
        f"{out}: another process is predicting into this folder. Wait until it ends, or write to another folder with "
        "--out."
    ]
    assert content(out) == content(tmp_path / "whole")


def test_other_arguments_begin_anew(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = copied(tmp_path / "in", 3), tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            d2tune.predict(run, source, out=out, min_score=0.9)
    d2tune.predict(run, source, out=out, min_score=0.1)
    d2tune.predict(run, source, out=tmp_path / "whole", min_score=0.1)
    assert content(out) == content(tmp_path / "whole")


def test_an_image_that_changed_begins_anew(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = copied(tmp_path / "in", 3), tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            d2tune.predict(run, source, out=out)
    first, second, _ = sorted(source.iterdir())
    first.write_bytes(second.read_bytes())
    d2tune.predict(run, source, out=out)
    d2tune.predict(run, source, out=tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.extended
def test_an_interrupted_command(run: Path, tmp_path: Path) -> None:
    """SIGINT ends with one line and 130, and leaves what is finished."""
    source = copied(tmp_path / "in", 13)
    code = "import sys; from d2tune.cli import main; sys.exit(main())"
    started = subprocess.Popen(
        [sys.executable, "-c", code, "predict", str(run), str(source), "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=with_the_same_threads(),
    )
    entries = tmp_path / "out" / ".d2tune-predict.jsonl"
    # the first line is there before the first image is
    while started.poll() is None and not (entries.exists() and len(entries.read_text("utf-8").splitlines()) > 1):
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=120)
    assert started.returncode == 130, (out, err)
    line = err.splitlines()[-1]
    assert line.startswith("interrupted after ") and "of 13 images" in line and "Traceback" not in err
    assert entries.is_file()


def with_the_same_threads() -> dict[str, str]:
    """The environment of a process whose sums are rounded as in this one."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


def killed(name: str, threads: int, words: list[str]) -> None:
    """A command in whose process SIGKILL comes before a file gets its name ``name``."""
    torch.set_num_threads(threads)
    replace = os.replace

    def replace_or_die(source: Any, target: Any) -> None:
        if str(target).endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die
    sys.exit(main(words))


def test_a_prediction_that_is_killed_goes_on_in_all_formats(tmp_path: Path) -> None:
    """SIGKILL before a mask and a table get their names, so that temporary files are left, as of a cut-out."""
    run, source = random_run(tmp_path / "run", "instance"), tmp_path / "in"
    source.mkdir()
    draw = np.random.default_rng(0)
    for number in range(10):
        pixels = draw.integers(0, 256, (60 + 20 * (number // 2), 90, 3), dtype=np.uint8)
        PilImage.fromarray(pixels).save(source / f"{number}.png")
    to, out = "coco,labelme,rle,yolo-seg,measurements,masks,cutouts,overlays", tmp_path / "out"
    words = ["predict", run, source, "--out", out, "--to", to, "--min-score", "0.1"]
    for name, finished in (("masks/9.png", range(2, 9)), ("counts.csv", [10])):
        assert exit_code(killed, name, torch.get_num_threads(), [*map(str, words)]) == -signal.SIGKILL
        assert len((out / ".d2tune-predict.jsonl").read_text().splitlines()) - 1 in finished
        assert list(out.rglob(f".{Path(name).name}.*.tmp"))
    (out / "cutouts" / "9" / ".0003_bus_0.41.png.abcdefgh.tmp").write_bytes(b"torn")
    d2tune.predict(run, source, out=out, to=to, min_score=0.1)
    d2tune.predict(run, source, out=tmp_path / "whole", to=to, min_score=0.1)
    assert content(out) == content(tmp_path / "whole")


def test_label_maps_and_labelme_files_go_on_too(
    run: Path, semantic_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gray_images(tmp_path / "in", 3)
    for name, one, to in (("maps", semantic_run, "label_maps"), ("labelme", run, "labelme")):
        with monkeypatch.context() as patch:
            stop_at(patch, 1, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                d2tune.predict(one, source, out=tmp_path / name, to=to)
        result = d2tune.predict(one, source, out=tmp_path / name, to=to)
        d2tune.predict(one, source, out=tmp_path / "whole" / name, to=to)
        ours, whole = (
            {key: value.replace(b"../../in", b"../in") for key, value in content(folder).items()}
            for folder in (tmp_path / name, tmp_path / "whole" / name)
        )
        assert ours == whole and result.images == 3 and not result.skipped


def test_lower_scores_are_named_where_nothing_is_written(run: Path, tmp_path: Path) -> None:
    image = photos(1)[0]
    everything = json.loads(
        (d2tune.predict(run, image, out=tmp_path / "a", min_score=0).out / "predictions.json").read_text()
    )
    scores = [row["score"] for row in everything["annotations"]]
    result = d2tune.predict(run, image, out=tmp_path / "b", min_score=1)
    assert (result.instances, result.lower, result.highest_lower) == (0, len(scores), max(scores))
    assert result.summary.splitlines()[1] == (
        f"No instance has a score of 1 or more, but {len(scores)} have lower scores, the highest is "
        f"{int(1000 * max(scores)) / 1000:g}; write them with --min-score."
    )
    assert "\n" not in d2tune.predict(run, image, out=tmp_path / "c", min_score=0).summary


@pytest.mark.parametrize("options", [{"min_score": float("nan")}, {"min_score": 2}, {"min_score": -1}])
def test_invalid_numbers_are_refused(run: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ProjectError, match="--min-score: must be between 0 and 1"):
        d2tune.predict(run, photos(1)[0], out=tmp_path / "out", **options)
    for tolerance_px in (-5, float("nan")):
        with pytest.raises(ProjectError, match="--tolerance-px: must be "):
            d2tune.predict(run, photos(1)[0], out=tmp_path / "out", tolerance_px=tolerance_px)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("batch_size", on_demand([0, -1, 1.5, True], 0, 1.5))
def test_invalid_batch_sizes_are_refused(run: Path, batch_size: Any) -> None:
    predictor = d2tune.load_predictor(run)
    with pytest.raises(ProjectError, match="batch size"):
        predictor.batch(photos(1), batch_size=batch_size)
    with pytest.raises(ProjectError, match=r"batch.size"):
        d2tune.evaluate(run, batch_size=batch_size)


def test_names_and_sizes_that_are_unusual(run: Path, tmp_path: Path) -> None:
    """A name that is not UTF-8, a line feed, an escape sequence; 3000 x 2 px and 1 x 1 px."""
    names = [os.fsdecode(b"no\xfftext.png"), "line\nfeed.png", "esc\x1b[31m.png", "wide.png", "dot.png"]
    for name, size in zip(names, [(60, 40), (60, 40), (60, 40), (3000, 2), (1, 1)], strict=True):
        (tmp_path / "in").mkdir(exist_ok=True)
        with (tmp_path / "in" / name).open("wb") as stream:
            PilImage.effect_noise(size, 60).convert("RGB").save(stream, format="PNG")
    result = d2tune.predict(run, tmp_path / "in", out=tmp_path / "out")
    assert result.images == 5 and not result.skipped
    table = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))
    assert {row["file_name"] for row in table["images"]} == set(names)
    assert {(row["width"], row["height"]) for row in table["images"]} >= {(3000, 2), (1, 1)}
    assert all((tmp_path / "out" / f"{name}.predicted.jpg").is_file() for name in names)
    labelme = d2tune.predict(run, tmp_path / "in", out=tmp_path / "labelme", to="labelme")
    assert labelme.images == 5
    assert {
        os.path.normpath(tmp_path / "labelme" / json.loads(path.read_text("utf-8"))["imagePath"])
        for path in (tmp_path / "labelme").glob("*.json")
    } == {str(tmp_path / "in" / name) for name in names}


def on_a_terminal(*words: object) -> str:
    """What a command shows on a terminal of 100 columns."""
    reading, writing = os.openpty()
    termios.tcsetwinsize(writing, (30, 100))
    with ThreadPoolExecutor(1) as pool, os.fdopen(writing, "w", encoding="utf-8") as terminal:
        shown = pool.submit(everything, reading)
        done = d2tune_here(*words, folder=Path.cwd(), terminal=terminal)
        terminal.close()
        text = shown.result()
    assert done.returncode == 0, text
    return text


def everything(reading: int) -> str:
    """What is written to a terminal until it is closed."""
    shown = b""
    with contextlib.suppress(OSError):  # which ends the output on Linux
        while block := os.read(reading, 4096):
            shown += block
    os.close(reading)
    return shown.decode("utf-8", "replace")


@pytest.mark.extended
def test_progress_of_an_evaluation_is_shown_on_a_terminal(run: Path, tmp_path: Path) -> None:
    shown = on_a_terminal("eval", run, "--out", tmp_path / "evaluation")
    assert "evaluating: " in shown and "%|" in shown and "<" in shown  # elapsed < left


def test_progress_is_shown_on_a_terminal_only(run: Path, tmp_path: Path) -> None:
    source = copied(tmp_path / "in", 3)
    shown = on_a_terminal("predict", run, source, "--out", tmp_path / "out")
    assert "predicting: " in shown and "%|" in shown and "<" in shown  # elapsed < left
    done = d2tune_here("predict", run, source, "--out", tmp_path / "again", folder=tmp_path)
    assert succeeded(done) and "predicting: " not in done.stdout + done.stderr
