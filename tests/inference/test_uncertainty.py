"""How unsure a model is of an image: values computed by hand, and those of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.modeling import GeneralizedRCNN
from numpy.typing import NDArray
from PIL import Image as PilImage

from d2tune.annotations.model.options import RasterOptions
from d2tune.data.image_reader import ImageReader
from d2tune.errors import DataError
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.predictors.panoptic import PanopticPredictor
from d2tune.inference.predictors.semantic import SemanticPredictor
from d2tune.inference.uncertainty import (
    DetectionUncertainty,
    PixelUncertainty,
    Uncertainty,
    doubt,
    most_uncertain,
    ranked,
    uncertainty_of_detections,
)
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, default_config, project_config
from d2tune.project import Data, Project

BOX = (10.0, 10.0, 30.0, 30.0)
FAR = (60.0, 60.0, 90.0, 90.0)


def of(
    *detections: tuple[tuple[float, float, float, float], float, int],
    thresholds: Sequence[float] = (0.5, 0.5),
    share_with_objects: float = 1.0,
) -> Uncertainty:
    """The uncertainty of detections: box, score and class each."""
    boxes = np.array([box for box, _, _ in detections]).reshape(-1, 4)
    return uncertainty_of_detections(
        boxes,
        [score for _, score, _ in detections],
        [class_id for _, _, class_id in detections],
        class_names=["kite", "balloon"],
        thresholds=thresholds,
        share_with_objects=share_with_objects,
    )


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (0.5, 0.5, 1.0),
        (0.25, 0.5, 0.5),
        (0.75, 0.5, 0.5),
        (0.0, 0.5, 0.0),
        (1.0, 0.5, 0.0),
        (0.6, 0.2, 0.5),  # (1 - 0.6) / (1 - 0.2)
        (0.1, 0.2, 0.5),
        (0.3, 0.0, 0.7),
        (1.0, 1.0, 1.0),
        (0.5, 1.0, 0.5),
    ],
)
def test_doubt_about_a_score(score: float, threshold: float, expected: float) -> None:
    assert doubt(score, threshold) == pytest.approx(expected)


def test_the_doubts_about_the_detections_are_halved_again_and_again() -> None:
    # doubts 0.8, 0.4 and 0.2: 0.4 + 0.1 + 0.025
    three = of((BOX, 0.6, 0), (FAR, 0.9, 0), ((0, 0, 5, 5), 0.2, 0))
    assert three.value == pytest.approx(0.525)
    assert three.reason == "1 detection near the threshold"
    assert of((BOX, 0.98, 0)) == Uncertainty(pytest.approx(0.02), "all detections are far from the threshold")


def test_a_crowded_image_has_at_most_twice_the_value_of_one_with_an_object() -> None:
    alone = of((BOX, 0.5, 0)).value
    crowd = of(*[((20.0 * at, 0.0, 20.0 * at + 10, 10.0), 0.5, 0) for at in range(40)])
    assert alone == pytest.approx(0.5) and crowd.value == pytest.approx(1.0)
    assert crowd.value <= 2 * alone
    assert crowd.reason == "40 detections near the threshold"


def test_two_classes_at_one_place_are_one_object_that_is_doubtful_between_them() -> None:
    # own doubt (1 - 0.8) / 0.8 = 0.25 at the threshold 0.2, between the classes 0.6 / 0.8 = 0.75
    both = of((BOX, 0.8, 1), (BOX, 0.6, 0), thresholds=(0.2, 0.2))
    assert both.value == pytest.approx(0.375)
    assert both.reason == "1 detection between balloon and kite"
    # at another place they are two objects: doubts (1 - 0.6) / 0.8 = 0.5 and 0.25
    apart = of((BOX, 0.8, 1), (FAR, 0.6, 0), thresholds=(0.2, 0.2))
    assert apart.value == pytest.approx(0.25 + 0.0625)
    # an IoU of 20 * 9 / (2 * 400 - 180) = 0.29 is another place
    moved = of((BOX, 0.8, 1), ((10.0, 21.0, 30.0, 41.0), 0.6, 0), thresholds=(0.2, 0.2))
    assert moved.value == apart.value
    # two detections of one class are two objects
    assert of((BOX, 0.8, 1), (BOX, 0.6, 1), thresholds=(0.2, 0.2)).value == apart.value


def test_classes_below_the_threshold_are_not_compared() -> None:
    # junk of two classes with nearly equal scores: its doubt is 0.06 / 0.5 = 0.12 beside that of 0.9, 0.2
    junk = of((FAR, 0.9, 0), (BOX, 0.06, 1), (BOX, 0.055, 0))
    assert junk.value == pytest.approx(0.1 + 0.03)


def test_an_image_without_detections_is_as_doubtful_as_objects_are_likely() -> None:
    assert of() == Uncertainty(0.5, "no detection")
    assert of(share_with_objects=0.1) == Uncertainty(0.05, "no detection")
    assert of((BOX, 0.12, 0)) == Uncertainty(0.5, "no detection, best score 0.12")
    # doubts 0.9, 0.8, 0.7: 0.45 + 0.2 + 0.0875
    low = of((BOX, 0.45, 0), (FAR, 0.4, 0), ((0, 0, 5, 5), 0.35, 0))
    assert low.value == pytest.approx(0.7375) and low.reason == "no detection, best score 0.45"


def test_thresholds_are_those_of_the_classes() -> None:
    assert of((BOX, 0.5, 0), thresholds=(0.5, 0.9)).value == pytest.approx(0.5)
    assert of((FAR, 1.0, 0), (BOX, 0.9, 1), thresholds=(0.5, 0.9)).value == pytest.approx(0.5)


def test_images_are_ranked_in_descending_order_and_in_their_own_where_equal() -> None:
    assert ranked([0.1, 0.5, None, 0.5, 0.9, 0.0]) == [4, 1, 3, 0, 5]


def noise(path: Path, seed: int, *, brightness: int = 0) -> Path:
    small = np.random.default_rng(seed).integers(0, 200, (12, 16, 3)).astype(np.uint8)
    PilImage.fromarray(cv2.resize(small, (160, 120)) + np.uint8(brightness)).save(path)
    return path


def test_near_duplicates_of_chosen_and_known_images_are_passed_over(tmp_path: Path) -> None:
    first, copy, other = (
        noise(tmp_path / name, seed, brightness=brightness)
        for name, seed, brightness in (("a.png", 1, 0), ("b.png", 1, 20), ("c.png", 2, 0))
    )
    plain = tmp_path / "plain.png"
    PilImage.new("RGB", (160, 120), "white").save(plain)  # without detail: never a near-duplicate
    paths = [first, copy, other, plain, plain]
    assert most_uncertain([0.9, 0.8, 0.7, 0.6, 0.5], paths, count=4) == ([0, 2, 3, 4], {1: first})
    assert most_uncertain([0.9, 0.8, 0.7, None, None], paths, count=1) == ([0], {})
    assert most_uncertain([0.7, 0.8, 0.9, 0.6, None], paths, count=4) == ([2, 1, 3], {0: copy})
    known = noise(tmp_path / "known.png", 2, brightness=10)
    assert most_uncertain([0.9, 0.8, 0.7, 0.6, None], paths, count=4, known=[known]) == ([0, 3], {1: first, 2: known})


# models


def probabilities(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A semantic model whose first class has the probability of the first channel."""
    return [{"sem_seg": torch.stack([sample["image"][0], 1 - sample["image"][0]])} for sample in samples]


