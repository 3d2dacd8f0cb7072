"""Assembled models on real images: what their members give, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from torch import nn

from d2tune.assembling.candidates import Candidate, Network, can_be_averaged, fused, mean_of, single
from d2tune.assembling.members import Member, short_names
from d2tune.engine.run_start import run_to_resume
from d2tune.errors import PackageError, RunError
from d2tune.export.graphs.build import kind_of
from d2tune.modeling import checkpoint
from d2tune.modeling.assembled.config import View, assembled_config, member_configs
from d2tune.modeling.config import read_config
from d2tune.modeling.ready import ready_model
from d2tune.project import load_project
from d2tune.run_folder import RunFolder
from tests.runs.random_runs import random_run


def member_of(folder: Path, task: str) -> Member:
    """A run with random weights, its project without data."""
    run = RunFolder(random_run(folder, task))
    state = checkpoint.load(run.best)["model"]
    return Member(
        folder.name, str(folder), run, load_project(run.project), run.read_record(), read_config(run.config), state, ""
    )


def changed(member: Member, name: str) -> Network:
    """The network of a run with slightly other weights."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: value + 0.02 * value.std() * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and value.ndim > 1
        else value
        for key, value in member.state.items()
    }
    return Network(name, member, member.cfg, state)


def built(candidate: Candidate) -> Any:
    def load(model: nn.Module) -> None:
        checkpoint.put_weights(model, candidate.state, file=candidate.member.folder.best)

    return ready_model(candidate.cfg.clone(), recorded="float32", load=load)


def samples() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (3, 64, 96)), draw.integers(0, 256, (3, 64, 80))]
    return [
        {"image": torch.as_tensor(image.astype(np.uint8)), "height": 128, "width": 2 * image.shape[-1]}
        for image in images
    ]


def mirrored(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one | {"image": one["image"].flip(-1)} for one in given]


def all_of(instances: Instances) -> torch.Tensor:
    return torch.ones_like(instances.scores, dtype=torch.bool)


@pytest.mark.slow
@torch.no_grad()
def test_instances(tmp_path: Path) -> None:
    member = member_of(tmp_path / "run", "instance")
    network = Network("run", member, member.cfg, member.state)
    plain, given = built(single(network)), samples()
    expected = plain.inference(given, do_postprocess=False)
    assert sum(map(len, expected)) > 4

    twice = built(fused([network, network]))
    assert twice.size_divisibility == plain.backbone.size_divisibility
    kept, others = twice.detect(given, all_of)
    for one, same in zip(kept, expected, strict=True):
        order = torch.argsort(-same.scores, stable=True)
        assert torch.allclose(one.scores, same.scores[order], atol=1e-5)
        assert torch.allclose(one.pred_boxes.tensor, same.pred_boxes.tensor[order], atol=1e-3)
        assert torch.allclose(one.pred_masks, same.pred_masks[order].float(), atol=1e-3)
    assert not any(map(len, others))
    chosen, rest = twice.detect(given, lambda instances: instances.scores >= instances.scores.max())
    assert [len(one) for one in chosen] == [1, 1] and sum(map(len, rest)) == sum(map(len, kept)) - 2

    views = [View(0, flip=True)]
    flipped = assembled_config([member.cfg], views, size_px=(64, 96))
    state = {f"members.0.{name}": value for name, value in member.state.items()}
    kept, _ = built(Candidate("flipped", member, flipped, state, 1, ("run",))).detect(given, all_of)
    for one, seen, sample in zip(kept, plain.inference(mirrored(given), do_postprocess=False), given, strict=True):
        left, top, right, bottom = seen.pred_boxes.tensor.unbind(1)
        width = sample["image"].shape[-1]
        assert torch.allclose(one.pred_boxes.tensor, torch.stack((width - right, top, width - left, bottom), 1))
        assert torch.equal(one.scores, seen.scores)
        assert torch.equal(one.pred_masks, seen.pred_masks.flip(-1))

    whole = twice(given)[0]["instances"]
    assert whole.image_size == (128, 192) and whole.pred_masks.shape[1:] == (128, 192)


