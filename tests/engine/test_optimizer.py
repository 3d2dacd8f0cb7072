"""Learning rates and freezing by the names of parameters, and gradients that are accumulated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import d2tune
from d2tune.engine.optimizer import build_optimizer, check_factors, freeze, norms_within, within
from d2tune.errors import ProjectError
from d2tune.modeling.config import default_config
from d2tune.project import load_project
from tests.engine.test_tasks import raster_project
from tests.engine.trainers import trainer_of


class Small(nn.Module):
    """A body of a layer and a norm, and a head; the loss is a mean over the images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 1)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        x = torch.stack([sample["x"] for sample in batch]).to(self.head.weight.dtype)
        return {"loss_a": self.head(self.body[0](x)).square().mean(), "loss_b": self.head.bias.sum()}


@pytest.mark.parametrize(
    ("name", "beginning", "expected"),
    [("a.b", "a", True), ("a.b", "a.b", True), ("ab.c", "a", False), ("a", "a.b", False), ("x.a.b", "a", False)],
)
def test_what_a_name_begins_with(name: str, beginning: str, expected: bool) -> None:
    assert within(name, beginning) is expected


def test_the_longest_name_decides_the_learning_rate() -> None:
    cfg, model = default_config(), Small()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.5, 0.125
    optimizer = build_optimizer(cfg, model, factors={"body": 0.1, "body.0.weight": 0.01})
    names = {value: name for name, value in model.named_parameters()}
    rates = {names[value]: group["lr"] for group in optimizer.param_groups for value in group["params"]}
    assert rates == pytest.approx(
        {
            "body.0.weight": 0.005,
            "body.0.bias": 0.05,
            "body.1.weight": 0.05,
            "body.1.bias": 0.05,
            "head.weight": 0.5,
            "head.bias": 0.5,
        }
    )
    decays = {names[value]: group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    assert decays["body.1.weight"] == 0.125 and decays["body.0.weight"] == cfg.SOLVER.WEIGHT_DECAY


def test_frozen_parts_have_no_gradient_and_are_not_optimized() -> None:
    model = Small()
    freeze(model, ["body"])
    assert norms_within(model, ["body"]) == [model.body[1]]
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["head.weight", "head.bias"]
    optimizer = build_optimizer(default_config(), model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


@pytest.mark.parametrize(
    ("frozen", "factors", "line"),
    [
        (["bodi"], {}, "train.freeze: no parameter that is trained has a name that begins so; found 'bodi'; expected"),
        (["body", "head"], {}, "train.freeze: all parameters are frozen"),
        (["body"], {"body.0": 0.1}, "train.learning_rate_factors: no parameter that is trained has a name"),
        ([], {"backbone": 0.1}, "expected body.0, body.1, head, or the beginning of a longer name"),
    ],
)
def test_names_that_do_not_fit(frozen: list[str], factors: dict[str, float], line: str) -> None:
    model = Small()
    with pytest.raises(ProjectError) as caught:
        freeze(model, frozen)
        check_factors(model, factors)
    assert line in caught.value.one_line()


@pytest.mark.parametrize("pieces", [2, 4])
def test_accumulated_gradients_are_those_of_the_batch(pieces: int) -> None:
    whole, divided = Small().double(), Small().double()
    trainer_of(whole).train(0, 3)
    trainer = trainer_of(divided, accumulate=pieces)
    trainer.train(0, 3)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(divided.state_dict()[name], value, rtol=1e-9, atol=1e-9)
    plain = trainer_of(Small())
    plain.train(0, 1)
    once = trainer_of(Small(), accumulate=pieces)
    once.train(0, 1)
    for name in ("total_loss", "loss_a", "loss_b"):
        assert once.storage.latest()[name][0] == pytest.approx(plain.storage.latest()[name][0], rel=1e-5)


@pytest.mark.slow
def test_a_run_with_a_frozen_component_and_divided_batches(tmp_path: Path) -> None:
    project = raster_project(tmp_path, iterations=3)
    options = [
        "train.freeze=[down]",
        "train.accumulate=2",
        "train.learning_rate_factors={up: 0.5}",
        "SOLVER.EMA_DECAY=0",
    ]
    names = {"down", "up"}
    with pytest.raises(ProjectError) as caught:
        d2tune.train(project, output_dir=tmp_path / "no", overrides=options, num_gpus=0)
    assert not (tmp_path / "no").exists()
    listed = caught.value.one_line().partition("expected ")[2].split(", or the")[0].split(", ")
    assert not names & set(listed)
    first, last = listed[0], listed[-1]
    options[0], options[2] = f"train.freeze=[{first}]", f"train.learning_rate_factors={{{last}: 0.5}}"
    weights = []
    for iterations in (1, 3):
        run = tmp_path / f"run_{iterations}"
        d2tune.train(project, output_dir=run, overrides=[*options, f"train.iterations={iterations}"], num_gpus=0)
        weights.append(torch.load(run / "checkpoints/model_final.pth", weights_only=True)["model"])
    frozen = [name for name in weights[0] if within(name, first)]
    assert frozen and any(name.endswith("running_mean") for name in frozen)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in frozen)
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0] if within(name, last))


