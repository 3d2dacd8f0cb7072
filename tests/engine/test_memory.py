"""What is run before training to find out whether it fits, the messages where it does not, and the batch that fits."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from PIL import Image as PilImage

import d2tune
from d2tune.annotations.io.photos.reading import reading_photo
from d2tune.data.batches import TrainingBatches
from d2tune.engine import batch_size, preflight
from d2tune.engine.assembly import training_batches, training_split
from d2tune.engine.batch_size import fitting_batch
from d2tune.engine.memory import Peak, is_out_of_memory, refusing_more
from d2tune.engine.plan import TrainingPlan, make_plan
from d2tune.engine.process import seeded_model
from d2tune.errors import DataError, MachineError, ProjectError, RunError
from d2tune.hardware import memory_bytes, memory_left_bytes
from d2tune.inference.results import Detections, PanopticMap
from d2tune.project import load_project
from d2tune.runs.overview import summarize
from d2tune.tasks import task_of
from tests.cases import on_demand
from tests.engine.test_tasks import raster_project, street_project

MIB = 2**20


def planned(project: Path, **words: Any) -> TrainingPlan:
    overrides = {name.replace("__", "."): value for name, value in words.items()}
    return make_plan(load_project(project, overrides=overrides), num_gpus=0, sample=False)[0]


def test_the_largest_images_and_the_fullest_one_make_the_largest_batch() -> None:
    sizes = [(100, 150), (100, 200), (100, 120), (220, 100), (100, 130)]
    is_portrait = [height > width for height, width in sizes]

    def largest(size: int, *, portraits: bool = True) -> list[int]:
        chosen = [size_hw for size_hw in sizes if portraits or size_hw[0] <= size_hw[1]]
        flags = [flag for flag in is_portrait if portraits or not flag]
        batches = TrainingBatches(flags, batch_size=size, short_side_range_px=(60, 100), seed=0)
        keys = batches.largest(chosen, [1, 2, 9, 3, 4][: len(chosen)])
        assert {key.short_side_px for key in keys} == {100}
        return [key.index for key in keys]

    assert largest(3) == [3, 1, 2]  # the rest of an epoch mixes the tallest with the widest; the third is the fullest
    assert largest(1) == [3]
    assert largest(2, portraits=False) == [1, 2]
    # four landscape images make whole batches: they never meet the portrait ones
    sizes, is_portrait = [(100, 150), (100, 200), (220, 100), (210, 100)], [False, False, True, True]
    assert largest(2) == [2, 3]
    assert len(largest(6)) == 6


def test_the_memory_of_a_container_and_of_a_process_is_what_is_left_of_its_limits(tmp_path: Path) -> None:
    total, available = memory_bytes(tmp_path)
    for name, value in (("max", 700 * MIB), ("current", 300 * MIB)):
        (tmp_path / f"memory.{name}").write_text(f"{value}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {100 * MIB}\n")
    assert memory_bytes(tmp_path) == (min(total, 700 * MIB), min(available, 500 * MIB))
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path)[0] == total
    old = tmp_path / "old"
    (old / "memory").mkdir(parents=True)
    (old / "memory" / "memory.limit_in_bytes").write_text(f"{600 * MIB}\n")
    (old / "memory" / "memory.usage_in_bytes").write_text(f"{500 * MIB}\n")
    (old / "memory" / "memory.stat").write_text("total_inactive_file 0\n")
    assert memory_bytes(old) == (600 * MIB, 100 * MIB)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 200 * MIB, limits[1]))
    try:
        assert 100 * MIB < memory_left_bytes() <= 200 * MIB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_memory_that_the_machine_does_not_have_is_refused_as_an_error() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(RuntimeError) as caught, refusing_more("cpu", but_for=memory_left_bytes() - 100 * MIB):
        torch.empty(400 * MIB, dtype=torch.uint8)
    assert is_out_of_memory(caught.value) and resource.getrlimit(resource.RLIMIT_DATA) == before
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(cv2.error("Failed to allocate 9 bytes in function 'OutOfMemoryError'; Insufficient memory"))
    with pytest.raises(DataError) as unread, reading_photo(Path("a.jpg")):
        raise MemoryError  # readers of images turn it into an error of the image
    assert is_out_of_memory(unread.value)
    assert not is_out_of_memory(RuntimeError("size mismatch")) and not is_out_of_memory(KeyboardInterrupt())


def test_a_peak_is_that_since_it_was_asked_for() -> None:
    block = np.ones(100 * MIB, np.uint8)
    del block
    peak = Peak("cpu")
    now = psutil.Process().memory_info().rss
    assert peak.bytes < now + 30 * MIB
    block = np.ones(60 * MIB, np.uint8)
    assert peak.bytes > now + 50 * MIB
    del block


@pytest.mark.parametrize("task", on_demand(["instance", "panoptic"], "instance"))
def test_an_evaluation_is_tried_with_many_objects_that_fill_the_image(
    task: str, tiny_project: Path, tmp_path: Path
) -> None:
    plan = planned(tiny_project if task == "instance" else street_project(tmp_path)[0])
    model, _ = seeded_model(plan, None, device="cpu")
    val = plan.splits.val
    predictor = task_of(plan.project).predictor(model, plan.cfg, plan.project, val.categories)
    image = val.images[0]
    sample = predictor.prepare(image)
    (raw,) = predictor.run_full([sample], 100)
    result = predictor.finish(raw, sample)
    if isinstance(result, Detections):
        assert len(result.scores) == 100 and result.rles is not None and len(result.rles) == 100
        assert (result.boxes_xyxy == [0, 0, image.width_px, image.height_px]).all()
    else:
        assert isinstance(result, PanopticMap) and result.segment_ids.shape == (image.height_px, image.width_px)
    (own,) = predictor.run([sample])
    assert len(own) < 100 if hasattr(own, "__len__") else len(own.scores) < 100


def stages(plan: TrainingPlan, model: Any, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> list[str]:
    """The stages of the preflight in order; one of them gets too little memory."""
    done: list[str] = []
    monkeypatch.setattr(preflight, "free_bytes", lambda device: 3 * 10**9)

    def doing(what: str) -> None:
        done.append(what.removeprefix("checking that there is memory for "))

    @contextmanager
    def refusing(device: str, *, but_for: int = 0) -> Iterator[None]:
        yield
        if fails and done[-1].startswith(fails):
            raise MemoryError

    monkeypatch.setattr(preflight, "refusing_more", refusing)
    samples, batches = training_split(plan), training_batches(plan, start=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    cost = preflight.preflight(plan, model, samples, batches, doing=doing)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert cost.evaluation_bytes is not None and cost.evaluation_bytes > 50 * MIB
    assert cost.evaluation_s is not None and 0 < cost.step_s < 60
    return done


def with_large_image(plan: TrainingPlan, folder: Path, width_px: int, height_px: int) -> TrainingPlan:
    """The plan with a validation image of another size, which has one object."""
    val = plan.splits.val
    path = folder / "large.png"
    PilImage.new("RGB", (width_px, height_px)).save(path)
    large = replace(val.images[2], path=path, file_name="large.png", width_px=width_px, height_px=height_px)
    images = (*val.images[:2], large, *val.images[3:])
    return replace(plan, splits=replace(plan.splits, val=replace(val, images=images)))


def test_the_stages_of_a_step_and_an_evaluation_are_tried_and_one_that_does_not_fit_is_named(
    tiny_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, Any] = {"train__batch_size": 4, "train__accumulate": 2}
    plan = with_large_image(planned(tiny_project, **words), tmp_path, 1200, 900)
    model, _ = seeded_model(plan, None, device="cpu")
    assert stages(plan, model, monkeypatch) == [
        "a training step on 2 images of up to 173 x 115 px",
        "reading large.png, 1200 x 900 px",
        "the network in an evaluation, on 1 image of 128 x 96 px with 5 objects each",
        "pasting the masks of 5 objects on large.png, 1200 x 900 px",
        "scoring 5 objects on large.png, 1200 x 900 px",
    ]

    hints = {
        "a training step on 2 images": "Set train.batch_size=auto, or train.accumulate=2 or more",
        "reading large.png, 1200 x 900 px": "Reduce the size of the image file",
        "the network in an evaluation, on 1 image of 128 x 96 px": "Set a smaller train.image_size; or",
        "pasting the masks of 5 objects on large.png, 1200 x 900 px": "The validation images are too large",
    }
    for stage, hint in hints.items():
        with monkeypatch.context() as patch, pytest.raises(MachineError) as caught:
            stages(plan, model, patch, fails=stage)
        line = caught.value.one_line()
        assert line.startswith(f"the memory does not suffice for {stage}")
        assert "; found 2.9 GB free. " in line  # without what the optimizer will have
        assert hint in line


def chosen(plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch, *, free: int, per_image: int) -> Any:
    """The batch that is chosen where a step takes so many bytes for each image."""
    used = psutil.Process().memory_info().rss
    monkeypatch.setattr(batch_size, "used_bytes", lambda device: used)
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: free)
    monkeypatch.setattr(batch_size, "held_bytes", lambda *_: (0, 100 * MIB))
    tried: list[int] = []

    def steps(model: Any, batches: Any, *_: Any) -> tuple[list[float], int]:
        tried.append(len(batches[0]))
        return [0.1], used + per_image * len(batches[0])

    monkeypatch.setattr(batch_size, "try_steps", steps)
    return fitting_batch(plan, None), tried


@pytest.mark.parametrize(
    ("free_mib", "expected", "tried", "reason"),
    [
        (10_000, 4, [1, 2, 4], "more than 4 images would gain nothing"),
        (625, 4, [1, 2, 4], "more than 4 images would gain nothing"),  # four fifths of it, without 100: just 400
        (624, 2, [1, 2], "a step of 4 images would take more than"),
        (370, 1, [1, 2], "a step of 2 images would take more than"),
    ],
)
def test_the_largest_batch_that_fits_is_chosen(
    free_mib: int, expected: int, tried: list[int], reason: str, tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tiny_project, train__batch_size="auto")
    batch, sizes = chosen(plan, monkeypatch, free=free_mib * MIB, per_image=100 * MIB)
    assert batch.size == expected and sizes == tried and batch.reason.startswith(reason)
    assert batch.step_bytes == {size: 100 * MIB * size for size in (1, 2, 4) if size <= expected}


def test_a_batch_in_parts_is_counted_as_one(tiny_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tiny_project, train__batch_size="auto", train__accumulate=6)
    batch, sizes = chosen(plan, monkeypatch, free=10_000 * MIB, per_image=100 * MIB)
    assert (batch.size, sizes) == (12, [1, 2]) and batch.reason == "there are 16 images to train on"


def test_not_even_one_image_fits(tiny_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tiny_project, train__batch_size="auto")
    with pytest.raises(MachineError) as caught:
        chosen(plan, monkeypatch, free=200 * MIB, per_image=100 * MIB)
    assert caught.value.one_line() == (
        "the memory does not suffice for a training step on 1 image of up to 173 x 115 px; found 210 MB free. "
        "Set a smaller train.image_size, or a smaller model.preset."
    )


@pytest.mark.extended
def test_the_batch_that_was_chosen_is_in_the_record_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are really run; a resumed run does not ask how much memory there is now."""
    project, run = raster_project(tmp_path, iterations=2), tmp_path / "run"
    words = ["train.batch_size=auto", "train.eval_every=0"]
    d2tune.train(project, output_dir=run, overrides=words, num_gpus=0)
    record = json.loads((run / "record.json").read_text("utf-8"))
    batch = record["batch"]
    assert (batch["images"], batch["chosen"], batch["reason"]) == (2, True, "there are 3 images to train on")
    assert list(batch["step_bytes"]) == ["1", "2"] and batch["free_bytes"] > 100 * MIB
    assert load_project(run / "project.yaml").project.train.batch_size == 2
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: 1)
    d2tune.train(project, output_dir=run, overrides=[*words, "train.iterations=3"], resume=True, num_gpus=0)
    assert json.loads((run / "record.json").read_text("utf-8"))["batch"] == batch
    with pytest.raises(MachineError, match="does not suffice for a training step on 1 square of 32 px"):
        d2tune.train(project, output_dir=tmp_path / "other", overrides=words, num_gpus=0)
    assert not (tmp_path / "other").exists()
    with pytest.raises(RunError, match=r"SOLVER\.IMS_PER_BATCH changed"):
        given = ["train.batch_size=3", "train.iterations=4"]
        d2tune.train(project, output_dir=run, overrides=given, resume=True, num_gpus=0)


