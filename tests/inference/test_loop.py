"""The loop gives the results of Detectron2's own loop for any batch size and any model of Detectron2."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_utils
from torch import nn

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.data.catalog import register
from d2tune.data.image_reader import ImageReader
from d2tune.errors import DataError
from d2tune.evaluation.instance import InstanceEvaluator
from d2tune.inference import loop
from d2tune.inference.images import InputSize, PredictionSamples
from d2tune.inference.loop import LOOKAHEAD, stream
from d2tune.inference.predictors.instance import InstancePredictor, detections_of, forward_detections
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.project import Data, Model, Project
from d2tune.timing import StageTimes
from tests.shared_files import SHARED


@pytest.fixture(scope="module")
def photos() -> Dataset:
    """Six balloon photos of four sizes."""
    whole = read_dataset(SHARED / "data" / "balloon" / "val", options=ReadOptions(class_name="balloon"))
    return whole.subset([image.id for image in whole.images][:6])


@pytest.fixture(scope="module")
def model_and_config() -> tuple[nn.Module, CfgNode]:
    """A PointRend model with random weights, which detects the largest number of objects on every photo."""
    facts = DataFacts(class_names=("balloon",), train_images=9, has_rle=True, train_name="t", val_name="v")
    project = Project(name="p", data=Data(root=Path()), model=Model(preset="pointrend_mobilenet_v2_fpn"))
    cfg = project_config(project, facts, scratch=True, device="cpu").clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 96, 160
    cfg.TEST.DETECTIONS_PER_IMAGE = 20
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(3)
    model, _ = build_model(cfg)
    return model.eval(), cfg


def predict_dataset(model: Any, photos: Dataset, cfg: CfgNode, **options: Any) -> list[dict[str, Any]]:
    predictor = InstancePredictor(model, cfg, class_names=["balloon"], reader=ImageReader(3, cfg.INPUT.FORMAT))
    predictions = InstanceEvaluator(photos).predict(predictor, **options)
    return [row for rows in predictions for row in rows]


def run(
    model: Any, samples: Any, category_ids: Sequence[int], *, on_image: Any = None, **options: Any
) -> list[list[dict[str, Any]]]:
    """COCO results of each sample."""
    names = [str(category_id) for category_id in category_ids]

    def finish(index: int, sample: dict[str, Any], raw: Any) -> list[dict[str, Any]]:
        rows = detections_of(raw, sample, names).to_coco(sample["image_id"], category_ids=category_ids)
        if on_image is not None:
            on_image(index, rows)
        return rows

    return list(stream(model, samples, forward_detections, finish, **options))


def masks(results: Sequence[dict[str, Any]]) -> np.ndarray[Any, Any]:
    rles = [{**row["segmentation"], "counts": row["segmentation"]["counts"].encode()} for row in results]
    return np.stack([mask_utils.decode(rle) for rle in rles])


@pytest.mark.slow
def test_the_results_of_detectron2s_own_loop(photos: Dataset, model_and_config: Any, tmp_path: Path) -> None:
    model, cfg = model_and_config
    name = register(photos, project="loop", split="val")
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path), use_fast_impl=False)
    samples = samples_of(photos, cfg)
    evaluator.reset()
    batches = [[samples[index] | {"image_id": image.id}] for index, image in enumerate(photos.images)]
    inference_on_dataset(model, batches, evaluator)
    expected = torch.load(tmp_path / "instances_predictions.pth", weights_only=False)
    ours = predict_dataset(model, photos, cfg)
    for entry in expected:
        mine = [row for row in ours if row["image_id"] == entry["image_id"]]
        theirs = sorted(entry["instances"], key=lambda row: -row["score"])
        assert len(mine) == len(theirs) == 20
        assert [row["score"] for row in mine] == pytest.approx([row["score"] for row in theirs], abs=1e-6)
        boxes = np.array([row["bbox"] for row in mine]), np.array([row["bbox"] for row in theirs])
        assert np.abs(boxes[0] - boxes[1]).max() < 2e-3
        different = masks(mine) != masks(theirs)
        # the masks of an untrained model lie so near to 0.5 that the last bit of a float decides on a few pixels
        assert different.sum(axis=(1, 2)).max() <= 5
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def samples_of(photos: Dataset, cfg: CfgNode) -> PredictionSamples:
    size = InputSize(short_side_px=cfg.INPUT.MIN_SIZE_TEST, max_side_px=cfg.INPUT.MAX_SIZE_TEST)
    return PredictionSamples(photos.images, reader=ImageReader(3, cfg.INPUT.FORMAT), size=size)


@pytest.mark.slow
def test_the_batch_size_changes_no_result(photos: Dataset, model_and_config: Any) -> None:
    model, cfg = model_and_config
    single, batched = (predict_dataset(model, photos, cfg, batch_size=size) for size in (1, 4))
    assert [row["image_id"] for row in single] == [row["image_id"] for row in batched]
    assert [row["image_id"] for row in single] == sorted(row["image_id"] for row in single)
    assert [row["score"] for row in single] == pytest.approx([row["score"] for row in batched], abs=1e-4)


@pytest.mark.slow
def test_the_size_of_a_sample_is_available_without_loading_it(photos: Dataset, model_and_config: Any) -> None:
    samples = samples_of(photos, model_and_config[1])
    for index in range(len(samples)):
        assert samples.input_size(index) == tuple(samples[index]["image"].shape[1:])


class Images:
    """Samples of given sizes that note when they are loaded."""

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self.sizes = sizes
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.sizes)

    def input_size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.loaded.append(index)
        height, width = self.sizes[index]
        image = torch.full((3, height, width), index % 256, dtype=torch.uint8)
        return {"image": image, "height": height, "width": width, "image_id": index + 1}


class WholeMasks:
    """A model that is not an nn.Module: a box with a mask on the whole image, its score by the image."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append([int(sample["image"][0, 0, 0]) for sample in batch])
        self.threads.add(threading.get_ident())
        return [{"instances": self._detected(sample)} for sample in batch]

    def _detected(self, sample: dict[str, Any]) -> Instances:
        height, width = sample["height"], sample["width"]
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(torch.tensor([[1.0, 2.0, 5.0, 8.0], [3.0, 3.0, 3.0, 9.0]]))
        instances.scores = torch.tensor([0.25, 0.5])
        instances.pred_classes = torch.tensor([1, 0])
        instances.pred_masks = torch.zeros(2, height, width, dtype=torch.bool)
        instances.pred_masks[0, 2:8, 1:5] = True
        return instances


