"""The command on real trainings: a model that is proven, one that is not, a killed one that goes on, and mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import d2tune
from d2tune import api, cli
from d2tune.assembling.members import read_members, validation_split
from d2tune.assembling.scores import halves_of
from d2tune.assembling.swa import averaged_weights
from d2tune.errors import DataError, RunError
from d2tune.modeling import checkpoint
from d2tune.packages.read import read_package
from d2tune.run_folder import RunFolder
from tests.assembling.conftest import PROJECT, SMALL_PX


@pytest.mark.extended
def test_a_model_that_is_better_is_written_whole(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "final"
    assert cli.main(["assemble", str(run), "--swa", "8", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    content = json.loads((out / "assembly.json").read_text())
    assert content["written"] is True and content["proof"]["interval"]["low"] > 0
    assert content["images"] == {"choosing": 7, "proving": 7}
    names = [row["name"] for row in content["candidates"]]
    assert names[:2] == ["run", "run, weights averaged"] and len(names) == 7
    best = max(content["candidates"], key=lambda row: row["choosing"])
    assert content["chosen"] == best["name"] and f"{best['name']} *" in printed
    assert best["proving"] - content["candidates"][0]["proving"] == pytest.approx(content["proof"]["difference"])
    assert f"{best['name']} is better than run on 7 other images" in printed

    record = RunFolder(out).read_record()
    assert record["assembled"]["chosen"] == best["name"] and record["input"]["short_side_px"] > SMALL_PX
    whole = json.loads((out / "evaluation.json").read_text())["metrics"]["semantic"]["mIoU"]["value"]
    api.evaluate(out, out=tmp_path / "evaluation")
    again = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert again["metrics"]["semantic"]["mIoU"]["value"] == pytest.approx(whole)
    api.evaluate(run, out=tmp_path / "before")
    assert api.compare(tmp_path / "before", out).metrics["semantic mIoU"].better == "B"
    assert "assembled of finished runs" in (out / "MODEL_CARD.md").read_text()

    package = api.package(out, out=tmp_path / "package").out
    assert "assembled" in read_package(package).manifest.training
    assert str(tmp_path) not in (package / "package.json").read_text()
    maps = [api.load_predictor(model)(_photo(run)).class_ids for model in (out, package)]
    assert np.array_equal(*maps)

    assert cli.main(["assemble", str(run), "--swa", "8", "--out", str(out)]) == 1
    assert "the folder has a finished assembly" in capsys.readouterr().err
    with pytest.raises(RunError, match="the run is an assembled model"):
        api.assemble(out, out=tmp_path / "other")


def _photo(run: Path) -> Path:
    dataset = validation_split(read_members([run]))
    assert dataset.images[0].path is not None
    return dataset.images[0].path


@pytest.mark.extended
def test_an_average_is_the_same_after_a_kill(data: Path, tmp_path: Path) -> None:
    project = tmp_path / "scratch.yaml"
    text = PROJECT.format(root=data, weights="scratch", iterations=4, size=64, model=", norm: trainable")
    project.write_text(text, encoding="utf-8")
    run = tmp_path / "run"
    d2tune.train(project, output_dir=run, num_gpus=0)
    member = read_members([run])[0]
    whole = averaged_weights(member, tmp_path / "whole", iterations=60)
    assert json.loads((tmp_path / "whole" / "record.json").read_text())["weights"]["from_scratch"] is True

    killed = RunFolder(tmp_path / "killed" / "swa")
    words = [sys.executable, "-m", "d2tune.cli", "assemble", str(run), "--swa", "60", "--out", str(killed.path.parent)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    deadline = time.monotonic() + 300
    while not killed.last.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.load_training(killed.last)["trainer"]["iteration"] < 60
    resumed = averaged_weights(member, killed.path, iterations=60)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert np.array_equal(value.numpy(), resumed[name].numpy()), name
    assert any(not np.array_equal(value.numpy(), member.state[name].numpy()) for name, value in whole.items())


@pytest.mark.extended
def test_runs_that_do_not_fit(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the weights are given twice; found those of"):
        api.assemble(run, run)
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    folder = RunFolder(copied)
    folder.update_record({"finished": None})
    with pytest.raises(RunError, match="the run is not finished"):
        api.assemble(copied)
    folder.update_record({"finished": {"iterations": 60}, "classes": ["scene", "kite"]})
    state = checkpoint.load(folder.best)
    state["model"]["sem_seg_head.predictor.bias"] += 1
    checkpoint.save(folder.best, state)
    with pytest.raises(RunError, match="has other classes; found scene, kite; expected scene, balloon, as"):
        api.assemble(run, copied)
    record = folder.read_record()
    folder.update_record({"classes": ["scene", "balloon"], "data": record["data"] | {"val_sha256": "0" * 64}})
    with pytest.raises(RunError, match="the run was validated on other images"):
        api.assemble(run, copied)
    with pytest.raises(RunError, match="the output folder is not empty"):
        api.assemble(run, out=data)
    val = validation_split(read_members([run]))
    with pytest.raises(DataError, match=r"too few validation images .*; found 11; expected 12 or more"):
        halves_of(val.subset([image.id for image in val.images[:11]]), read_members([run])[0].loaded.project)
    halves = halves_of(val, read_members([run])[0].loaded.project)
    assert sorted([*halves.choosing, *halves.proving]) == list(range(14))
