"""Detectron2's semantic and panoptic models: training, shapes of predictions, and checkpoints."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.modeling import build_model as build_detectron2_model
from detectron2.projects.panoptic_deeplab.target_generator import PanopticDeepLabTargetGenerator
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.data.panoptic_mapper import center_targets
from d2tune.modeling import checkpoint
from d2tune.modeling.build import ChosenWeights, build_model
from d2tune.modeling.config import CfgNode, DataFacts, is_bridge, preset_config, preset_task, project_config
from d2tune.modeling.device import speed_up
from d2tune.modeling.panoptic import segments
from d2tune.modeling.weights import WeightsFile, read_state_dict
from d2tune.project import Data, Model, Project, Train, preset_names
from tests.cases import on_demand

SEMANTIC = ["semantic_fpn_mobilenet_v2", "pointrend_semantic_r50"]
PANOPTIC = ["panoptic_fpn_mobilenet_v2", "panoptic_fpn_r50"]
SLOW = [
    name
    for name in preset_names()
    if preset_task(name) != "instance" and not is_bridge(preset_config(name)) and "r101" not in name
]
"""Every preset of Detectron2's models as it is; the fast tests put a small backbone under some."""

FEW_BOXES = {
    "MODEL.RPN": {"POST_NMS_TOPK_TRAIN": 40, "POST_NMS_TOPK_TEST": 20},
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.FC_DIM": 64,
    "TEST.DETECTIONS_PER_IMAGE": 5,
}


def config(preset: str, *, things: int = 0, stuff: int = 4, plain: bool = False) -> CfgNode:
    """The config of a preset from scratch for that many classes; ResNets give way to MobileNetV2 unless ``plain``."""
    task = preset_task(preset)
    names = tuple(f"class{number}" for number in range(things + stuff))
    classes = {"classes": names} if task == "semantic" else {"things": names[:things], "stuff": names[things:]}
    small = not plain and "mobilenet" not in preset
    project = Project(
        name="p",
        task=task,
        data=Data(root=Path()),
        model=Model(preset=preset, backbone="torchvision/mobilenet_v2" if small else None),
        train=Train(image_size=64),
        detectron2={} if plain else FEW_BOXES,
        **classes,
    )
    facts = DataFacts(
        class_names=names,
        train_images=10,
        has_rle=False,
        train_name="t",
        val_name="v",
        thing_names=project.things,
        stuff_names=project.stuff,
    )
    return project_config(project, facts, scratch=True, device="cpu")


def model_of(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg)[0]


def image(height_px: int, width_px: int, *, seed: int = 0) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(256, size=(3, height_px, width_px), dtype=np.uint8)
    return {"image": torch.from_numpy(pixels), "height": height_px, "width": width_px}


def semantic_sample(height_px: int, width_px: int, *, classes: int, ignored: bool = False) -> dict[str, Any]:
    """Stripes of all classes and of 255, or 255 alone."""
    stripes = torch.arange(height_px).div(8, rounding_mode="floor") % (classes + 1)
    labels = torch.where(stripes == classes, 255, stripes)[:, None].repeat(1, width_px)
    return image(height_px, width_px) | {"sem_seg": torch.full_like(labels, 255) if ignored else labels}