@torch.no_grad()
def test_probabilities(tmp_path: Path) -> None:
    member = member_of(tmp_path / "run", "semantic")
    network, other = Network("run", member, member.cfg, member.state), changed(member, "other")
    a, b, given = built(single(network)), built(single(other)), samples()
    assembled = built(fused([network, other], flips=True))
    for index, output in enumerate(assembled(given)):
        seen = [
            model(source)[index]["sem_seg"].flip(-1) if is_flipped else model(source)[index]["sem_seg"]
            for model in (a, b)
            for source, is_flipped in ((given, False), (mirrored(given), True))
        ]
        assert output["sem_seg"].shape == (2, 128, given[index]["width"])
        assert torch.allclose(output["sem_seg"], torch.stack(seen).mean(0), atol=1e-5)
        assert torch.allclose(output["sem_seg"].sum(0), torch.ones(128, given[index]["width"]), atol=1e-5)
        assert not torch.allclose(seen[0], seen[2], atol=1e-3), "the members differ"


def test_configs_of_members(tmp_path: Path) -> None:
    member = member_of(tmp_path / "run", "instance")
    larger = member.cfg.clone()
    larger.defrost()
    larger.MODEL.POINT_HEAD.NUM_FC = 5
    cfg = assembled_config([member.cfg, larger], [View(0, 0.5), View(1, flip=True)], size_px=(128, 192))
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (128, 192)
    assert cfg.MODEL.ASSEMBLED.VIEWS == [[0, 0.5, False], [1, 1.0, True]]
    path = tmp_path / "detectron2.yaml"
    path.write_text(cfg.dump(), encoding="utf-8")
    first, second = member_configs(read_config(path))
    assert (first.MODEL, second.MODEL) == (member.cfg.MODEL, larger.MODEL)
    fields = {name: getattr(member, name) for name in Member.__dataclass_fields__}
    assert can_be_averaged([member, member])
    assert not can_be_averaged([member, Member(**(fields | {"cfg": larger}))])
    larger.MODEL.META_ARCHITECTURE = "PanopticFPN"
    with pytest.raises(KeyError):
        assembled_config([larger], [View(0)], size_px=(64, 96))


@pytest.mark.extended
def test_an_ensemble_of_runs_of_other_sizes_and_two_scales(tmp_path: Path) -> None:
    member = member_of(tmp_path / "run", "semantic")
    larger = member.cfg.clone()
    larger.defrost()
    larger.INPUT.MIN_SIZE_TEST, larger.INPUT.MAX_SIZE_TEST = 128, 192
    networks = [Network("a", member, member.cfg, member.state), Network("b", member, larger, member.state)]
    candidate = fused(networks, factor=1.5, scales=True)
    assert candidate.cfg.MODEL.ASSEMBLED.VIEWS == [[0, 0.5, False], [0, 0.4, False], [1, 1.0, False], [1, 0.8, False]]
    assert candidate.cfg.INPUT.MIN_SIZE_TEST == 192
    assert (candidate.name, candidate.passes) == ("ensemble of 2 runs, 192 px, in two sizes", 4)
    with torch.no_grad():
        output = built(candidate)(samples())[1]["sem_seg"]
    assert output.shape == (2, 128, 160) and torch.allclose(output.sum(0), torch.ones(128, 160), atol=1e-5)


def test_an_assembled_model_is_neither_exported_nor_trained_on(tmp_path: Path) -> None:
    member = member_of(tmp_path / "run", "semantic")
    candidate = fused([Network("run", member, member.cfg, member.state)], flips=True)
    with pytest.raises(
        PackageError, match=r"assembled model of several views or runs cannot be exported\. Export one of"
    ):
        kind_of(built(candidate))
    member.folder.update_record({"assembled": {}})
    with pytest.raises(RunError, match="the run is an assembled model, which cannot be trained on"):
        run_to_resume(member.loaded.project, member.folder.path)


def test_the_mean_of_tensors() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([2.0, 5.0]), "n": torch.tensor(9)},
    ]
    mean = mean_of(states)
    assert mean["w"].tolist() == [1.5, 3.5] and mean["n"].item() == 3


def test_short_names() -> None:
    assert short_names([Path("/runs/a/1"), Path("/runs/a/2")]) == ["1", "2"]
    assert short_names([Path("/runs/a/1"), Path("/runs/b/1")]) == ["a/1", "b/1"]