def test_a_batch_that_cannot_be_divided_is_refused(tiny_project: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        load_project(tiny_project, overrides={"train.accumulate": 3})
    assert "accumulate must divide batch_size, 2; found 3" in caught.value.one_line()


def adamw(model: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    """AdamW as d2tune builds it, or with one parameter after the other."""
    cfg = default_config()
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = "ADAMW", 0.1, 0.01
    built = build_optimizer(cfg, model)
    return built if fused else torch.optim.AdamW([group | {"fused": None} for group in built.param_groups])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, *, seed: int, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        gradient = torch.randn(value.shape, generator=generator)
        value.grad = gradient.to(memory_format=layout) if gradient.ndim == 4 else gradient
    optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_operator_updates_as_torch_does_whatever_the_layout(layout: torch.memory_format) -> None:
    """On a processor, torch's fused AdamW does not look at the strides of gradients and averages."""
    models = [nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[0].to(memory_format=torch.channels_last)
    optimizers = [adamw(model, fused=index == 0) for index, model in enumerate(models)]
    for seed in range(2):
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer, seed=seed, layout=layout)
    assert [group["fused"] for group in optimizers[0].param_groups] == [True] * len(optimizers[0].param_groups)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*(one.parameters() for one in models), strict=True))


def test_a_state_of_another_layout_goes_on_in_one_operator() -> None:
    """That of a run of an earlier version, whose optimizer updated one parameter after the other."""
    earlier = nn.Conv2d(4, 8, 3)
    before = adamw(earlier, fused=False)
    step(earlier, before, seed=0, layout=torch.contiguous_format)
    now = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    now.load_state_dict(earlier.state_dict())
    optimizer = adamw(now, fused=True)
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    assert all(group["fused"] for group in optimizer.param_groups)
    for model, one in ((earlier, before), (now, optimizer)):
        step(model, one, seed=1, layout=torch.contiguous_format)
    assert torch.allclose(earlier.weight, now.weight, atol=1e-6)


def test_a_resumed_optimizer_has_the_same_bits() -> None:
    straight, stopped = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    stopped.load_state_dict(straight.state_dict())
    first, second = adamw(straight, fused=True), adamw(stopped, fused=True)
    for model, one in ((straight, first), (stopped, second)):
        step(model, one, seed=0, layout=torch.contiguous_format)
    resumed = adamw(stopped, fused=True)
    resumed.load_state_dict(second.state_dict())
    for model, one in ((straight, first), (stopped, resumed)):
        step(model, one, seed=1, layout=torch.contiguous_format)
    assert torch.equal(straight.weight, stopped.weight)
