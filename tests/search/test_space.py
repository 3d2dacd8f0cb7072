"""The space of a search: its file, the checks of its values, and the sweep file of W&B."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from d2tune import cli
from d2tune.api import load_project
from d2tune.errors import ProjectError
from d2tune.project import LoadedProject
from d2tune.search.space import Space, read_space

Load = Callable[[Sequence[str]], LoadedProject]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "p.yaml"
    path.write_text(f"data: {{root: {tmp_path}}}\nclasses: [a]\n")
    return lambda words: load_project(path, overrides=words, num_gpus=0)


def space(tmp_path: Path, load: Load, text: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return read_space(path, load)


GOOD = """\
train.learning_rate: {log_uniform: [1e-5, 1e-3]}
train.image_size: {integer: [64, 100], step: 32}
train.copy_paste: {uniform: [0, 0.5]}
train.scale_jitter: {choice: [[0.6, 1.2], [0.8, 1.1]]}
train.large_scale_jitter: {choice: [true, false]}
SOLVER.WEIGHT_DECAY: {log_uniform: [1.0e-4, 0.1]}
"""


def test_the_ends_and_choices_are_overrides_that_the_project_takes(tmp_path: Path, load: Load) -> None:
    read = space(tmp_path, load, GOOD)
    by_key = {one.key: one for one in read.parameters}
    assert list(by_key) == list(yaml.safe_load(GOOD))
    assert by_key["train.image_size"].examples() == (64, 96)  # 128 is beyond the end
    assert by_key["train.learning_rate"].examples() == (1e-5, 1e-3)
    values = {
        "train.learning_rate": 1e-05,
        "train.image_size": 96,
        "train.copy_paste": 0.25,
        "train.scale_jitter": [0.8, 1.1],
        "train.large_scale_jitter": True,
        "SOLVER.WEIGHT_DECAY": 1e-04,
    }
    project = load(read.words(values)).project
    train = project.train
    assert (train.learning_rate, train.image_size, train.copy_paste) == (1e-5, 96, 0.25)
    assert (train.scale_jitter, train.large_scale_jitter) == ((0.8, 1.1), True)
    assert project.detectron2["SOLVER.WEIGHT_DECAY"] == 1e-4
    assert json.loads(json.dumps(read.to_json())) == read.to_json()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is not the space of a search; found None"),
        ("- a", "is not the space of a search; found ['a']"),
        ("train.learning_rate: 3", "train.learning_rate: must be a mapping, such as"),
        ("train: {learning_rate: {uniform: [1, 2]}}", "train: unknown kind of values 'learning_rate'; the kinds are"),
        ("train.copy_paste: {unifrom: [0, 1]}", "Did you mean 'uniform'?"),
        (
            "train.copy_paste: {uniform: [0, 1], choice: [1, 2]}",
            "must have one of uniform, log_uniform, integer, choice",
        ),
        ("train.copy_paste: {uniform: [1, 0]}", "uniform must be two numbers, the smaller first; found [1, 0]"),
        ("train.copy_paste: {uniform: [0, .nan]}", "uniform must be two numbers"),
        ("train.copy_paste: {uniform: [0, 1], step: 2}", "step goes with integer"),
        ("train.learning_rate: {log_uniform: [0, 1]}", "log_uniform must be above 0; found 0.0"),
        ("train.image_size: {integer: [64.5, 90]}", "integer must be two whole numbers"),
        ("train.image_size: {integer: [64, 90], step: 40}", "step must be a whole number from 1 to 26; found 40"),
        ("train.augment: {choice: [photo]}", "choice must be a list of two different values or more"),
        ("train.augment: {choice: [photo, photo]}", "choice must be a list of two different values or more"),
        ("train.augment: {choice: [photo, 2024-01-01]}", "choice must be a list of two different values or more"),
        (
            "train.imagesize: {integer: [64, 90]}",
            "train.imagesize: unknown key 'imagesize'. Did you mean 'image_size'?",
        ),
        (
            "train.image_size: {integer: [16, 90]}",
            "train.image_size: must be a whole number from 32 to 4096, or original; found 16",
        ),
        ("train.iterations: {uniform: [10, 90.5]}", "train.iterations: must be a whole number above 0"),
        (
            "train.iterations: {uniform: [10, 90]}",
            "train.iterations: must be a whole number above 0; found 50.5. Whole numbers are of the kind integer.",
        ),
        ("SOLVER.WARMUP_ITERS: {uniform: [1, 9]}", "SOLVER.WARMUP_ITERS: must be a whole number; found 5.5"),
        ("train.steps: {choice: [[0.5], [0.6]]}", "train.steps: steps are for schedule: step; found schedule: cosine"),
        ("model.preset: {choice: [pointrend_r50_fpn, nothing_like_it]}", "model.preset: no preset 'nothing_like_it'"),
        (
            "model.preset: {choice: [pointrend_r50_fpn, panoptic_fpn_r50]}",
            "model.preset: preset 'panoptic_fpn_r50' is for panoptic tasks; found task: instance",
        ),
        ("train.seed: {choice: [0, 1]}", "train.seed: cannot be searched: trials with other values"),
        ("data.val: {uniform: [0.1, 0.3]}", "data.val: cannot be searched: trials with other values"),
        ("SOLVER.WEIGHT_DECAYS: {uniform: [0, 1]}", "Detectron2 has no such key. Did you mean 'SOLVER.WEIGHT_DECAY'?"),
        ("INPUT.BLUR: {uniform: [0, 1]}", "INPUT.BLUR: is derived and cannot be set. Set train.blur."),
        ("a: {uniform: [0, 1]}\na: {uniform: [0, 1]}", "the key 'a' is written twice"),
    ],
)
def test_invalid_spaces_are_one_line(tmp_path: Path, load: Load, text: str, line: str) -> None:
    with pytest.raises(ProjectError) as caught:
        space(tmp_path, load, text)
    one_line = caught.value.one_line()
    assert one_line.startswith(f"{tmp_path / 'space.yaml'}: ") and line in one_line


def test_a_missing_space_is_one_line(tmp_path: Path, load: Load) -> None:
    with pytest.raises(ProjectError, match=r"space.yaml: no such file. Write a key and its values"):
        read_space(tmp_path / "space.yaml", load)


def as_an_agent_writes(content: dict[str, object], values: dict[str, object]) -> list[str]:
    """The command of a W&B agent: ``${args_no_hyphens}`` is ``key=value`` for each parameter, with Python's texts."""
    command: list[str] = []
    for word in content["command"]:  # type: ignore[attr-defined]
        command += [f"{key}={value}" for key, value in values.items()] if word == "${args_no_hyphens}" else [word]
    return command