def test_several_processes_need_a_number(tiny_project: Path) -> None:
    loaded = load_project(tiny_project, overrides={"train.batch_size": "auto"})
    with pytest.raises(ProjectError, match="for one process; found auto; expected with 2 processes a multiple of 2"):
        make_plan(loaded, num_gpus=2, sample=False)


@pytest.mark.extended
def test_an_evaluation_that_does_not_fit_ends_a_training_before_it_begins(tmp_path: Path) -> None:
    """A process of its own that may take 900 MiB more, and a validation image of 12000 x 8000 px."""
    for folder, name, width_px, height_px in (
        *(("train", f"t{number}", 240 + number, 160) for number in range(4)),
        ("val", "small", 230, 160),
        ("val", "large", 12000, 8000),
    ):
        write_box(tmp_path / folder, name, width_px, height_px)
    project = tmp_path / "large.yaml"
    project.write_text(
        f"task: instance\ndata: {{root: {tmp_path}}}\nclasses: [box]\nmodel: {{preset: pointrend_mobilenet_v2_fpn}}\n"
        "weights: scratch\ntrain: {iterations: 2, batch_size: 2, image_size: 96, precision: float32}\n"
    )
    code = (
        "import resource, sys, psutil, torch, detectron2.engine; from d2tune.cli import command; "
        "used = psutil.Process().memory_info().vms; "
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {900 * MIB}, -1)); sys.exit(command(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, "train", str(project), "--output-dir", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the memory does not suffice for ") and "large.jpg, 12000 x 8000 px; found " in line
    assert summarize(tmp_path / "run").state == "failed"


def write_box(folder: Path, name: str, width_px: int, height_px: int) -> None:
    """An image with a red rectangle, and its outline as a file of Labelme."""
    folder.mkdir(exist_ok=True)
    pixels = np.full((height_px, width_px, 3), 90, np.uint8)
    top, left = height_px // 4, width_px // 4
    pixels[top : 2 * top, left : 2 * left] = (200, 40, 40)
    PilImage.fromarray(pixels).save(folder / f"{name}.jpg", quality=80)
    corners = [[left, top], [2 * left, top], [2 * left, 2 * top], [left, 2 * top]]
    shape = {"label": "box", "points": corners, "group_id": None, "shape_type": "polygon", "flags": {}}
    document = {"version": "6.3.0", "flags": {}, "shapes": [shape], "imagePath": f"{name}.jpg", "imageData": None}
    size = {"imageHeight": height_px, "imageWidth": width_px}
    (folder / f"{name}.json").write_text(json.dumps(document | size))