def pixel_uncertainty(window_px: int) -> PixelUncertainty:
    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 0
    cfg.TEST.WINDOW_PX = window_px
    reader = ImageReader(2, "RGB", RasterOptions())
    return PixelUncertainty(SemanticPredictor(probabilities, cfg, class_names=["a", "b"], reader=reader), cfg)


def raster(path: Path, first: NDArray[np.float32]) -> Path:
    pixels = np.stack([first, first], axis=2)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    return path


@pytest.mark.parametrize("window_px", [0, 32])
def test_pixels_of_a_semantic_model(window_px: int, tmp_path: Path) -> None:
    first = np.full((40, 50), 0.9, np.float32)  # doubt 2 (1 - 0.9) = 0.2
    first[:, 40:] = 0.4  # doubt 2 (1 - 0.6) = 0.8, of class b
    first[:10, :] = np.nan  # no data, which does not count
    path, empty = raster(tmp_path / "a.tif", first), raster(tmp_path / "b.tif", np.full((8, 9), np.nan, np.float32))
    broken = tmp_path / "c.tif"
    broken.write_bytes(b"II*\0")
    result, nothing, error = pixel_uncertainty(window_px).scan([path, empty, broken], show_progress=False)
    assert isinstance(result, Uncertainty) and isinstance(error, DataError)
    assert result.value == pytest.approx(0.8 * 0.2 + 0.2 * 0.8, abs=1e-6)
    assert result.reason == "20.0 % of the pixels are doubtful, most of them b"
    assert nothing == Uncertainty(0.0, "no pixels with data")
    (left,) = pixel_uncertainty(window_px).scan([path, empty, broken], done={1, 2}, show_progress=False)
    assert left == result