def test_the_sweep_file_of_wandb(tmp_path: Path, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.yaml").write_text(GOOD)
    out = tmp_path / "sweep.yaml"
    words = [
        "sweep",
        str(tmp_path / "p.yaml"),
        "train.seed=3",
        "--space",
        str(tmp_path / "space.yaml"),
        "--trials",
        "7",
    ]
    assert cli.main([*words, "--wandb-sweep", str(out)]) == 0
    assert capsys.readouterr().out == f"written: {out}\nnext: wandb sweep {out}\n"
    content = yaml.safe_load(out.read_text())
    assert content["metric"] == {"name": "val/segm/AP", "goal": "maximize"}
    assert (content["method"], content["run_cap"]) == ("bayes", 7)
    assert content["parameters"] == {
        "train.learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3},
        "train.image_size": {"values": [64, 96]},
        "train.copy_paste": {"distribution": "uniform", "min": 0.0, "max": 0.5},
        "train.scale_jitter": {"values": [[0.6, 1.2], [0.8, 1.1]]},
        "train.large_scale_jitter": {"values": [True, False]},
        "SOLVER.WEIGHT_DECAY": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
    }
    values = {"train.learning_rate": 2.5e-05, "train.scale_jitter": [0.8, 1.1], "train.large_scale_jitter": True}
    program, command, project, *overrides, last = as_an_agent_writes(content, values)
    assert (program, command, project, last) == ("d2tune", "train", str(tmp_path / "p.yaml"), "--wandb")
    train = load(overrides).project.train
    assert (train.seed, train.learning_rate) == (3, 2.5e-5)
    assert (train.scale_jitter, train.large_scale_jitter) == ((0.8, 1.1), True)
    assert cli.main([*words, "--wandb-sweep", str(out)]) == 1
    assert "is already there" in capsys.readouterr().err
    assert cli.main([*words, "--wandb-sweep", str(out), "--force"]) == 0


def test_null_is_not_passed_on_by_wandb(tmp_path: Path, load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "space.yaml").write_text("train.patch_size: {choice: [null, 64]}\n")
    read = read_space(tmp_path / "space.yaml", load)
    assert load(read.words({"train.patch_size": None})).project.train.patch_size is None
    words = ["--space", str(tmp_path / "space.yaml"), "--trials", "2", "--wandb-sweep", str(tmp_path / "sweep.yaml")]
    assert cli.main(["sweep", str(tmp_path / "p.yaml"), *words]) == 1
    line = "train.patch_size: W&B's agents do not pass this value on as it is; found None"
    assert line in capsys.readouterr().err and not (tmp_path / "sweep.yaml").exists()


def test_an_integer_without_a_step_is_a_range_of_wandb(tmp_path: Path, load: Load) -> None:
    from d2tune.search.wandb_sweep import write_wandb_sweep

    read = space(tmp_path, load, "train.iterations: {integer: [100, 900]}")
    path = write_wandb_sweep(tmp_path / "w.yaml", read, load([]), words=[], trials=3)
    parameters = yaml.safe_load(path.read_text())["parameters"]
    assert parameters == {"train.iterations": {"distribution": "int_uniform", "min": 100, "max": 900}}
