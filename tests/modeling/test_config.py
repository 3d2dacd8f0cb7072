import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from detectron2.solver import build_lr_scheduler

from d2tune.errors import ProjectError, RunError
from d2tune.modeling.build import build_model
from d2tune.modeling.config import (
    CfgNode,
    DataFacts,
    default_config,
    is_bridge,
    preset_config,
    preset_task,
    project_config,
    read_config,
)
from d2tune.project import Data, LabelImages, Model, Project, Train, flatten, preset_names


def facts(classes: int = 3, *, images: int = 100, has_rle: bool = False) -> DataFacts:
    names = tuple(f"class{number}" for number in range(classes))
    return DataFacts(class_names=names, train_images=images, has_rle=has_rle, train_name="t", val_name="v")


def project(**keys: object) -> Project:
    return Project(**({"name": "p", "data": Data(root=Path())} | keys))  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", [name for name in preset_names() if preset_task(name) == "instance"])
def test_class_counts_and_names_are_derived_from_the_data(preset: str) -> None:
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
        (Train(batch_size=4), 48, 288),
        (Train(batch_size=4), 14, 260),
    ],
)
def test_iterations(train: Train, images: int, expected: int) -> None:
    cfg = project_config(project(train=train), facts(images=images), scratch=False, device="cpu")
    assert expected == cfg.SOLVER.MAX_ITER


def test_learning_rate_is_linear_in_the_batch_for_sgd_and_a_square_root_for_adamw() -> None:
    def rate(preset: str, batch_size: int) -> float:
        wanted = project(model=Model(preset=preset), train=Train(batch_size=batch_size, iterations=9))
        return float(project_config(wanted, facts(), scratch=False, device="cpu").SOLVER.BASE_LR)

    assert rate("pointrend_r50_fpn", 16) == pytest.approx(0.02)
    assert rate("pointrend_r50_fpn", 4) == pytest.approx(0.005)
    compact = "pointrend_mobilenet_v2_fpn"
    assert rate(compact, 4) == pytest.approx(rate(compact, 16) / 2)


def solver(*, preset: str = "pointrend_mobilenet_v2_fpn", raw: dict | None = None, **train: Any) -> Any:
    wanted = project(model=Model(preset=preset), train=Train(**train), detectron2=raw or {})
    return project_config(wanted, facts(), scratch=False, device="cpu").SOLVER


def test_the_learning_rate_falls_as_the_schedule_says() -> None:
    def rates(**train: Any) -> list[float]:
        cfg = default_config()
        cfg.SOLVER = solver(iterations=90, learning_rate=1.0, warmup=0, optimizer="sgd", **train)
        value = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([value], lr=cfg.SOLVER.BASE_LR)
        scheduler, values = build_lr_scheduler(cfg, optimizer), []
        for _ in range(90):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return values

    assert rates() == pytest.approx([0.5 + 0.5 * math.cos(math.pi * n / 90) for n in range(90)])
    assert rates(schedule="constant") == [1.0] * 90
    assert rates(schedule="step") == pytest.approx([1.0] * 60 + [0.1] * 20 + [0.01] * 10)
    assert rates(schedule="step", steps=(0.5,)) == pytest.approx([1.0] * 45 + [0.1] * 45)


