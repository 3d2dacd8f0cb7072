"""Trainings in several processes that are started by torchrun, by the Slurm script, or each by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from d2tune.engine import ranks
from d2tune.engine.ranks import Machines, Member, joined
from d2tune.errors import ProjectError, RunError
from tests.shared_files import SHARED

MOBILENET = SHARED / "weights" / "mobilenet_v2_imagenet.pth"  # with norms that are frozen in training

ROOT = Path(__file__).parents[2]

PROJECT = """\
name: many
data: {{root: {root}, sample: null}}
classes: [balloon]
model: {{preset: pointrend_mobilenet_v2_fpn}}
weights: {weights}
train: {{iterations: {iterations}, batch_size: 2, image_size: 64, eval_every: {every}, precision: float32}}
detectron2: {{MODEL.DEVICE: cpu, SOLVER.WARMUP_ITERS: 1, TEST.DETECTIONS_PER_IMAGE: 5{more}}}
"""

STILL = ", SOLVER.BASE_LR: 1.0e-38, SOLVER.WEIGHT_DECAY: 0.0, SOLVER.EMA_DECAY: 0.0"
"""Settings with which the weights stay as they are, so that evaluations have the same bits."""


def write_project(
    folder: Path, root: Path, *, iterations: int = 2, every: int = 0, more: str = "", weights: object = "scratch"
) -> Path:
    path = folder / "many.yaml"
    path.write_text(
        PROJECT.format(root=root, iterations=iterations, every=every, more=more, weights=weights), encoding="utf-8"
    )
    return path


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def start(project: Path, rank: int, url: str, *words: str) -> subprocess.Popen[str]:
    """The process of one of two machines, both of which are this one."""
    command = [sys.executable, "-m", "d2tune.cli", "train", str(project), *words]
    command += ["--num-gpus", "0", "--num-machines", "2", "--machine-rank", str(rank), "--dist-url", url]
    where = {"cwd": project.parent, "env": environment(), "text": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **where)  # type: ignore[call-overload,no-any-return]


def own_errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error:")]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_the_slurm_script_trains_on_two_processes_what_one_process_trains(balloon_sample: Path, tmp_path: Path) -> None:
    project = write_project(tmp_path, balloon_sample, more=STILL, weights=MOBILENET)
    script = ROOT / "deploy" / "slurm" / "train.sbatch"
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (tools / "scontrol").write_text("#!/bin/bash\necho 127.0.0.1\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_JOB_ID": str(free_port()), "PROCESSES": "2"}
    env = environment() | slurm
    env["PATH"] = f"{tools}:{env['PATH']}"
    command = ["bash", str(script), str(project), "runs/two"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("output       runs/two") == 1, "one process prints"
    assert "(measured, without messages between processes)" in done.stdout and "\nmemory  " in done.stdout
    record = json.loads((tmp_path / "runs" / "two" / "record.json").read_text())
    assert record["launch"] == {"processes": 2, "id": slurm["SLURM_JOB_ID"]}
    alone = tmp_path / "runs" / "one"
    train = [sys.executable, "-m", "d2tune.cli", "train", str(project), "--output-dir", str(alone)]
    subprocess.run(train, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=900)
    for one, two in zip(rows(alone), rows(tmp_path / "runs" / "two"), strict=True):
        evaluated = {name: value for name, value in one.items() if name.startswith("val/")}
        assert {name: two[name] for name in evaluated} == evaluated, "bit for bit"
        losses = [name for name in one if name.startswith(("loss_", "total_loss"))]
        assert len(losses) == 7
        assert [two[name] for name in losses] == pytest.approx([one[name] for name in losses], abs=1e-5)
    assert any(name.startswith("val/loss_") for name in evaluated) and "val/segm/AP" in evaluated
    predictions = [(tmp_path / "runs" / name / "predictions.json").read_bytes() for name in ("one", "two")]
    assert predictions[0] == predictions[1]


@pytest.mark.slow
def test_machines_that_have_other_data_are_named_in_one_line(balloon_sample: Path, tmp_path: Path) -> None:
    def other_data(folder: Path) -> list[str]:
        annotation = next((folder / "data" / "train").glob("*.json"))
        content = json.loads(annotation.read_text())
        content["shapes"][0]["points"][0][0] += 2
        annotation.write_text(json.dumps(content))
        return []

    line = disagreement(balloon_sample, tmp_path, other_data)
    assert "the processes do not agree on the content of the training data; found" in line
    assert f"in process 1 on machine {socket.gethostname()}; expected" in line


@pytest.mark.extended
def test_machines_that_have_another_setting_are_named_with_it(balloon_sample: Path, tmp_path: Path) -> None:
    line = disagreement(balloon_sample, tmp_path, lambda _: ["train.learning_rate=0.003"])
    assert "the processes do not agree on the setting SOLVER.BASE_LR; found 0.003 in process 1" in line


def disagreement(sample: Path, folder: Path, change: Callable[[Path], list[str]]) -> str:
    """The line with which two machines end whose second one has a change, in its folder or behind its command."""
    processes, url = [], f"tcp://127.0.0.1:{free_port()}"
    for rank in (0, 1):
        machine = folder / f"machine{rank}"
        shutil.copytree(sample, machine / "data")
        words = change(machine) if rank else []
        processes.append(start(write_project(machine, machine / "data"), rank, url, "--output-dir", "run", *words))
    results = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    (line,) = own_errors(results[0][1])
    assert own_errors(results[1][1]) == [] and "Traceback" not in results[0][1] + results[1][1]
    assert not (folder / "machine0" / "run").exists()
    return line


def wait_for(file: Path, *, seconds: float = 300) -> None:
    end_s = time.monotonic() + seconds
    while not file.is_file():
        assert time.monotonic() < end_s, file
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [pytest.param(0, marks=pytest.mark.extended), 1])
def test_a_machine_that_dies_ends_the_other_one_with_its_name(dead: int, balloon_sample: Path, tmp_path: Path) -> None:
    project, url = write_project(tmp_path, balloon_sample, iterations=400, every=4), f"tcp://127.0.0.1:{free_port()}"
    processes = [start(project, rank, url, "--output-dir", "run") for rank in (0, 1)]
    wait_for(tmp_path / "run" / "checkpoints" / "last.pth")
    processes[dead].kill()
    began_s = time.monotonic()
    _, errors = processes[1 - dead].communicate(timeout=60)
    assert time.monotonic() - began_s < 30
    (line,) = own_errors(errors)
    place = f"process {dead} (machine {socket.gethostname()}, PID {processes[dead].pid}) of 2 has ended"
    assert place in line and "--resume goes on from there" in line
    assert processes[1 - dead].returncode == 1
    processes[dead].communicate()


@pytest.mark.extended
def test_processes_that_lack_the_memory_say_so_in_one_line(balloon_sample: Path, tmp_path: Path) -> None:
    project, url = write_project(tmp_path, balloon_sample), f"tcp://127.0.0.1:{free_port()}"
    words = ["--output-dir", "run", "train.image_size=2500", "train.batch_size=16"]
    processes = [start(project, rank, url, *words) for rank in (0, 1)]
    for process in processes:
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    (line,) = own_errors("".join(errors))
    assert "the memory does not suffice for a training step on 8 images" in line
    assert "Set train.accumulate=2 or more" in line, "train.batch_size=auto is for one process"


@pytest.mark.extended
def test_torchrun_restarts_processes_that_go_on_with_the_same_run(balloon_sample: Path, tmp_path: Path) -> None:
    project = write_project(tmp_path, balloon_sample, iterations=8, every=2)
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "--max-restarts", "1", "-m", "d2tune.cli", "train", str(project), "--output-dir"]
    whole = subprocess.run([*command, "whole"], cwd=tmp_path, env=environment(), capture_output=True, timeout=900)
    assert whole.returncode == 0
    killed = subprocess.Popen([*command, "killed"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "killed" / "checkpoints" / "last.pth")
    workers = [one for one in psutil.Process(killed.pid).children() if one.environ().get("RANK") == "1"]
    workers[0].send_signal(signal.SIGKILL)
    _, errors = killed.communicate(timeout=900)
    assert killed.returncode == 0, errors
    (line,) = own_errors(errors)
    assert f"process 1 (machine {socket.gethostname()}, PID {workers[0].pid}) of 2 has ended" in line
    folders = [tmp_path / name for name in ("whole", "killed")]
    states = [torch.load(one / "checkpoints" / "model_final.pth", weights_only=True)["model"] for one in folders]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [row["iteration"] for row in rows(folders[1])] == list(range(8))
    assert len(json.loads((folders[1] / "record.json").read_text())["resumed"]) == 1


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        (Machines(count=0, rank=0, url=""), "--num-machines: must be 1 or more; found 0"),
        (Machines(count=2, rank=2, url="tcp://a:1"), "--machine-rank: is not a machine; found 2; expected 0 to 1"),
        (Machines(count=2, rank=0, url=""), "--dist-url: is not an address at which machines can meet; found none"),
        (Machines(count=2, rank=0, url="tcp://host"), "found tcp://host; expected tcp://HOST:PORT"),
    ],
)
def test_machines_that_contradict_themselves(machines: Machines, message: str) -> None:
    with pytest.raises(ProjectError) as raised:
        machines.check()
    assert message in raised.value.one_line()


def test_the_numbers_of_processes() -> None:
    machines = Machines(count=3, rank=2, url="tcp://a:1")
    assert Member.of_machine(machines, processes=4, local_rank=1) == Member(9, 1, 12, "tcp://a:1")
    given = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "TORCHELASTIC_RESTART_COUNT": "2"}
    assert Member.of_environment(given) == Member(3, 1, 4, "env://", "", 2)
    assert Member.of_environment({"RANK": "0"}) is None


@pytest.mark.parametrize(
    ("rank", "reason"), [(0, "processes 1, 2 did not come within 1 s"), (2, "process 0 did not come within 1 s (")]
)
def test_processes_that_do_not_come_are_named(rank: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_MEETING", timedelta(seconds=1))
    member = Member(rank, 0, 3, f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(RunError) as raised, joined(member, device="cpu"):
        pass
    assert f"process {rank} of 3 does not reach the others: {reason}" in raised.value.one_line()


WAIT = """
import sys
from d2tune.engine.ranks import Member, joined
print("ready", flush=True)
with joined(Member(int(sys.argv[1]), 0, 2, sys.argv[2]), device="cpu"):
    pass
"""


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_signal_ends_the_wait_for_the_others(rank: int, number: int) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", WAIT, str(rank), url]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -number
    assert "KeyboardInterrupt" in errors if number == signal.SIGINT else not errors
