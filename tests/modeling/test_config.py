from pathlib import Path

import pytest

from d2tune.errors import ProjectError
from d2tune.modeling.config import DataFacts, planned_iterations, project_config
from d2tune.project import Data, Model, Project, Train, preset_names


def facts(classes: int = 3, *, images: int = 100, has_rle: bool = False) -> DataFacts:
    names = tuple(f"class{number}" for number in range(classes))
    return DataFacts(class_names=names, train_images=images, has_rle=has_rle, train_name="t", val_name="v")


def project(**keys: object) -> Project:
    return Project(**({"name": "p", "data": Data(root=Path())} | keys))  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", preset_names())
def test_what_a_person_never_types_follows_from_the_data(preset: str) -> None:
    cfg = project_config(project(model=Model(preset=preset)), facts(5), scratch=False, device="cpu")
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.POINT_HEAD.NUM_CLASSES == 5
    assert cfg.DATASETS.TRAIN == ("t",) and cfg.DATASETS.TEST == ("v",)
    assert cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS is False
    if preset.startswith("pointrend"):
        assert cfg.INPUT.MASK_FORMAT == "bitmask"
        assert cfg.MODEL.ROI_MASK_HEAD.CONV_DIM == cfg.MODEL.FPN.OUT_CHANNELS


@pytest.mark.parametrize(("has_rle", "expected"), [(False, "polygon"), (True, "bitmask")])
def test_one_run_length_mask_makes_the_format_bitmask(has_rle: bool, expected: str) -> None:
    wanted = project(model=Model(preset="mask_rcnn_r50_fpn"))
    assert expected == project_config(wanted, facts(has_rle=has_rle), scratch=False, device="cpu").INPUT.MASK_FORMAT


@pytest.mark.parametrize(
    ("train", "images", "expected"),
    [
        (Train(iterations=77), 100, 77),
        (Train(epochs=3, batch_size=4), 100, 75),
        (Train(epochs=0.001, batch_size=4), 10, 1),
        (Train(batch_size=4), 100, 3000),
        (Train(batch_size=4), 3000, 15000),
    ],
)
def test_iterations(train: Train, images: int, expected: int) -> None:
    assert planned_iterations(project(train=train), images) == expected


def test_learning_rate_is_linear_in_the_batch_for_sgd_and_a_square_root_for_adamw() -> None:
    def rate(preset: str, batch_size: int) -> float:
        wanted = project(model=Model(preset=preset), train=Train(batch_size=batch_size, iterations=9))
        return float(project_config(wanted, facts(), scratch=False, device="cpu").SOLVER.BASE_LR)

    assert rate("pointrend_r50_fpn", 16) == pytest.approx(0.02)
    assert rate("pointrend_r50_fpn", 4) == pytest.approx(0.005)
    compact = "pointrend_mobilenet_v2_fpn"
    assert rate(compact, 4) == pytest.approx(rate(compact, 16) / 2)


def test_from_scratch_the_norms_learn_nothing_is_frozen_and_warm_up_is_longer() -> None:
    wanted = project(train=Train(iterations=800))
    fine_tuned, scratch = (project_config(wanted, facts(), scratch=flag, device="cpu") for flag in (False, True))
    assert (fine_tuned.MODEL.RESNETS.NORM, fine_tuned.MODEL.BACKBONE.FREEZE_AT) == ("FrozenBN", 2)
    assert (scratch.MODEL.RESNETS.NORM, scratch.MODEL.BACKBONE.FREEZE_AT) == ("BN", 0)
    assert (fine_tuned.SOLVER.WARMUP_ITERS, scratch.SOLVER.WARMUP_ITERS) == (40, 100)


def test_raw_keys_come_last() -> None:
    wanted = project(detectron2={"SOLVER": {"BASE_LR": 1}, "TEST.DETECTIONS_PER_IMAGE": 7})
    cfg = project_config(wanted, facts(), scratch=False, device="cpu")
    assert cfg.SOLVER.BASE_LR == 1.0 and cfg.TEST.DETECTIONS_PER_IMAGE == 7


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 5}, "not set by hand.*follows from classes"),
        ({"INPUT.MIN_SIZE_TRAIN": [640]}, r"Set train\.image_size"),
        ({"SOLVER.BASE_LRR": 0.1}, "Did you mean 'SOLVER.BASE_LR'"),
        ({"SOLVER.MAX_ITER": "many"}, "wrong type of value; found 'many'; expected int"),
    ],
)
def test_wrong_raw_keys_are_refused(raw: dict, told: str) -> None:
    with pytest.raises(ProjectError, match=told):
        project_config(project(detectron2=raw), facts(), scratch=False, device="cpu")
