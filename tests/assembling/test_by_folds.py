"""The command with folds on real trainings: one that is killed and goes on, what is proven, and mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune import api, cli, files
from d2tune.assembling.candidates import can_be_fused
from d2tune.assembling.fold_scores import FoldScores, mean_over
from d2tune.assembling.folds import check_enough, read_folds
from d2tune.assembling.members import read_members
from d2tune.assembling.variants import PLAIN, Variant
from d2tune.errors import D2TuneError, DataError, RunError
from d2tune.evaluation.comparison import InstanceSide
from d2tune.metrics.bootstrap import paired_comparison
from d2tune.metrics.coco.results import KINDS
from d2tune.modeling import checkpoint
from d2tune.modeling.config import read_config
from d2tune.run_folder import RunFolder
from tests.assembling.conftest import SMALL_PX
from tests.runs.random_runs import random_run
from tests.runs.test_compare import write_set


def miou(folder: Path) -> float:
    metrics = json.loads((folder / "evaluation.json").read_text())["metrics"]
    return float(metrics["semantic"]["mIoU"]["value"])


@pytest.mark.extended
def test_a_killed_one_goes_on_and_proves_on_all_images(
    run: Path, folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "final"
    words = ["assemble", str(run), "--folds", str(folds), "--swa", "8", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "d2tune.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ},
    )
    deadline = time.monotonic() + 300
    while not (out / "folds" / "fold0" / "averaged" / "score.json").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("score.json")}
    assert kept and json.loads((out / "assembly.json").read_text())["written"] is None
    assert cli.main([*words[:-4], "--swa", "9", "--out", str(out)]) == 1
    assert "an assembly of other runs, folds or options" in capsys.readouterr().err

    assert cli.main(words) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items()), "predicted once"
    printed = capsys.readouterr().out
    content = json.loads((out / "assembly.json").read_text())
    assert content["written"] is True and content["proof"]["interval"]["low"] > 0
    assert content["images"]["folds"] == [35, 35] and content["proof"]["images"] == 70
    rows = {row["name"]: row for row in content["candidates"]}
    assert list(rows)[:2] == ["run", "run, weights averaged"]
    chosen = rows[content["chosen"]]
    whole = [row for row in rows.values() if row["value"] is not None]
    assert chosen["value"] == max(row["value"] for row in whole) and f"{chosen['name']} *" in printed
    assert sum(row["chosen"] for row in rows.values()) == 2 and "over 2 folds" in printed
    # each fold has what the others chose, against its run as it is
    gains = [rows[name]["folds"][k] - rows["run"]["folds"][k] for k, name in enumerate(content["choices"])]
    assert content["proof"]["difference"] == pytest.approx(mean_over(gains, [35, 35]))
    for number in range(2):
        fold = api.evaluate(folds / f"fold{number}", out=tmp_path / f"fold{number}")
        assert fold.metrics.main.value == pytest.approx(rows["run"]["folds"][number])
    assert "on the 70 images of 2 folds: +" in printed and content["sentence"] in printed

    record = RunFolder(out).read_record()
    assert record["assembled"]["chosen"] == chosen["name"] and record["input"]["short_side_px"] > SMALL_PX
    assert [one["run"] for one in record["assembled"]["folds"]["runs"]] == [
        str((folds / f"fold{number}").resolve()) for number in range(2)
    ]
    assert "70 images of 2 folds" in (out / "MODEL_CARD.md").read_text()
    api.evaluate(out, out=tmp_path / "evaluation")
    assert miou(tmp_path / "evaluation") == pytest.approx(miou(out))
    api.evaluate(run, out=tmp_path / "before")
    assert miou(out) > miou(tmp_path / "before")
    assert cli.main(words) == 1
    assert "the folder has a finished assembly" in capsys.readouterr().err


@pytest.mark.extended
def test_predictions_that_changed_are_refused(run: Path, folds: Path, tmp_path: Path) -> None:
    read = read_folds(folds, read_members([run])[0])
    larger = Variant(factor=1.5)
    scores = FoldScores(read, tmp_path, iterations=0, shown=lambda variant: variant.key)
    compared = scores.compare(PLAIN, [larger, PLAIN])
    values = [scores.known(variant) for variant in (PLAIN, larger)]
    assert values[1][1] is None and scores.known_mean(larger) is None, "asked for where it is compared"
    assert compared.difference == pytest.approx((values[1][0] - values[0][0]) / 2)  # type: ignore[operator]
    again = FoldScores(read, tmp_path, iterations=0, shown=lambda variant: variant.key)
    assert again.compare(PLAIN, [larger, PLAIN]) == compared
    files.write_bytes(sorted((tmp_path / "fold0" / "1.5").rglob("*.png"))[0], b"changed")
    with pytest.raises(RunError, match="the predictions have changed or are missing"):
        again.compare(PLAIN, [larger, PLAIN])


@pytest.mark.extended
def test_images_that_are_missing_or_changed(run: Path, folds: Path, data: Path, tmp_path: Path) -> None:
    photo = sorted((data / "train").glob("*.jpg"))[0]
    aside = tmp_path / photo.name
    shutil.move(photo, aside)
    try:
        with pytest.raises(D2TuneError, match=r"image.*missing"):
            api.assemble(run, folds=folds, out=tmp_path / "out")
        photo.write_bytes(aside.read_bytes() + b"\0")
        with pytest.raises(D2TuneError, match="the validation images of the fold have changed since its training"):
            api.assemble(run, folds=folds, out=tmp_path / "out")
    finally:
        shutil.move(aside, photo)
    assert not (tmp_path / "out").exists()


def folds_of(run: Path, folder: Path) -> Path:
    """A folder as `d2tune kfold` writes it, of two copies of a run."""
    for number in range(2):
        shutil.copytree(run, folder / f"fold{number}")
        RunFolder(folder / f"fold{number}").update_record({"finished": {"iterations": 1}})
    results = [{"run": "fold0"}, {"run": "fold1"}]
    content = {"schema": 1, "project": "random", "folds": 2, "data_sha256": "0" * 64, "settings": {}}
    files.write_json(folder / "kfold.json", content | {"results": results})
    return folder


def _linked(source: str, target: str) -> None:
    """Files of weights are never changed in place, so that a second name is enough."""
    if source.endswith(".pth"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _changed_json(path: Path, **values: Any) -> None:
    files.write_json(path, json.loads(path.read_bytes()) | values)


def _replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _other_network(fold: Path) -> None:
    state = checkpoint.load(fold / "checkpoints" / "model_best.pth")
    state["model"].popitem()
    checkpoint.save(fold / "checkpoints" / "model_best.pth", state)


MISTAKES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folds: (folds / "kfold.json").unlink(), "is not a folder of folds; expected a folder with kfold.json"),
    (lambda folds: (folds / "kfold.json").write_text("{"), "kfold.json: is damaged"),
    (
        lambda folds: _changed_json(folds / "kfold.json", schema=9),
        "kfold.json: is of another version of d2tune; found 9",
    ),
    (
        lambda folds: _changed_json(folds / "kfold.json", project="kites"),
        "the folds are of another project; found 'kites'; expected 'random', as ",
    ),
    (
        lambda folds: _changed_json(folds / "kfold.json", results=[{"run": "fold0"}]),
        "the folds are not all trained; found 1 finished; expected 2. Go on with `d2tune kfold PROJECT.yaml --folds 2 ",
    ),
    (
        lambda folds: RunFolder(folds / "fold1").update_record({"finished": None}),
        "the folds are not all trained; found 1 finished; expected 2",
    ),
    (
        lambda folds: _changed_json(folds / "fold1" / "record.json", classes=["bus", "kite"]),
        "the run has other classes; found bus, kite; expected bus, road, as ",
    ),
    (
        lambda folds: _replaced(folds / "fold1" / "project.yaml", "batch_size: 4", "batch_size: 2"),
        "fold1: the fold was trained with another train.batch_size; found 2; expected 4, as ",
    ),
    (lambda folds: _other_network(folds / "fold1"), "fold1: the fold has another network; expected that of "),
    (
        lambda folds: _replaced(folds / "fold0" / "detectron2.yaml", "MIN_SIZE_TEST: 64", "MIN_SIZE_TEST: 80"),
        "fold0: the fold evaluates images of another size: INPUT.MIN_SIZE_TEST; found 80; expected 64, as ",
    ),
    (
        lambda folds: shutil.rmtree(folds / "fold1" / "checkpoints"),
        "the weights do not exist",
    ),
    (lambda folds: None, "the annotations are missing"),
]


@pytest.mark.slow
def test_folds_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = random_run(tmp_path / "run", "semantic")
    assert can_be_fused(read_config(run / "detectron2.yaml"))
    whole = folds_of(run, tmp_path / "whole")
    out = tmp_path / "out"
    for number, (change, line) in enumerate(MISTAKES):
        folds = tmp_path / f"folds{number}"
        shutil.copytree(whole, folds, copy_function=_linked)
        change(folds)
        assert cli.main(["assemble", str(run), "--folds", str(folds), "--out", str(out)]) == 1
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1, error
    assert cli.main(["assemble", str(run), str(whole / "fold0"), "--folds", str(whole), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "--folds: folds show what is worth doing with one run; found 2 runs; expected 1 run" in error
    assert not out.exists()


def test_too_few_images() -> None:
    check_enough(np.array([0, 1, 2, 3, 4, 5, 5]), Path("folds"))
    with pytest.raises(DataError, match=r"too few images .*; found 5 that are not alike; expected 6 or more"):
        check_enough(np.array([0, 1, 1, 2, 3, 4, 4]), Path("folds"))


def test_seeds_and_evaluations_may_differ(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", "semantic")
    folds = folds_of(run, tmp_path / "folds")
    for number in range(2):
        _replaced(folds / f"fold{number}" / "project.yaml", "\n  seed: 0", "\n  seed: 5")
    with pytest.raises(D2TuneError, match="the annotations are missing"):  # all that comes before the data fits
        read_folds(folds, read_members([run])[0])


def test_a_statistic_has_the_difference_of_a_comparison(tmp_path: Path) -> None:
    write_set(tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text())
    a, b = (InstanceSide(name, "", truth, json.loads((tmp_path / f"{name}.json").read_text()), KINDS) for name in "ab")
    compared = a.compare(b)
    main = compared.metrics[compared.main]
    own = paired_comparison(a.main_statistic(), b.main_statistic(), compared.images)
    assert (own.value_a, own.value_b) == (main.value_a, main.value_b)
    assert own.interval == main.interval and own.better == main.better == "B"