def built(task: str, preset: str, **classes: tuple[str, ...]) -> tuple[Any, Any]:
    """A model with random weights, and its config."""
    project = Project(
        name="p", task=task, data=Data(root=Path()), model={"preset": preset}, train={"image_size": 96}, **classes
    )
    names = project.class_names
    things = project.things or names
    facts = DataFacts(
        class_names=names,
        thing_names=things,
        stuff_names=tuple(name for name in names if name not in things),
        train_images=4,
        has_rle=False,
        white=None,
        train_name="train",
        val_name="val",
    )
    cfg = project_config(project, facts, scratch=True, device="cpu", rgb_resnet=False)
    torch.manual_seed(0)
    model, _ = build_model(cfg)
    return model.eval(), cfg


def photo(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def test_boxes_of_an_instance_model_are_predicted_without_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cfg = built("instance", "pointrend_mobilenet_v2_fpn", classes=("kite", "balloon"))
    predictor = InstancePredictor(
        model, cfg, class_names=["kite", "balloon"], reader=ImageReader(3, "RGB"), min_scores=[0.3, 0.34]
    )
    images = [photo(0), photo(1)]
    everything = InstancePredictor(model, cfg, class_names=["kite", "balloon"], reader=ImageReader(3, "RGB"))
    expected = []
    for detections in everything.batch(images):
        assert len(detections) > 3
        expected.append(
            uncertainty_of_detections(
                detections.boxes_xyxy,
                detections.scores.tolist(),
                detections.class_ids.tolist(),
                class_names=detections.class_names,
                thresholds=[0.3, 0.34],
                share_with_objects=0.4,
            )
        )
    assert isinstance(model, GeneralizedRCNN)
    sizes: list[int] = []
    head = model.roi_heads.forward_with_given_boxes
    monkeypatch.setattr(
        model.roi_heads,
        "forward_with_given_boxes",
        lambda features, instances: sizes.extend(map(len, instances)) or head(features, instances),
    )
    results = list(DetectionUncertainty(predictor, cfg, share_with_objects=0.4).scan(images, show_progress=False))
    assert sizes == [0, 0]
    assert [result.value for result in results] == pytest.approx([one.value for one in expected], abs=1e-4)
    assert [result.reason for result in results] == [one.reason for one in expected]


@pytest.mark.parametrize("preset", ["panoptic_fpn_mobilenet_v2", "panoptic_deeplab_r50"])
def test_things_of_a_panoptic_model(preset: str) -> None:
    model, cfg = built("panoptic", preset, things=("car", "person"), stuff=("sky", "road"))
    predictor = PanopticPredictor(
        model, cfg, class_names=["car", "person", "sky", "road"], things=2, reader=ImageReader(3, "RGB")
    )
    (result,) = DetectionUncertainty(predictor, cfg).scan([photo(0)], show_progress=False)
    assert isinstance(result, Uncertainty) and 0 <= result.value <= 1 and result.reason
