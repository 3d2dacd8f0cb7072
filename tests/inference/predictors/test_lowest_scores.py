"""Instances below the lowest score of their class get no mask, and the others are the same as without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

from d2tune.data.image_reader import ImageReader
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.predictors.panoptic import PanopticPredictor
from d2tune.inference.predictors.rcnn import has_two_steps
from d2tune.inference.results import Detections, rounded_score
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import Data, Model, Project
from tests.cases import on_demand

NAMES = ("bus", "car")
SIZES = [(60, 90), (90, 60), (64, 96), (60, 90)]


def built(preset: str, overrides: dict[str, Any], **keys: Any) -> tuple[Any, CfgNode]:
    """A model with random weights, which detects many objects of both classes."""
    names = {"thing_names": keys["things"], "stuff_names": keys["stuff"]} if keys else {}
    facts = DataFacts(class_names=NAMES, train_images=9, has_rle=True, train_name="t", val_name="v", **names)
    project = Project(name="p", data=Data(root=Path()), model=Model(preset=preset), **keys)
    cfg = project_config(project, facts, scratch=True, device="cpu").clone()
    cfg.defrost()
    small = {"INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96, "TEST.DETECTIONS_PER_IMAGE": 16}
    many = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
    cfg.merge_from_list([value for pair in (small | many | overrides).items() for value in pair])
    torch.manual_seed(3)
    model = build_model(cfg)[0].eval()
    for name, parameter in model.named_parameters():
        if name.endswith("cls_score.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
            # about the same scores for all classes of an object
            parameter.data[:-1] = parameter.data[0] + 0.02 * parameter.data[:-1]
    return model, cfg


def photos() -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def predictor_of(model: Any, cfg: CfgNode, min_scores: Sequence[float] | None = None) -> InstancePredictor:
    reader = ImageReader(3, cfg.INPUT.FORMAT)
    return InstancePredictor(model, cfg, class_names=NAMES, reader=reader, min_scores=min_scores)


CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("pointrend_mobilenet_v2_fpn", {}),
        ("pointrend_mobilenet_v2_fpn", CASCADE),
        pytest.param("mask_rcnn_r50_fpn", {}, marks=pytest.mark.extended),
    ],
)
def test_the_results_are_those_of_filtering_afterwards(preset: str, overrides: dict[str, Any]) -> None:
    model, cfg = built(preset, overrides)
    everything = predictor_of(model, cfg).batch(photos())
    least = [float(np.median([s for one in everything for s in one.scores[one.class_ids == c]])) for c in (0, 1)]
    masked: list[int] = []
    model.roi_heads.mask_head.register_forward_pre_hook(
        lambda _, arguments: masked.append(sum(len(instances) for instances in arguments[1]))
    )
    cut = predictor_of(model, cfg, least).batch(photos())
    assert has_two_steps(model) and sum(masked) == sum(map(len, cut)) < sum(map(len, everything))
    for own, whole in zip(cut, everything, strict=True):
        scores = [rounded_score(score) for score in whole.scores]
        kept = [index for index, score in enumerate(scores) if score >= least[whole.class_ids[index]]]
        assert 0 < len(kept) < len(scores)
        assert np.array_equal(own.scores, whole.scores[kept]) and np.array_equal(own.boxes_xyxy, whole.boxes_xyxy[kept])
        assert own.class_ids.tolist() == whole.class_ids[kept].tolist()
        assert list(own.lower_scores) == [score for index, score in enumerate(scores) if index not in kept]
        both, either = (own.masks & whole.masks[kept]).sum((1, 2)), (own.masks | whole.masks[kept]).sum((1, 2))
        assert (both >= 0.9999 * either).all() and either.any()


def test_nothing_is_as_high() -> None:
    model, cfg = built("pointrend_mobilenet_v2_fpn", {})
    everything, (nothing,) = predictor_of(model, cfg)(photos()[0]), predictor_of(model, cfg, [1, 1]).batch(photos()[:1])
    assert len(nothing) == 0 and nothing.masks.shape == (0, 60, 90) and nothing.rles == ()
    assert nothing.lower_scores == tuple(rounded_score(score) for score in everything.scores)


def test_a_number_for_each_class() -> None:
    model, cfg = built("pointrend_mobilenet_v2_fpn", {})
    with pytest.raises(ValueError, match="1 lowest scores for 2 classes"):
        predictor_of(model, cfg, [0.5])


def whole_masks(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A model that is not a module: four boxes with masks on the whole image."""
    outputs = []
    for sample in batch:
        instances = Instances((sample["height"], sample["width"]))
        instances.pred_boxes = Boxes(torch.tensor([[1.0, 2, 5, 8], [0, 0, 9, 9], [2, 2, 6, 6], [3, 3, 3, 9]]))
        instances.scores = torch.tensor([0.2999996, 0.2999994, 0.6, 0.9])
        instances.pred_classes = torch.tensor([0, 0, 1, 1])
        instances.pred_masks = torch.ones(4, *instances.image_size, dtype=torch.bool)
        outputs.append({"instances": instances})
    return outputs