def panoptic_sample(
    cfg: CfgNode, height_px: int, width_px: int, *, objects: int, ignored: bool = False
) -> dict[str, Any]:
    """Squares of the first thing on the first stuff; with ``ignored`` on nothing."""
    things = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    boxes = torch.tensor([[4.0 + 20 * at, 6, 20 + 20 * at, 40] for at in range(objects)]).reshape(-1, 4)
    masks = torch.zeros(objects, height_px, width_px, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    sample = image(height_px, width_px)
    generator: PanopticDeepLabTargetGenerator | None = center_targets(cfg)
    if generator is not None:
        ids = (masks.numpy() * np.arange(2, objects + 2)[:, None, None]).sum(0) + (0 if ignored else 1) * (
            ~masks.any(0).numpy()
        )
        infos = [{"id": at + 2, "category_id": 0, "iscrowd": 0} for at in range(objects)]
        targets = generator(ids, [*infos, {"id": 1, "category_id": things, "iscrowd": 0}])
        return sample | targets
    instances = Instances((height_px, width_px))
    instances.gt_classes = torch.zeros(objects, dtype=torch.int64)
    instances.gt_boxes = Boxes(boxes)
    corners = [[np.array([x0, y0, x1, y0, x1, y1, x0, y1], float)] for x0, y0, x1, y1 in boxes.tolist()]
    instances.gt_masks = BitMasks(masks) if cfg.INPUT.MASK_FORMAT == "bitmask" else PolygonMasks(corners)
    labels = torch.full((height_px, width_px), 255 if ignored else 1)
    labels[masks.any(0)] = 0
    return sample | {"instances": instances, "sem_seg": labels}


def step(model: nn.Module, samples: list[dict[str, Any]]) -> dict[str, float]:
    """One step of SGD; every parameter that learns must get a finite gradient."""
    model.train()
    with EventStorage():
        losses = model(samples)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


@torch.no_grad()
def answer(model: nn.Module, *samples: dict[str, Any]) -> list[dict[str, Any]]:
    return model.eval()([{key: sample[key] for key in ("image", "height", "width")} for sample in samples])


def check_semantic(cfg: CfgNode, *, classes: int) -> None:
    model = model_of(cfg)
    samples = [semantic_sample(64, 91, classes=classes), semantic_sample(77, 65, classes=classes)]
    losses = step(model, samples)
    assert all(np.isfinite(list(losses.values())))
    resized = image(65, 71) | {"height": 131, "width": 140}
    first, second = answer(model, resized, image(64, 96))
    assert first["sem_seg"].shape == (classes, 131, 140) and second["sem_seg"].shape == (classes, 64, 96)
    assert torch.allclose(first["sem_seg"].sum(0), torch.ones(131, 140), atol=1e-4)


def check_panoptic(cfg: CfgNode, *, things: int, stuff: int) -> None:
    model = model_of(cfg)
    losses = step(model, [panoptic_sample(cfg, 64, 91, objects=2), panoptic_sample(cfg, 77, 65, objects=1)])
    assert all(np.isfinite(list(losses.values())))
    (output,) = answer(model, image(65, 71) | {"height": 131, "width": 140})
    channels = stuff + 1 if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN" else things + stuff
    assert output["sem_seg"].shape == (channels, 131, 140)
    assert output["instances"].image_size == (131, 140)
    assert output["instances"].pred_masks.shape[1:] == (131, 140)
    ids, listed = segments(output, things=things, stuff=stuff)
    assert ids.shape == (131, 140)
    assert {info["id"] for info in listed} == set(np.unique(ids).tolist()) - {0}
    assert all(0 <= info["category_id"] < things + stuff for info in listed)


@pytest.mark.parametrize("classes", on_demand([1, 2, 20], 1))
@pytest.mark.parametrize("preset", SEMANTIC)
def test_semantic_models_of_any_number_of_classes(preset: str, classes: int) -> None:
    check_semantic(config(preset, stuff=classes), classes=classes)


@pytest.mark.parametrize(("things", "stuff"), on_demand([(1, 1), (3, 17)], (3, 17)))
@pytest.mark.parametrize("preset", PANOPTIC)
def test_panoptic_models_of_any_number_of_classes(preset: str, things: int, stuff: int) -> None:
    check_panoptic(config(preset, things=things, stuff=stuff), things=things, stuff=stuff)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [SLOW[0], *(pytest.param(name, marks=pytest.mark.extended) for name in SLOW[1:])])
def test_every_preset_as_it_is(preset: str) -> None:
    if preset_task(preset) == "semantic":
        check_semantic(config(preset, stuff=5, plain=True), classes=5)
    else:
        check_panoptic(config(preset, things=2, stuff=3, plain=True), things=2, stuff=3)


@pytest.mark.slow
@pytest.mark.parametrize("classes", on_demand([1, 20], 20))
def test_deeplab_of_any_number_of_classes(classes: int) -> None:
    check_semantic(config("deeplab_v3_plus_r50", stuff=classes, plain=True), classes=classes)


@pytest.mark.parametrize("preset", SEMANTIC)
def test_a_batch_without_labeled_pixels_changes_nothing(preset: str) -> None:
    model = model_of(config(preset))
    losses = step(model, [semantic_sample(64, 64, classes=4, ignored=True)])
    assert set(losses.values()) == {0.0}