def test_another_optimizer_has_rates_of_its_own() -> None:
    own = solver(iterations=90)
    assert (own.OPTIMIZER, own.WEIGHT_DECAY, own.EMA_DECAY) == ("ADAMW", 0.05, 0.98)
    assert solver(iterations=90, optimizer="adamw") == own
    sgd = solver(iterations=90, optimizer="sgd")
    assert (sgd.OPTIMIZER, sgd.WEIGHT_DECAY) == ("SGD", 0.0001) and pytest.approx(0.02 * 4 / 16) == sgd.BASE_LR
    adamw = solver(preset="pointrend_r50_fpn", iterations=90, optimizer="adamw")
    assert (adamw.OPTIMIZER, adamw.WEIGHT_DECAY) == ("ADAMW", 0.05) and pytest.approx(0.0001 / 2) == adamw.BASE_LR
    given = {"learning_rate": 0.3, "weight_decay": 0, "ema_decay": 0, "warmup": 7}
    changed = solver(iterations=90, optimizer="sgd", **given)
    assert (changed.BASE_LR, changed.WEIGHT_DECAY, changed.EMA_DECAY, changed.WARMUP_ITERS) == (0.3, 0.0, 0.0, 7)
    assert solver(iterations=90, optimizer="sgd", raw={"SOLVER.OPTIMIZER": "ADAMW"}).OPTIMIZER == "ADAMW"


def test_steps_of_a_short_training_stay_within_it() -> None:
    assert solver(iterations=2, schedule="step").STEPS == (1, 2)
    assert solver(iterations=9, schedule="step").STEPS == (6, 8)


def test_a_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ProjectError, match=r"train\.warmup: the learning rate would rise to the end; found 300 iter"):
        solver(epochs=1, warmup=300)
    assert solver(budget="20 min", warmup=300).WARMUP_ITERS == 300, "its iterations are not known yet"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"SOLVER.BASE_LR": -1}, "SOLVER.BASE_LR: the value is out of its range; found -1; expected a number above 0"),
        ({"SOLVER.BASE_LR": math.nan}, "SOLVER.BASE_LR: the value is out of its range; found nan"),
        ({"SOLVER.WEIGHT_DECAY": -1}, "SOLVER.WEIGHT_DECAY: the value is out of its range"),
        ({"SOLVER.EMA_DECAY": 2}, "found 2; expected a number from 0 and below 1"),
        ({"SOLVER.GAMMA": -3.0}, "SOLVER.GAMMA: the value is out of its range"),
        (
            {"SOLVER.WARMUP_ITERS": -5},
            "SOLVER.WARMUP_ITERS: the value is out of its range; found -5; expected 0 or more",
        ),
        (
            {"SOLVER.WARMUP_ITERS": 90},
            "SOLVER.WARMUP_ITERS: the learning rate would rise to the end; found 90 iterations",
        ),
        (
            {"SOLVER.MAX_ITER": 9},
            "SOLVER.MAX_ITER: the value is derived and cannot be set; found 9. Set train.iterations",
        ),
    ],
)
def test_raw_rates_that_no_training_can_have_are_refused(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError) as error:
        solver(iterations=90, raw=raw)
    assert words in error.value.one_line()


def test_a_raw_optimizer_has_its_usual_rates() -> None:
    assert solver(iterations=90, raw={"SOLVER.OPTIMIZER": "sgd"}) == solver(iterations=90, optimizer="sgd")


def test_a_learning_rate_falls_after_it_has_risen() -> None:
    assert solver(iterations=90, schedule="step", steps=(0.1,), warmup=9).STEPS == (9,)
    with pytest.raises(
        ProjectError, match=r"train\.warmup: the learning rate would fall before it has risen; found 10"
    ):
        solver(iterations=90, schedule="step", steps=(0.1,), warmup=10)
    usual = solver(iterations=400, schedule="step", steps=(0.01,))
    assert (usual.WARMUP_ITERS, usual.STEPS) == (4, (4,)), "20, if it did not fall before"


