"""Searches with real trainings: a killed one goes on from its checkpoint, two processes share one study."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d2tune import api, cli
from d2tune.errors import D2TuneError
from d2tune.run_folder import RunFolder

QUICK = ["train.image_size=64", "train.validation_loss=false"]
SPACE = "train.learning_rate: {log_uniform: [1e-5, 1e-3]}\ntrain.scale_jitter: {choice: [[0.6, 1.2], [0.8, 1.1]]}\n"


Start = Callable[[list[str], Path], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command that writes into a log; it is ended where a test fails."""
    processes: list[subprocess.Popen[bytes]] = []

    def starting(words: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as stream:
            command = [sys.executable, "-m", "d2tune", *words]
            processes.append(subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=log.parent))
        return processes[-1]

    yield starting
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.extended
def test_a_killed_search_goes_on_and_two_processes_share_it(
    tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], start: Start
) -> None:
    space, out = tmp_path / "space.yaml", tmp_path / "sweep"
    space.write_text(SPACE)
    words = ["sweep", str(tiny_project), *QUICK, "train.iterations=4", "--space", str(space), "--folds", "2"]
    words += ["--trials", "2", "--num-gpus", "0", "--output-dir", str(out)]
    process = start(words, tmp_path / "first.txt")
    first = RunFolder(out / "trial0000_fold0")
    end_s = time.monotonic() + 500
    while not first.last.is_file():
        assert process.poll() is None and time.monotonic() < end_s, (tmp_path / "first.txt").read_text()[-2000:]
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not first.read_record().get("finished")

    both = [start(words, tmp_path / f"{name}.txt") for name in ("second", "third")]
    for one, name in zip(both, ("second", "third"), strict=True):
        assert one.wait(1500) == 0, (tmp_path / f"{name}.txt").read_text()[-2000:]
    record = first.read_record()
    assert record["finished"]["iterations"] == 4 and len(record["resumed"]) == 1
    content = json.loads((out / "sweep.json").read_text())
    assert [trial["state"] for trial in content["trials"]] == ["finished", "finished"]
    for trial in content["trials"]:
        runs = [out / f"trial{trial['number']:04d}_fold{fold}" for fold in range(2)]
        values = [json.loads((run / "evaluation.json").read_text())["metrics"]["segm"]["AP"]["value"] for run in runs]
        assert trial["folds"] == values and trial["value"] == pytest.approx(sum(values) / 2)
        assert RunFolder(runs[0]).read_record()["project"] == "tiny"
    assert len({trial["settings"]["train.learning_rate"] for trial in content["trials"]}) == 2
    assert {path.name for path in (out / "plots").iterdir()} == {"trials.png", "parameters.png"}

    assert cli.main(words) == 0  # nothing is left to do
    printed = capsys.readouterr().out
    assert f"Best: trial {content['best']}" in printed and content["command"] in printed
    assert api.load_project(tiny_project, overrides=content["command"].split()[4:6]).project.train.iterations == 4
    assert cli.main([*words, "name=other"]) == 1
    assert "the study is of another project; found 'other'; expected 'tiny'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.extended
def test_settings_that_do_not_fit_together_fail_their_trial_alone(
    tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value fits the project, but a batch of 3 cannot be computed in 2 parts."""
    space = tmp_path / "space.yaml"
    space.write_text("train.batch_size: {choice: [2, 3]}\ntrain.accumulate: {choice: [1, 2]}\n")
    words = ["sweep", str(tiny_project), *QUICK, "train.iterations=1", "--space", str(space), "--trials", "5"]
    assert cli.main([*words, "--num-gpus", "0", "--output-dir", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out/sweep.json").read_text())
    for trial in content["trials"]:
        fits = trial["settings"]["train.batch_size"] % trial["settings"]["train.accumulate"] == 0
        assert (trial["state"], bool(trial["reason"])) == (("finished", False) if fits else ("failed", True))
    assert {trial["state"] for trial in content["trials"]} == {"finished", "failed"}
    assert "failed: " in capsys.readouterr().out


def test_mistakes_are_one_line(tiny_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    with pytest.raises(D2TuneError, match="--trials: must be 1 or more; found 0"):
        api.sweep(tiny_project, space=space, trials=0)
    with pytest.raises(D2TuneError, match="--folds: must be 2 or more; found 1"):
        api.sweep(tiny_project, space=space, trials=1, folds=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("a person's")
    with pytest.raises(D2TuneError, match="the output folder is not empty and has no study"):
        api.sweep(tiny_project, space=space, trials=1, output_dir=tmp_path / "out")
    words = ["sweep", str(tiny_project), "--space", str(space), "--trials", "2"]
    assert cli.main([*words, "--force"]) == 1
    assert "--force goes with --wandb-sweep" in capsys.readouterr().err
    assert cli.main([*words, "--wandb-sweep", "w.yaml", "--folds", "2"]) == 1
    assert "--folds has no effect with --wandb-sweep" in capsys.readouterr().err