def test_an_image_with_hardly_a_labeled_pixel() -> None:
    """PointRend samples 2048 points, and possibly none of them is labeled."""
    sample = semantic_sample(256, 256, classes=4, ignored=True)
    sample["sem_seg"][3, 3] = 1
    assert all(np.isfinite(list(step(model_of(config("pointrend_semantic_r50")), [sample]).values())))


@pytest.mark.parametrize("objects", [0, 2])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("preset", on_demand(PANOPTIC, "panoptic_fpn_mobilenet_v2"))
def test_images_without_objects_or_without_stuff(preset: str, objects: int, ignored: bool) -> None:
    cfg = config(preset, things=2, stuff=2)
    losses = step(model_of(cfg), [panoptic_sample(cfg, 64, 80, objects=objects, ignored=ignored)])
    assert all(np.isfinite(list(losses.values())))
    if ignored and not objects:
        assert losses["loss_sem_seg"] == 0
    if not objects:
        assert losses["loss_mask"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("objects", "ignored"), on_demand([(0, False), (0, True), (2, True)], (0, True)))
def test_panoptic_deeplab_without_objects_or_without_stuff(objects: int, ignored: bool) -> None:
    cfg = config("panoptic_deeplab_r50", things=2, stuff=2, plain=True)
    losses = step(model_of(cfg), [panoptic_sample(cfg, 64, 80, objects=objects, ignored=ignored)])
    assert all(np.isfinite(list(losses.values())))
    assert (losses["loss_offset"] == 0) == (objects == 0)


def test_images_with_gaps_are_as_if_the_gaps_had_the_mean() -> None:
    model = model_of(config("semantic_fpn_mobilenet_v2"))
    gaps = image(64, 64)["image"].float()
    filled = gaps.clone()
    gaps[:, 10:30, 5:50] = torch.nan
    filled[:, 10:30, 5:50] = model.pixel_mean
    with_gaps, with_mean = answer(
        model, {"image": gaps, "height": 64, "width": 64}, {"image": filled, "height": 64, "width": 64}
    )
    assert with_gaps["sem_seg"].isfinite().all()
    assert torch.allclose(with_gaps["sem_seg"], with_mean["sem_seg"], atol=1e-6)


@pytest.mark.parametrize("preset", ["semantic_fpn_mobilenet_v2", "panoptic_fpn_mobilenet_v2"])
def test_a_checkpoint_brings_the_same_answers_back(preset: str, tmp_path: Path) -> None:
    cfg = config(preset, things=2, stuff=2)
    model, restored = model_of(cfg), build_model(cfg)[0]
    checkpoint.save(tmp_path / "c.pth", {"model": checkpoint.plain_state(model)})
    checkpoint.load_weights(restored, tmp_path / "c.pth")
    sample = image(66, 70)
    (first,), (again,), (loaded,) = answer(model, sample), answer(model, sample), answer(restored, sample)
    assert torch.equal(first["sem_seg"], again["sem_seg"])
    assert torch.equal(first["sem_seg"], loaded["sem_seg"])


@pytest.mark.slow
@pytest.mark.parametrize("preset", on_demand([*SEMANTIC, "panoptic_fpn_mobilenet_v2"], "panoptic_fpn_mobilenet_v2"))
def test_bfloat16_answers_about_the_same_in_float32(preset: str) -> None:
    cfg = config(preset, things=2, stuff=2)
    sample = image(64, 96)
    exact = answer(model_of(cfg), sample)[0]["sem_seg"].softmax(0)
    fast_model = speed_up(model_of(cfg), device="cpu", precision="bfloat16")
    fast = answer(fast_model, sample)[0]["sem_seg"]
    assert fast.dtype == torch.float32
    assert float((fast.softmax(0) - exact).abs().mean()) < 0.05
    samples = (
        [panoptic_sample(cfg, 64, 91, objects=1)] if "panoptic" in preset else [semantic_sample(64, 91, classes=4)]
    )
    assert all(np.isfinite(list(step(fast_model, samples).values())))