def test_early_stopping_needs_evaluations() -> None:
    with pytest.raises(ValueError, match=r"early_stopping\.patience counts evaluations; found eval_every: 0"):
        Train(eval_every=0, early_stopping={"patience": 3})
    assert Train(eval_every=0, early_stopping={"min_gain": 1}).eval_every == 0


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
    ("raw", "message"),
    [
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 5}, "derived and cannot be set.*derived from classes"),
        ({"INPUT.MIN_SIZE_TRAIN": [640]}, r"Set train\.image_size"),
        ({"SOLVER.BASE_LRR": 0.1}, "Did you mean 'SOLVER.BASE_LR'"),
        ({"SOLVER.WARMUP_ITERS": "many"}, "the value has the wrong type; found 'many'; expected int"),
        ({"MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5}, "derived and cannot be set.*derived from classes"),
        ({"MODEL.BRIDGE.ENCODER": "resnet18"}, r"Set model\.encoder"),
        ({"INPUT.PATCH_PX": 64}, r"Set train\.patch_size"),
    ],
)
def test_wrong_raw_keys_are_refused(raw: dict, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        project_config(project(detectron2=raw), facts(), scratch=False, device="cpu")


MAPS = [name for name in preset_names() if preset_task(name) in ("semantic", "panoptic")]


def map_config(preset: str, *, model: dict | None = None, **keys: object) -> CfgNode:
    """The config of a semantic project of three classes, or of a panoptic one of two things and three stuff."""
    task = preset_task(preset)
    names = {"classes": ("a", "b", "c")} if task == "semantic" else {"things": ("a", "b"), "stuff": ("c", "d", "e")}
    seen = keys.pop("facts", {})
    wanted = project(task=task, model=Model(preset=preset, **(model or {})), **(names | keys))  # type: ignore[arg-type]
    known = {
        "class_names": wanted.class_names,
        "thing_names": wanted.things,
        "stuff_names": wanted.stuff,
        "train_images": 10,
        "has_rle": False,
        "train_name": "t",
        "val_name": "v",
    }
    return project_config(wanted, DataFacts(**(known | seen)), scratch=False, device="cpu")  # type: ignore[arg-type, operator]


@pytest.mark.parametrize("preset", MAPS)
def test_class_counts_of_maps_follow_from_the_classes(preset: str) -> None:
    cfg = map_config(preset)
    assert cfg.DATASETS.TRAIN == ("t",) and cfg.DATASETS.TEST == ("v",)
    head = cfg.MODEL.SEM_SEG_HEAD
    if is_bridge(cfg):
        assert cfg.MODEL.BRIDGE.NUM_CLASSES == 3
    elif cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.POINT_HEAD.NUM_CLASSES, head.NUM_CLASSES) == (2, 2, 4)
    elif preset_task(preset) == "panoptic":
        assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, head.NUM_CLASSES) == (2, 5)
    else:
        assert cfg.MODEL.POINT_HEAD.NUM_CLASSES == head.NUM_CLASSES == 3