def test_other_models_are_filtered_afterwards_with_scores_of_six_digits() -> None:
    _, cfg = built("pointrend_mobilenet_v2_fpn", {})
    result = predictor_of(whole_masks, cfg, [0.3, 0.7])(photos()[0])
    # the score of the first one is 0.3 in files; the last one is empty
    assert result.boxes_xyxy.tolist() == [[1, 2, 5, 8]] and result.masks.all()
    assert result.lower_scores == (0.6, 0.299999)


@pytest.mark.parametrize("is_own", on_demand([False, True], True))
def test_a_panoptic_model_gives_the_segments_of_detectron2(is_own: bool) -> None:
    model, cfg = built("panoptic_fpn_mobilenet_v2", {}, task="panoptic", things=("bus",), stuff=("car",))
    model.combine_stuff_area_thresh = 50
    head = model.roi_heads.mask_head
    batch = [{"image": torch.from_numpy(photo).permute(2, 0, 1), "height": 120, "width": 120} for photo in photos()]
    with torch.no_grad():
        scores = torch.cat([output["instances"].scores for output in model(batch)])
        least = float(scores.median())
        model.combine_instances_score_thresh = 0.0 if is_own else least
        theirs = [output["panoptic_seg"] for output in model(batch)]
    masked: list[int] = []
    head.register_forward_pre_hook(lambda _, arguments: masked.append(sum(map(len, arguments[1]))))
    min_scores = [least, 0.0] if is_own else None
    reader = ImageReader(3, cfg.INPUT.FORMAT)
    predictor = PanopticPredictor(model, cfg, class_names=NAMES, things=1, reader=reader, min_scores=min_scores)
    with torch.no_grad():
        ours = [
            predictor._result(raw, sample) for raw, sample in zip(predictor._forward(model, batch), batch, strict=True)
        ]
    assert 0 < sum(masked) < len(scores)
    if not is_own:
        for own, (ids, infos) in zip(ours, theirs, strict=True):
            assert np.array_equal(own.segment_ids, ids.numpy())
            assert [segment.id for segment in own.segments] == [info["id"] for info in infos]
    else:
        things = [segment.score for own in ours for segment in own.segments if segment.isthing]
        assert things and all(score is not None and score >= least - 1e-6 for score in things)


def bits(result: Detections) -> tuple[Any, ...]:
    return result.boxes_xyxy.tobytes(), result.scores.tobytes(), result.rles, result.lower_scores


def concurrently(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of functions that begin at the same time, each in a thread."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(run, task) for task in tasks]]


@pytest.mark.parametrize("is_model_own", on_demand([True, False], True))
def test_four_threads_get_the_bits_of_one(is_model_own: bool) -> None:
    model, cfg = built("pointrend_mobilenet_v2_fpn", {})
    reader = ImageReader(3, cfg.INPUT.FORMAT)
    options: dict[str, Any] = {"class_names": NAMES, "reader": reader, "is_model_own": is_model_own}
    model.train()
    predictors = [InstancePredictor(model, cfg, min_scores=[0.3, 0.3], **options) for _ in range(2)]
    images = photos()
    serial = [bits(predictors[0](image)) for image in images]

    def repeated(index: int) -> list[tuple[Any, ...]]:
        return [bits(predictors[index % 2](images[index])) for _ in range(2)]

    results = concurrently([lambda index=index: repeated(index) for index in range(4)])  # type: ignore[misc]
    assert results == [[expected] * 2 for expected in serial]
    assert model.training is not is_model_own
    assert any("forward" in vars(module) for module in model.modules() if module is not model.backbone) is is_model_own