class TestPanopticDeepLab:
    """Its grouping, with heads that answer what the test draws."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> nn.Module:
        return model_of(config("panoptic_deeplab_r50", things=2, stuff=1, plain=True)).eval()

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [(96, 128), (192, 256), (240, 200)], ids=["input", "twice", "another"])
    def test_two_objects_on_stuff_in_the_size_of_the_image(self, model: nn.Module, size: tuple[int, int]) -> None:
        label_map = np.full((96, 128), 1)
        label_map[20:60, 10:50], label_map[30:80, 70:120] = 2, 3
        infos = [{"id": 1, "category_id": 2}, {"id": 2, "category_id": 0}, {"id": 3, "category_id": 1}]
        targets = PanopticDeepLabTargetGenerator(255, {0, 1}, sigma=8, ignore_stuff_in_offset=True)(
            label_map, [info | {"iscrowd": 0} for info in infos]
        )
        scores = nn.functional.one_hot(targets["sem_seg"], 3).permute(2, 0, 1)[None].float() * 9
        model.sem_seg_head.forward = lambda *_: (scores, {})
        model.ins_embed_head.forward = lambda *_: (targets["center"][None, None], targets["offset"][None], {}, {})
        (output,) = answer(model, image(96, 128) | {"height": size[0], "width": size[1]})
        ids, listed = segments(output, things=2, stuff=1)
        assert ids.shape == size
        assert sorted(info["category_id"] for info in listed) == [0, 1, 2]
        class_of = {info["id"]: info["category_id"] for info in listed}
        at = [(rows * size[0] // 96, columns * size[1] // 128) for rows, columns in [(40, 30), (50, 100), (5, 5)]]
        assert [class_of[int(ids[place])] for place in at] == [0, 1, 2]
        objects = output["instances"]
        assert sorted(objects.pred_classes.tolist()) == [0, 1]
        for box, mask, kind in zip(
            objects.pred_boxes.tensor, objects.pred_masks, objects.pred_classes.tolist(), strict=True
        ):
            left, top, right, bottom = [(10, 20, 50, 60), (70, 30, 120, 80)][kind]
            expected = np.array([left, top, right, bottom]) * np.tile([size[1] / 128, size[0] / 96], 2)
            assert np.abs(box.numpy() - expected).max() < 1
            assert float(mask.sum()) == pytest.approx((expected[2:] - expected[:2]).prod(), rel=0.05)


class TestZooWeights:
    @pytest.fixture(scope="class")
    @staticmethod
    def file(tmp_path_factory: pytest.TempPathFactory) -> WeightsFile:
        """What the zoo has for Panoptic FPN: COCO's 80 things and 53 stuff, as arrays in a pickle."""
        cfg = model_zoo.get_config("COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml")
        cfg.MODEL.DEVICE = "cpu"
        state = {key: value.numpy() for key, value in build_detectron2_model(cfg).state_dict().items()}
        assert state["roi_heads.box_predictor.cls_score.weight"].shape[0] == 81
        assert state["sem_seg_head.predictor.weight"].shape[0] == 54
        path = tmp_path_factory.mktemp("zoo") / "model_final.pkl"
        path.write_bytes(pickle.dumps({"model": state, "__author__": "Detectron2 Model Zoo"}))
        return WeightsFile("zoo", path, "0" * 64)

    @pytest.mark.slow
    def test_panoptic_fpn_leaves_out_what_depends_on_the_classes(self, file: WeightsFile) -> None:
        state = read_state_dict(file.path)
        model, report = build_model(
            config("panoptic_fpn_r50", things=2, stuff=3, plain=True), ChosenWeights(file, "zoo"), state
        )
        assert report is not None
        left = {row.component: row for row in report.rows if row.loaded < row.total and row.component != "FPN"}
        assert set(left) == {"roi_heads.box_predictor", "roi_heads.mask_head", "sem_seg_head"}
        assert left["sem_seg_head"].why.startswith("2 of another shape ([54, 128, 1, 1] in the file, [4, 128, 1, 1]")
        assert left["roi_heads.box_predictor"].why.startswith("4 of another shape ([81, 1024]")
        head = model.state_dict()["sem_seg_head.p2.0.weight"]
        assert torch.equal(head, state["sem_seg_head.p2.0.weight"])

    @pytest.mark.slow
    def test_semantic_fpn_starts_from_the_panoptic_ones(self, file: WeightsFile) -> None:
        state = read_state_dict(file.path)
        _, report = build_model(config("semantic_fpn_r50", stuff=3, plain=True), ChosenWeights(file, "zoo"), state)
        assert report is not None and report.unused > 0
        rows = {row.component: row for row in report.rows}
        assert rows["backbone"].loaded == rows["backbone"].total
        assert rows["sem_seg_head"].total - rows["sem_seg_head"].loaded == 2