def test_any_model_in_batches_of_one_size_with_results_in_order() -> None:
    model, images = WholeMasks(), Images([(10, 12), (20, 12), (10, 12), (10, 12), (20, 12)])
    times = StageTimes()
    results = run(model, images, [7, 9], batch_size=2, times=times, show_progress=False)
    assert model.batches == [[0, 2], [3], [1, 4]]
    assert model.threads == {threading.get_ident()}
    assert [[row["image_id"] for row in rows] for rows in results] == [[1], [2], [3], [4], [5]]
    (only,) = results[1]
    assert only["category_id"] == 9 and only["bbox"] == [1.0, 2.0, 4.0, 6.0] and only["score"] == 0.25
    mask = masks([only])[0]
    assert mask.shape == (20, 12) and mask[2:8, 1:5].all() and mask.sum() == 24
    assert times.total_s > 0 and set(times.to_json()) == {
        "load_s",
        "forward_s",
        "postprocess_s",
        "score_s",
        "total_s",
    }


@pytest.mark.parametrize(("size", "images"), [((384, 512), 4), ((544, 832), 2), ((800, 1088), 1), ((1344, 1344), 1)])
def test_large_images_share_a_batch_with_few_on_the_cpu(size: tuple[int, int], images: int) -> None:
    model = WholeMasks()
    run(model, Images([size] * 4), [1, 2], show_progress=False)
    assert [len(batch) for batch in model.batches] == [images] * (4 // images)


def test_images_are_loaded_ahead_but_not_all_at_once() -> None:
    images = Images([(8, 8)] * 40)
    seen: list[int] = []

    def model(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        time.sleep(0.01)
        seen.append(len(images.loaded))
        return WholeMasks()(batch)

    run(model, images, [1, 2], batch_size=4, show_progress=False)
    assert seen[0] >= 4 and seen == sorted(seen) and seen[-1] == 40
    assert all(loaded <= 4 * (number + 2) for number, loaded in enumerate(seen))


@pytest.mark.parametrize("where", ["load", "model", "on_image"])
def test_an_error_in_any_thread_reaches_the_caller(where: str) -> None:
    class Broken(Images):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if where == "load" and index == 3:
                raise ValueError("no such image")
            return super().__getitem__(index)

    def model(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if where == "model":
            raise ValueError("no such layer")
        return WholeMasks()(batch)

    def on_image(index: int, results: list[dict[str, Any]]) -> None:
        if where == "on_image" and index == 2:
            raise ValueError("no such image")

    what = {"load": "image", "model": "layer", "on_image": "image"}[where]
    with pytest.raises(ValueError, match=f"no such {what}"):
        run(model, Broken([(8, 8)] * 6), [1, 2], batch_size=1, on_image=on_image, show_progress=False)
    assert threading.active_count() < 20


def test_no_images_and_no_detections() -> None:
    assert run(WholeMasks(), Images([]), [1, 2], show_progress=False) == []
    empty = lambda batch: [{"instances": WholeMasks()._detected(batch[0])[[False, False]]}]  # noqa: E731
    assert run(empty, Images([(9, 9)]), [1, 2], show_progress=False) == [[]]


def test_a_model_keeps_its_mode(model_and_config: Any, photos: Dataset) -> None:
    model, _ = model_and_config
    model.train()
    with loop.inference_mode(model):
        assert not model.training
        with loop.inference_mode(model):
            assert not model.training
        assert not model.training, "the outer context lasts"
    assert model.training
    model.eval()


def test_a_model_that_is_kept_until_python_ends_leaves_no_message() -> None:
    code = """
import os
import sys
from torch import nn
from d2tune.inference.loop import inference_mode
context = inference_mode(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
context.__enter__()
os.kept = context, [*sys.modules.values()]  # of modules, those that were imported last are cleared first
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_gradients_are_off_where_the_network_is_called() -> None:
    enabled: list[bool] = []

    def model(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        enabled.append(torch.is_grad_enabled())
        return WholeMasks()(batch)

    for _ in stream(model, Images([(8, 8)] * 3), forward_detections, lambda *_: 0, batch_size=1, show_progress=False):
        assert torch.is_grad_enabled(), "the caller's own setting stays"
    assert enabled == [False, False, False]


def test_results_come_while_later_images_wait() -> None:
    images = Images([(8, 8)] * (5 * LOOKAHEAD))
    came = 0
    for _ in stream(WholeMasks(), images, forward_detections, lambda *_: 0, batch_size=8, show_progress=False):
        came += 1
        assert len(images.loaded) <= came + 3 * LOOKAHEAD
    assert came == 5 * LOOKAHEAD


def test_an_image_that_cannot_be_read_gives_its_error_in_its_place() -> None:
    class Torn(Images):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index in (0, 3):
                raise DataError("the image cannot be read", file=f"{index}.png")
            return super().__getitem__(index)

    results = run(WholeMasks(), Torn([(8, 8)] * 5), [1, 2], batch_size=2, show_progress=False)
    assert [isinstance(result, DataError) for result in results] == [True, False, False, True, False]
    assert results[3].file == "3.png"
