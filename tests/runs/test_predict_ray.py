"""Workers predict on groups of images in any order, and the result is that of one process; also on a Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image as PilImage

import d2tune
from d2tune.errors import DataError, MachineError, ProjectError, RunError
from d2tune.inference.loop import LOOKAHEAD
from d2tune.inference.writers.base import Writer, WriterOptions
from d2tune.modeling.loaded import LoadedModel
from d2tune.runs.load import describe, load_model
from d2tune.runs.prediction.images import source_images
from d2tune.runs.prediction.job import Entries, Prediction
from d2tune.runs.prediction.ray_workers import MOST_ATTEMPTS, PredictionWorker, groups_of, sent
from d2tune.tasks import TASKS
from tests.runs.random_runs import random_run
from tests.runs.test_predict_files import content


def photos(folder: Path, count: int) -> Path:
    """Images of four sizes, and among many of them a torn one."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        pixels = draw.integers(0, 256, (60 + 20 * (number % 4), 90, 3), dtype=np.uint8)
        PilImage.fromarray(pixels).save(folder / f"{number:03d}.png")
    if count > 3:
        (folder / "003b.png").write_bytes((folder / "003.png").read_bytes()[:60])
    return folder


@pytest.mark.parametrize("workers", [1, 3, 100])
def test_groups_are_whole_batches_of_one_stretch(workers: int) -> None:
    batches = [[index, index + 1] for index in range(0, 3 * LOOKAHEAD, 2)]
    left = set(range(3 * LOOKAHEAD)) - {5, 8, 9}
    groups = groups_of(batches, left, workers=workers)
    assert sorted(index for group in groups for index in group) == sorted(left)
    assert all(len({index // LOOKAHEAD for index in group}) == 1 for group in groups)
    assert all(
        sum(index in group for index in batch) in (0, len(set(batch) & left)) for batch in batches for group in groups
    )
    assert len(groups) >= min(4 * workers, len(batches) - 1) and (workers == 1) == (max(map(len, groups)) > 20)


@dataclass
class HereBackwards:
    """Workers in this process, which predict on the last images first."""

    calls: int = 0

    def entries(self, prediction: Prediction, writer: Writer[Any, Any], left: Sequence[int]) -> Entries:
        with PredictionWorker(sent(prediction), torch.get_num_threads()) as worker:
            for group in groups_of(writer.batches(), set(left), workers=2)[::-1]:
                self.calls += 1
                for index, kind, value in worker.predict(group):
                    yield index, DataError(value) if kind == "error" else value


def prediction(run: Path, source: Path, out: Path, to: str, **more: Any) -> Prediction:
    images, _ = source_images([source], describe(run), skip=out)
    loaded: LoadedModel = load_model(run).with_min_score(0.1)
    return Prediction(loaded, TASKS[loaded.project.task], images, out, to, WriterOptions(), **more)


@pytest.mark.parametrize(
    ("task", "to"),
    [("instance", "coco,labelme,measurements,cutouts"), ("semantic", "label_maps")],
)
def test_results_in_any_order_are_those_of_one_process(tmp_path: Path, task: str, to: str) -> None:
    run, source = random_run(tmp_path / "run", task), photos(tmp_path / "in", 11)
    one = prediction(run, source, tmp_path / "one", to).run()
    workers = HereBackwards()
    many = prediction(run, source, tmp_path / "many", to, workers=workers).run()
    assert workers.calls > 3 and content(tmp_path / "many") == content(tmp_path / "one")
    assert (many.images, many.instances, many.skipped) == (11, one.instances, one.skipped)
    assert len(many.skipped) == 1 and "003b.png" in many.skipped[0]


def test_images_on_which_workers_die_again_and_again(tmp_path: Path) -> None:
    run, source = random_run(tmp_path / "run", "instance"), photos(tmp_path / "in", 2)
    given = prediction(run, source, tmp_path / "out", "coco")
    attempts = tmp_path / "out" / ".d2tune-ray-attempts" / "1"
    attempts.parent.mkdir(parents=True)
    attempts.write_bytes(b"." * (MOST_ATTEMPTS - 1))
    with PredictionWorker(sent(given), torch.get_num_threads()) as worker:
        assert [row[:2] for row in worker.predict([1])] == [(1, "entry")] and not attempts.exists()
        attempts.write_bytes(b"." * MOST_ATTEMPTS)
        with pytest.raises(RunError, match=r"001\.png: 3 workers died on this image or those with it"):
            worker.predict([1])


def test_a_worker_whose_weights_differ(tmp_path: Path) -> None:
    run, source = random_run(tmp_path / "run", "semantic"), photos(tmp_path / "in", 1)
    given = sent(prediction(run, source, tmp_path / "out", "auto"))
    weights = run / "checkpoints" / "model_best.pth"
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"other": 1}, weights)
    with pytest.raises(RunError, match="the weights differ from those on the first machine"):
        PredictionWorker(given, 1)


def test_the_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, source = random_run(tmp_path / "run", "semantic"), photos(tmp_path / "in", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MachineError, match=r'the library Ray is not installed. Install it: pip install "d2tune\[ray\]"'
    ):
        d2tune.predict(run, source, out=tmp_path / "out", ray="local")
    with pytest.raises(ProjectError, match=r"--ray divides the images itself. Remove --shard"):
        d2tune.predict(run, source, out=tmp_path / "out", ray="local", shard="1/2")
    assert not (tmp_path / "out").exists()


CODE = "import sys; from d2tune.cli import main; sys.exit(main())"


def started(*words: object) -> subprocess.Popen[str]:
    """A command in one thread, so that a cluster of two cores has two workers."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(folder: Path) -> list[psutil.Process]:
    """The processes of Ray that have files of a folder in their working set of arguments or cluster."""
    return [one for one in psutil.process_iter(["name", "cmdline", "environ"]) if is_worker(one, folder)]


def is_worker(process: psutil.Process, folder: Path) -> bool:
    environment, words = process.info["environ"] or {}, process.info["cmdline"] or []
    return environment.get("D2TUNE_CACHE") == str(folder) and any("MapWorker" in word for word in words)


@pytest.mark.extended
def test_a_local_cluster_of_two_workers_of_which_one_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, source = random_run(tmp_path / "run", "instance"), photos(tmp_path / "in", 90)
    monkeypatch.setenv("D2TUNE_CACHE", str(tmp_path / "cache"))  # by which the workers are recognized
    words = ["predict", run, source, "--min-score", "0.1", "--to", "coco,measurements"]
    one = started(*words, "--out", tmp_path / "one")
    assert one.communicate(timeout=120) and one.returncode == 0
    process = started(*words, "--out", tmp_path / "ray", "--ray", "local")
    journal = tmp_path / "ray" / ".d2tune-predict.jsonl"
    seen: set[int] = set()
    killed = 0
    while process.poll() is None:
        workers = workers_of(tmp_path / "cache")
        seen |= {worker.pid for worker in workers}
        if not killed and len(workers) == 2 and journal.exists():
            workers[0].send_signal(signal.SIGKILL)
            killed = workers[0].pid
        time.sleep(0.1)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert killed and len(seen) >= 2
    assert "720 instances on 90 images" in out and "1 image skipped" in out
    assert [line for line in err.splitlines() if "skipped: " not in line and "images/s" not in line] == []
    assert content(tmp_path / "ray") == content(tmp_path / "one")


@pytest.mark.extended
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto"])
def test_a_cluster_that_is_not_there(tmp_path: Path, address: str) -> None:
    run, source = random_run(tmp_path / "run", "semantic"), photos(tmp_path / "in", 1)
    process = started("predict", run, source, "--out", tmp_path / "out", "--ray", address)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("error: --ray: the Ray cluster cannot be reached (") and f"found {address}" in line
