"""Runs that end before their end, and are resumed: in this process, with a network of a few weights."""

from __future__ import annotations

import json
import math
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.engine import HookBase

import d2tune
from d2tune.engine import validation
from d2tune.engine.divergence import DivergenceError
from d2tune.errors import D2TuneError, RunError
from d2tune.evaluation.semantic import SemanticEvaluator
from d2tune.run_folder import RunFolder
from tests.engine.test_tasks import raster_project, write_raster

pytestmark = pytest.mark.slow

OVERRIDES = ("train.eval_every=2", "SOLVER.EMA_DECAY=0.9")


def train(project: Path, run: Path, *overrides: str, resume: bool = False, hooks: Any = ()) -> Any:
    chosen = [*OVERRIDES, *overrides]
    return d2tune.train(project, output_dir=run, overrides=chosen, resume=resume, hooks=hooks, num_gpus=0)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raster_project(tmp_path_factory.mktemp("rasters"), iterations=6)


@pytest.fixture(scope="module")
def straight(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six iterations with three evaluations."""
    run: Path = train(project, tmp_path_factory.mktemp("straight") / "run").run
    return run


def assert_same(run: Path, other: Path) -> None:
    """The same weights, metrics and log lines."""
    for name in ("model_best.pth", "model_final.pth", "last.pth"):
        a, b = (torch.load(one / "checkpoints" / name, weights_only=True)["model"] for one in (run, other))
        assert all(torch.equal(value, b[key]) for key, value in a.items()), name
    first, second = (json.loads((one / "evaluation.json").read_text("utf-8")) for one in (run, other))
    assert first["metrics"] == second["metrics"] and first["predictions_sha256"] == second["predictions_sha256"]
    rows = [read_lines(one / "metrics.jsonl") for one in (run, other)]
    assert [row["iteration"] for row in rows[1]] == list(range(6)) == [row["iteration"] for row in rows[0]]
    # the timer begins anew with each start
    assert [set(row) - {"time"} for row in rows[0]] == [set(row) - {"time"} for row in rows[1]]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


class Fail(HookBase):
    """Fails in the step after which ``at`` iterations are completed; it comes after the evaluation."""

    def __init__(self, at: int) -> None:
        self._at = at

    def after_step(self) -> None:
        if self.trainer.iter + 1 == self._at:
            raise OSError(28, "No space left on device", "some/file")


def failing(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device", "some/file")


EXTENDED = pytest.mark.extended


@pytest.mark.parametrize(
    "where",
    [
        "best",
        pytest.param("drawing", marks=EXTENDED),
        pytest.param("evaluation", marks=EXTENDED),
        pytest.param("final", marks=EXTENDED),
        pytest.param("scores", marks=EXTENDED),
        pytest.param("behind the evaluation", marks=EXTENDED),
    ],
)
def test_an_error_of_the_end_loses_nothing(
    where: str, project: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at any moment after the last step; --resume does what is missing, and only that."""
    run = tmp_path / "run"
    hooks: list[HookBase] = []
    with monkeypatch.context() as patch:
        if where == "behind the evaluation":
            hooks = [Fail(6)]
        elif where == "evaluation":
            hooks = [Fail(5)]  # an evaluation came at 4; what is lost is one step
        elif where == "final":
            patch.setattr(validation.Validation, "_finish", failing)
        elif where == "best":
            patch.setattr(validation.Validation, "keep", failing)
        elif where == "scores":
            patch.setattr(validation.Validation, "_evaluate_best", failing)
        else:
            patch.setattr(SemanticEvaluator, "draw", failing)
        with pytest.raises(RunError) as caught:
            train(project, run, hooks=hooks)
    line = caught.value.one_line()
    assert "some/file: cannot be written: No space left on device" in line and "--resume goes on from there" in line
    kept = {"best": 2, "evaluation": 4}.get(where, 6)
    assert f"last.pth is the checkpoint of {kept} iterations" in line
    trained: list[int] = []
    counting = d2tune_counting(trained)
    train(project, run, resume=True, hooks=[counting])
    assert trained == list(range(kept, 6)) and RunFolder(run).is_finished(6)
    assert_same(straight, run)
    with pytest.raises(RunError, match="the run is complete with 6 iterations"):
        train(project, run, resume=True)
    with pytest.raises(RunError, match="has 6 iterations, more than it would have now; found 4 iterations"):
        train(project, run, "train.iterations=4", resume=True)


@pytest.mark.extended
def test_a_disk_that_is_full_at_a_save_leaves_the_checkpoint_before(
    project: Path, straight: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for it: the small files of the run can still be written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(HookBase):
        def before_step(self) -> None:
            if self.trainer.iter == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    try:
        with pytest.raises(RunError) as caught:
            train(project, tmp_path / "run", hooks=[Fill()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    last = tmp_path / "run" / "checkpoints" / "last.pth"
    assert caught.value.one_line() == (
        f"{last}: the checkpoint cannot be written: File too large. Make room, or allow larger files. "
        f"{last} is the checkpoint of 4 iterations; the same command with --resume goes on from there."
    )
    assert json.loads((tmp_path / "run" / "record.json").read_text("utf-8"))["ended"]["state"] == "failed"
    train(project, tmp_path / "run", resume=True)
    assert_same(straight, tmp_path / "run")


def d2tune_counting(trained: list[int]) -> HookBase:
    class Counting(HookBase):
        def before_step(self) -> None:
            trained.append(self.trainer.iter)

    return Counting()


def test_a_finished_run_is_trained_longer_and_its_second_end_can_be_interrupted_too(
    project: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "_evaluate_best", failing)
        with pytest.raises(RunError, match="cannot be written"):
            train(project, run, "train.iterations=8", resume=True)
    assert not RunFolder(run).is_finished(8)
    result = train(project, run, "train.iterations=8", resume=True)
    record = json.loads((run / "record.json").read_text("utf-8"))
    assert record["finished"]["iterations"] == 8 and len(record["resumed"]) == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    rates = {row["iteration"]: row["lr"] for row in lines}
    rate = yaml.unsafe_load((run / "detectron2.yaml").read_text("utf-8"))["SOLVER"]["BASE_LR"]
    # a cosine over 8 iterations from the seventh on, not the end of that over 6
    cosine = [rate * (1 + math.cos(math.pi * done / 8)) / 2 for done in (6, 7)]
    assert [rates[done] for done in (6, 7)] == pytest.approx(cosine)
    starts_s = record["durations"]["starts_s"]
    assert len(starts_s) == 3 and result.seconds == pytest.approx(sum(starts_s), abs=0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weights=other.pth", "other.pth; expected scratch"),
        ("train.precision=bfloat16", "train.precision changed since this run began; found bfloat16; expected float32"),
        ("train.schedule=step", "SOLVER.LR_SCHEDULER_NAME changed since this run began; found WarmupMultiStepLR"),
        ("train.warmup=2", "train.warmup changed since this run began; found 2; expected auto"),
        ("SOLVER.WARMUP_ITERS=2", "SOLVER.WARMUP_ITERS changed since this run began; found 2; expected the usual ones"),
        ("train.learning_rate=0.5", "SOLVER.BASE_LR changed since this run began; found 0.5"),
        ("train.accumulate=2", "train.accumulate changed"),
        ("train.sampling.kind=class_balanced", "train.sampling changed"),
        ("train.freeze=[network.head]", "train.freeze changed"),
        ("train.early_stopping.metric=loss", "train.early_stopping.metric changed"),
        ("weights_sha256=" + 64 * "a", "weights_sha256 changed"),
    ],
)
def test_settings_that_cannot_change_are_refused_and_not_written(
    override: str, message: str, project: Path, straight: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(RunError) as caught:
        train(project, run, "train.iterations=8", override, resume=True)
    line = caught.value.one_line()
    assert (
        message in line
        and "Only train.iterations, train.epochs, train.eval_every, train.early_stopping.patience" in line
    )
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_overrides_that_are_missing_when_a_run_is_resumed_are_named(
    project: Path, straight: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    began = ["/bin/d2tune", "train", "p.yaml", "weights=scratch", "train.scale_jitter=[0.5, 1]", "--num-gpus=0"]
    RunFolder(run).update_record({"command": began})
    with pytest.raises(RunError, match=r"The run began with weights=scratch 'train.scale_jitter=\[0.5, 1\]': give the"):
        train(project, run, "train.iterations=8", "weights=other.pth", resume=True)


def test_what_is_ignored_is_not_written(project: Path, straight: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    train(project, run, "train.iterations=7", "train.precision=auto", "train.eval_every=0", resume=True)
    written = yaml.safe_load((run / "project.yaml").read_text("utf-8"))["train"]
    assert (written["precision"], written["eval_every"], written["iterations"]) == ("float32", 0, 7)


@pytest.fixture
def stopped(project: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A project of its own and its run, which was stopped after five of six iterations, the fourth of them the best."""
    folder = Path(shutil.copytree(project.parent, tmp_path / "own"))
    own = folder / "rasters.yaml"
    own.write_text(own.read_text("utf-8").replace(str(project.parent), str(folder)), "utf-8")
    with pytest.raises(RunError, match="cannot be written"):
        train(own, tmp_path / "run", hooks=[Fail(6)])
    return own, tmp_path / "run"


@pytest.mark.parametrize("damage", ["a bit", pytest.param("cut off", marks=EXTENDED)])
def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(
    damage: str, stopped: tuple[Path, Path], straight: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project, run = stopped
    last = run / "checkpoints" / "last.pth"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content if damage == "a bit" else content[:-100])
    train(project, run, resume=True)
    (line,) = [record.message for record in caplog.records if "the checkpoint before it is used" in record.message]
    assert str(last) in line
    assert_same(straight, run)
    assert not (run / "checkpoints" / "before_last.pth").exists()


@pytest.mark.parametrize(
    "change", ["renamed", *(pytest.param(one, marks=EXTENDED) for one in ("predictions", "added", "replaced", "best"))]
)
def test_predictions_of_other_images_are_never_scored(
    change: str, stopped: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The best weights get the score that ``d2tune eval`` gives them on the present images."""
    project, run = stopped
    val = project.parent / "data" / "val"
    if change == "renamed":
        for folder, suffix in (("images", ".npy"), ("labels", ".png")):
            (val / folder / f"scene_3{suffix}").rename(val / folder / f"zzz{suffix}")
        write_raster(val, "aaa", 5, 9)
    elif change == "added":
        write_raster(val, "scene_2", 5, 9)
    elif change == "replaced":
        pixels = np.load(val / "images" / "scene_3.npy")
        np.save(val / "images" / "scene_3.npy", np.ascontiguousarray(pixels[::-1]))
    elif change == "predictions":
        shutil.rmtree(run / "predicted_labels")
    else:
        (run / "checkpoints" / "model_best.pth").unlink()
    result = train(project, run, resume=True)
    evaluated = d2tune.evaluate(run)
    assert evaluated.metrics.metrics == result.metrics.metrics
    record = json.loads((run / "record.json").read_text("utf-8"))
    evaluation = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert record["data"]["val_sha256"] == record["best"]["val_sha256"] == evaluation["data_sha256"]
    assert evaluation["images"] == (2 if change in ("renamed", "added") else 1) == record["data"]["val_images"]
    warned = any("the validation split has changed" in record.getMessage() for record in caplog.records)
    assert warned == (change in ("renamed", "added"))


def test_an_image_that_cannot_be_read_any_more_loses_no_step(project: Path, tmp_path: Path) -> None:
    """Loaded by another process, whose errors come as a line."""
    folder = Path(shutil.copytree(project.parent, tmp_path / "own"))
    own = folder / "rasters.yaml"
    own.write_text(own.read_text("utf-8").replace(str(project.parent), str(folder)), "utf-8")
    for number in range(10, 30):
        write_raster(folder / "data" / "train", f"scene_{number}", 5, number)

    class Damage(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 0:
                for image in (folder / "data" / "train" / "images").iterdir():
                    image.write_bytes(image.read_bytes()[:100])

    with pytest.raises(D2TuneError) as caught:
        train(own, tmp_path / "run", "train.iterations=40", "train.eval_every=0", "train.workers=1", hooks=[Damage()])
    line = caught.value.one_line()
    assert "data/train/images/scene_" in line and "--resume goes on from there" in line and len(line) < 500
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True)["trainer"]["iteration"]
    assert 1 <= saved < 40 and f"the checkpoint of {saved} iterations" in line


def test_a_run_that_diverges_ends_with_a_line_and_keeps_its_last_good_checkpoint(project: Path, tmp_path: Path) -> None:
    def diverge(trainer: Any) -> list[HookBase]:
        class Diverge(HookBase):
            def before_step(self) -> None:
                if self.trainer.iter == 4:
                    for weight in self.trainer.model.parameters():
                        weight.data.mul_(1e20)

        return [Diverge()]

    with pytest.raises(DivergenceError) as caught:
        train(project, tmp_path / "run", hooks=diverge)
    line = caught.value.one_line()
    assert "iteration 4" in line and "Lower train.learning_rate" in line
    assert "last.pth is the checkpoint of 4 iterations." in line and "--resume" not in line
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True)
    assert content["trainer"]["iteration"] == 4
    assert all(torch.isfinite(value).all() for value in content["model"].values())


def test_temporary_files_of_a_killed_save_are_removed(project: Path, straight: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    own = [
        run / "checkpoints" / ".last.pth.abcd_123.tmp",
        run / "checkpoints" / ".model_best.pth.abcdefgh.tmp",
        run / ".record.json.abcdefgh.tmp",
        run / "predicted_labels" / "images" / ".scene_3.png.abcdefgh.tmp",
    ]
    others = [run / name for name in ("checkpoints/.notes.tmp", ".mine.pth.abcdefgh.tmp", "evaluation/.x.abcdefgh.tmp")]
    for path in (*own, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    with pytest.raises(RunError, match="the run is complete"):
        train(project, run, resume=True)
    assert not any(path.exists() for path in own) and all(path.exists() for path in others)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "checkpoints" / "last.pth").write_bytes(b""), "last.pth: the checkpoint cannot be read"),
        (
            lambda run: shutil.copy(run / "checkpoints" / "model_best.pth", run / "checkpoints" / "last.pth"),
            "last.pth: the checkpoint has no state to resume from",
        ),
        (lambda run: (run / "record.json").write_text("{}"), "record.json: project: the entry is missing"),
        (
            lambda run: (run / "detectron2.yaml").write_text("MODEL: 3"),
            "detectron2.yaml: the run's config cannot be read",
        ),
        (lambda run: (run / "project.yaml").write_text("task: 3"), "project.yaml"),
    ],
)
def test_damaged_files_are_refused_in_a_line(
    change: Callable[[Path], object], message: str, project: Path, straight: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    change(run)
    with pytest.raises(D2TuneError) as caught:
        train(project, run, "train.iterations=8", resume=True)
    assert message in caught.value.one_line() and len(caught.value.one_line()) < 500