@pytest.mark.parametrize("preset", [name for name in preset_names() if "r101" in name or "deeplab_v3_plus_r" in name])
def test_pretrained_weights_of_the_large_models_are_of_their_depth(preset: str) -> None:
    cfg = preset_config(preset)
    if cfg.MODEL.FEATURES.NAME:
        assert f"/{cfg.MODEL.FEATURES.NAME.removeprefix('torchvision/')}-" in cfg.MODEL.WEIGHTS
        return
    assert str(cfg.MODEL.RESNETS.DEPTH) in cfg.MODEL.WEIGHTS or cfg.MODEL.WEIGHTS.endswith(
        f"R-{cfg.MODEL.RESNETS.DEPTH + 2}.pkl"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task": "semantic"}, r"model\.preset.*'pointrend_r50_fpn' is for instance tasks.*semantic_fpn_r50"),
        (
            {"task": "panoptic", "things": ("a",), "stuff": ("b",), "model": Model(preset="semantic_fpn_r50")},
            "is for semantic tasks; found task: panoptic; expected panoptic_deeplab_r50, panoptic_fpn_",
        ),
        ({"model": Model(preset="panoptic_fpn_r50")}, "is for panoptic tasks; found task: instance.*mask_rcnn"),
    ],
)
def test_a_preset_of_another_task_is_refused_with_the_valid_presets(keys: dict, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        project_config(project(**keys), facts(), scratch=False, device="cpu")


@pytest.mark.parametrize(
    ("preset", "model", "message"),
    [
        ("semantic_fpn_r50", {"encoder": "resnet18"}, r"model\.encoder.*does not take encoder.*unet"),
        ("semantic_fpn_r50", {"loss": {"dice": 1.0}}, r"does not take loss.*unet"),
        ("panoptic_fpn_r50", {"class_weights": "balanced"}, r"does not take class_weights.*unet"),
        ("deeplab_v3_plus_r50", {"output_stride": 8}, r"does not take output_stride.*deeplab_v3_plus"),
        ("deeplab_v3_plus_r50", {"backbone": "timm/resnet18"}, r"does not take backbone.*semantic_fpn_r50"),
        ("unet", {"backbone": "timm/resnet18"}, r"does not take backbone.*semantic_fpn_r50"),
        ("unet", {"padding": "valid"}, r"does not take padding; found 'valid'.*unet_2015"),
        ("unet_2015", {"encoder": "resnet18"}, r"does not take encoder.*unet_plus_plus"),
        ("unet", {"output_stride": 8}, r"does not take output_stride.*deeplab_v3"),
        ("unet", {"class_weights": (1.0, 2.0)}, r"model\.class_weights.*found 2 weights; expected 3, for a, b, c"),
    ],
)
def test_keys_that_a_preset_does_not_take_are_refused(preset: str, model: dict, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        map_config(preset, model=model)


def test_yolact_keeps_its_pyramid_on_another_backbone() -> None:
    wanted = project(model=Model(preset="yolact_r50", backbone="torchvision/resnet18"))
    cfg = project_config(wanted, facts(), scratch=False, device="cpu")
    assert cfg.MODEL.BACKBONE.NAME == "build_yolact_fpn_backbone"
    assert (cfg.MODEL.FEATURES.NAME, cfg.MODEL.FPN.OUT_CHANNELS) == ("torchvision/resnet18", 256)
    wanted = project(model=Model(preset="yolact_plus_r50", backbone="torchvision/resnet18"))
    with pytest.raises(ProjectError, match=r"does not take backbone.*yolact_mobilenet_v2, yolact_r101, yolact_r50"):
        project_config(wanted, facts(), scratch=False, device="cpu")


def test_the_bridge_takes_the_values_of_the_model_section() -> None:
    given = {"encoder": "resnet18", "output_stride": 8, "loss": {"cross_entropy": 1, "dice": 0.5}}
    cfg = map_config("deeplab_v3_plus", model=given | {"class_weights": (1, 2, 3)}).MODEL.BRIDGE
    assert (cfg.ENCODER, cfg.OUTPUT_STRIDE) == ("resnet18", 8)
    assert cfg.LOSS == [["cross_entropy", 1.0], ["dice", 0.5]] and cfg.CLASS_WEIGHTS == [1.0, 2.0, 3.0]
    assert map_config("unet_2015", model={"padding": "valid"}).MODEL.BRIDGE.PADDING == "valid"


def test_balanced_weights_are_the_median_frequency_over_each_class_own() -> None:
    cfg = map_config("unet", model={"class_weights": "balanced"}, facts={"class_pixels": (400, 100, 200)})
    assert list(cfg.MODEL.BRIDGE.CLASS_WEIGHTS) == pytest.approx([0.5, 2.0, 1.0])


def test_norms_of_a_bridge_encoder_learn_unless_they_are_to_be_frozen() -> None:
    assert map_config("unet").MODEL.FEATURES.NORM == "trainable"
    assert map_config("unet", model={"norm": "frozen"}).MODEL.FEATURES.NORM == "frozen"


def test_many_channels_bring_their_own_scaling() -> None:
    facts_of_rasters = {"channels": 5, "pixel_mean": (1, 2, 3, 4, 5), "pixel_std": (0.5, 1, 1, 1, 2)}
    cfg = map_config("unet", facts=facts_of_rasters)
    assert cfg.MODEL.PIXEL_MEAN == [1.0, 2.0, 3.0, 4.0, 5.0] and cfg.MODEL.PIXEL_STD == [0.5, 1.0, 1.0, 1.0, 2.0]
    with pytest.raises(ProjectError, match=r"'semantic_fpn_r50' needs images with 3 channels; found 5 channels.*unet"):
        map_config("semantic_fpn_r50", facts=facts_of_rasters)


def test_images_of_their_own_size_in_patches() -> None:
    rasters = Data(root=Path(), format="label_images", label_images=LabelImages(stack=("a*", "b*"), nodata=-1.0))
    train = Train(image_size="original", patch_size=96, patch_balance=0.25, augment="overhead")
    cfg = map_config("semantic_fpn_r50", data=rasters, train=train)
    assert cfg.INPUT.ORIGINAL_SIZE and cfg.INPUT.MIN_SIZE_TRAIN == (0, 0) and cfg.INPUT.MAX_SIZE_TEST == 0
    assert (cfg.INPUT.PATCH_PX, cfg.INPUT.PATCH_BALANCE, cfg.INPUT.AUGMENT) == (96, 0.25, "overhead")
    assert cfg.INPUT.RASTER == {"STACK": ["a*", "b*"], "CHANNELS": [], "NODATA": [-1.0]}


@pytest.mark.parametrize(
    ("train", "data_format", "window_px"),
    [
        (Train(image_size="original", patch_size=96), "label_images", 512),
        (Train(image_size="original", patch_size=1024), "label_images", 1024),
        (Train(image_size="original"), "label_images", 512),
        (Train(image_size="original", patch_size=96), "labelme", 512),
        (Train(image_size=128, patch_size=96), "label_images", 0),
    ],
)
def test_images_of_their_own_size_are_predicted_in_windows(
    train: Train, data_format: Literal["label_images", "labelme"], window_px: int
) -> None:
    data = Data(root=Path(), format=data_format)
    assert window_px == map_config("semantic_fpn_r50", train=train, data=data).TEST.WINDOW_PX


def test_panoptic_deeplab_predicts_no_windows() -> None:
    """Panoptic FPN does, where images keep their size."""
    train = Train(image_size="original", patch_size=96)
    assert map_config("panoptic_fpn_mobilenet_v2", train=train).TEST.WINDOW_PX == 512
    with pytest.raises(ProjectError) as error:
        map_config("panoptic_deeplab_r50", train=train)
    assert error.value.one_line() == (
        "train.image_size: original: Panoptic-DeepLab does not predict in windows of an image; found model.preset: "
        "panoptic_deeplab_r50; expected one of panoptic_fpn_mobilenet_v2, panoptic_fpn_r101, panoptic_fpn_r50, "
        "panoptic_pointrend_r50. Set one of these, or the short side of the images in pixels."
    )
    with pytest.raises(ProjectError, match=r"TEST.WINDOW_PX: .*or remove the key"):
        map_config("panoptic_deeplab_r50", detectron2={"TEST.WINDOW_PX": 512})


@pytest.mark.parametrize(("patch_size", "window_px"), [(256, 256), (1024, 1024), (None, 512)])
def test_the_windows_of_lightnet_are_as_large_as_its_patches(patch_size: int | None, window_px: int) -> None:
    data = Data(root=Path(), format="label_images")
    train = Train(image_size="original", patch_size=patch_size)
    assert window_px == map_config("lightnet_shufflenet_v2", train=train, data=data).TEST.WINDOW_PX


@pytest.mark.parametrize("preset", ["semantic_fpn_mobilenet_v2", "panoptic_deeplab_r50", "unet"])
def test_a_written_config_is_read_back(preset: str, tmp_path: Path) -> None:
    cfg = map_config(preset)
    (tmp_path / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    assert json.dumps(flatten(read_config(tmp_path / "config.yaml"))) == json.dumps(flatten(cfg))


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        del place[last]
        return content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("MODEL"), "MODEL.META_ARCHITECTURE: the run's config lacks a key"),
        (_without("MODEL.ROI_HEADS.NUM_CLASSES"), "MODEL.ROI_HEADS.NUM_CLASSES: the run's config lacks a key"),
        (_without("INPUT"), "INPUT.FORMAT: the run's config lacks a key"),
        (lambda content: content | {"MODEL": 3}, "config cannot be read"),
        (lambda content: content | {"MODEL": None}, "config cannot be read|lacks a key"),
        (lambda content: content | {"INPUT": {"FORMAT": ["RGB"]}}, "config cannot be read"),
        (lambda content: content | {"NEW": {"KEY": 3}}, "config cannot be read.*NEW"),
        (lambda content: ["MODEL"], "config is not a mapping; found list"),
        (lambda content: "MODEL", "config is not a mapping; found str"),
        (lambda content: None, "config is not a mapping; found NoneType"),
    ],
)
def test_a_damaged_config_is_refused_in_a_line(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "detectron2.yaml"
    path.write_text(yaml.safe_dump(change(yaml.safe_load(map_config("unet").dump()))), encoding="utf-8")
    with pytest.raises(RunError, match=f"detectron2.yaml.*({message})") as caught:
        read_config(path)
    assert len(caught.value.one_line()) < 400


def test_the_line_of_bad_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "detectron2.yaml"
    path.write_text("MODEL:\n  DEVICE: cpu\n  WEIGHTS: [a\nINPUT: 3\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"detectron2\.yaml: line 4, column 6: the run's config is not valid YAML: "):
        read_config(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.BACKBONE.NAME", "nope", "found 'nope'"),
        ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbon", "Did you mean 'build_resnet_fpn_backbone'"),
        ("MODEL.ROI_HEADS.NAME", "StandardRoiHead", "Did you mean 'StandardROIHeads'"),
        ("MODEL.ROI_MASK_HEAD.NAME", "PointRendMask", "Did you mean 'PointRendMaskHead'"),
        ("MODEL.RPN.HEAD_NAME", "StandardRPN", "Did you mean 'StandardRPNHead'"),
        ("MODEL.FPN.NORM", "GroupNorm", "expected '', 'BN', 'SyncBN', 'FrozenBN', 'GN'"),
        ("MODEL.RESNETS.DEPTH", 77, "found 77; expected 18, 34, 50, 101, 152"),
        ("SOLVER.LR_SCHEDULER_NAME", "cosine", "expected 'WarmupCosineLR', 'WarmupMultiStepLR'"),
        ("SOLVER.OPTIMIZER", "adam", "expected 'SGD', 'ADAMW'. Did you mean 'ADAMW'"),
        ("INPUT.MASK_FORMAT", "bitmaps", "Did you mean 'bitmask'"),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "iou", "'giou'"),
    ],
)
def test_components_that_do_not_exist_are_refused_with_the_nearest(key: str, value: object, message: str) -> None:
    model = Model(preset="pointrend_mobilenet_v2_fpn")
    with pytest.raises(ProjectError, match=f"{key}: the value is unknown") as caught:
        project_config(project(model=model, detectron2={key: value}), facts(), scratch=True, device="cpu")
    assert message in caught.value.one_line()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.RPN.IN_FEATURES", ["p9"]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]]),
        ("MODEL.FPN.OUT_CHANNELS", -1),
    ],
)
def test_a_model_that_cannot_be_built_is_a_line(key: str, value: object) -> None:
    model = Model(preset="pointrend_mobilenet_v2_fpn")
    cfg = project_config(project(model=model, detectron2={key: value}), facts(), scratch=True, device="cpu")
    with pytest.raises(ProjectError, match=r"detectron2: Detectron2 cannot build the model: .*Correct the raw keys"):
        build_model(cfg)
