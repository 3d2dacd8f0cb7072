"""Windows of objects and regions: the segments of the whole image, with a network whose predictions are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from PIL import Image as PillowImage

from d2tune.data.image_reader import ImageReader
from d2tune.errors import DataError
from d2tune.inference.combining import combine
from d2tune.inference.images import open_image
from d2tune.inference.predictors.panoptic import PanopticPredictor
from d2tune.inference.predictors.windowed_panoptic import WindowedPanopticPredictor
from d2tune.inference.results import PanopticMap
from d2tune.inference.sliding_window import blend_rows
from d2tune.inference.stitching import Stitcher
from d2tune.inference.windows import Windows, WindowSamples, grid
from d2tune.modeling.config import default_config
from d2tune.timing import StageTimes
from tests.inference.color_network import ColorNetwork, Scene, draw_disc, draw_rectangle, enlarged, scene
from tests.inference.predictors.test_lowest_scores import built, photos
from tests.inference.test_stitching import SCENES, at_a_corner, encoded

NAMES = ("a", "b", "c", "ground", "water", "sky")
THINGS = 3
WATER, SKY = 2, 3
"""Labels of the semantic head; 1, the ground, is what is black."""
_STUFF = 100


class PanopticColors(ColorNetwork):
    """Detects as `ColorNetwork`, and knows stuff by its color ``(100 + label, 0, 0)``.

    Args:
        limit: Least pixels of stuff in its own segments of an image.
    """

    def __init__(self, limit: int = 1) -> None:
        super().__init__()
        self.limit = limit

    def __call__(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batches.append(len(samples))
        return [self._output(sample) for sample in samples]

    def _output(self, sample: dict[str, Any]) -> dict[str, Any]:
        pixels = sample["image"].numpy().transpose(1, 2, 0)
        is_stuff = pixels[:, :, :1] >= _STUFF
        things = torch.from_numpy(np.where(is_stuff, 0, pixels).transpose(2, 0, 1))
        instances = self._detect(sample | {"image": things})
        red = enlarged(pixels, (sample["height"], sample["width"]))[:, :, 0].astype(np.int64)
        labels = torch.from_numpy(np.select([red >= _STUFF, red == 0], [red - _STUFF, 1], 0))
        logits = 8 * torch.nn.functional.one_hot(labels, len(NAMES) - THINGS + 1).permute(2, 0, 1).float()
        combined = combine_semantic_and_instance_outputs(instances, logits.argmax(dim=0), 0.5, self.limit, 0.5)
        return {"instances": instances, "sem_seg": logits, "panoptic_seg": combined}


def config(window_px: int, overlap_px: int, *, short_side_px: int = 0, limit: int = 1) -> CfgNode:
    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = short_side_px
    cfg.TEST.WINDOW_PX, cfg.TEST.WINDOW_OVERLAP_PX = window_px, overlap_px
    cfg.MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT = limit
    return cfg


def in_windows(network: Any, *sizes: int, **options: int) -> WindowedPanopticPredictor:
    cfg = config(*sizes, **options)
    return WindowedPanopticPredictor(network, cfg, class_names=NAMES, things=THINGS, reader=ImageReader())


def whole(network: Any) -> PanopticPredictor:
    return PanopticPredictor(network, config(0, 0), class_names=NAMES, things=THINGS, reader=ImageReader())


def draw_stuff(image: Scene, box: tuple[int, int, int, int], label: int) -> None:
    """Fill what is black in a rectangle."""
    left, top, right, bottom = box
    inside = image[top:bottom, left:right]
    inside[~inside.any(axis=2)] = (_STUFF + label, 0, 0)


def segments_of(result: PanopticMap) -> list[tuple[int, bool, str]]:
    """Class, kind and pixels of each segment, whose areas are checked."""
    listed = []
    for segment in result.segments:
        mask = result.segment_ids == segment.id
        assert segment.area_px2 == mask.sum() > 0
        listed.append((segment.class_id, segment.isthing, encoded(mask)))
    assert sorted({segment.id for segment in result.segments}) == [i for i in np.unique(result.segment_ids) if i]
    return sorted(listed)


@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_the_segments_are_those_of_the_whole_image(make: Callable[[], Scene]) -> None:
    image = make()
    height, width = image.shape[:2]
    draw_stuff(image, (0, 0, width, height // 3), SKY)
    draw_stuff(image, (width // 3, height // 2, width // 2, height), WATER)
    given = in_windows(PanopticColors(), 100, 20)(image)
    assert segments_of(given) == segments_of(whole(PanopticColors())(image))
    assert (given.segment_ids > 0).all() and given.class_names == NAMES


def test_an_object_across_windows_is_one_segment_and_so_is_each_class_of_stuff() -> None:
    """Windows of 100 px begin at 0, 80 and 100: a disc on two sides, a bar through all, and two touching objects."""
    image = scene(120, 200)
    draw_disc(image, 90, 60, 20, number=1)
    draw_rectangle(image, (0, 100, 200, 110), number=2, class_id=1)
    draw_rectangle(image, (60, 0, 95, 20), number=3)
    draw_rectangle(image, (95, 0, 130, 20), number=4)
    draw_stuff(image, (0, 0, 90, 120), WATER)
    result = in_windows(PanopticColors(), 100, 20)(image)
    disc, bar, left, right = ((image[:, :, 1] == number).sum() for number in (1, 2, 3, 4))
    water = (image[:, :, 0] == _STUFF + WATER).sum()
    given = sorted((NAMES[one.class_id], one.area_px2) for one in result.segments)
    ground = 120 * 200 - disc - bar - left - right - water
    assert given == sorted([("a", disc), ("a", left), ("a", right), ("b", bar), ("water", water), ("ground", ground)])
    for number in (1, 2, 3, 4):
        assert len(np.unique(result.segment_ids[image[:, :, 1] == number])) == 1


def test_a_second_detection_of_an_object_does_not_become_its_mask() -> None:
    """Windows share 70 to 100 px. The first one sees the upper rows of a bar from 50 px on, the second one all of it to
    150 px, and again its upper rows to 120 px, apart from the side: more like what the first one sees, and not cut."""

    class Twice(PanopticColors):
        def _detect(self, sample: dict[str, Any]) -> Instances:
            bar = super()._detect(sample)
            again = bar[torch.tensor([0])]
            again.pred_masks = again.pred_masks.clone()
            again.pred_masks[:, 52:] = False
            if bar.pred_boxes.tensor[0, 0] > 0:
                return again
            again.pred_masks[:, :, :3] = again.pred_masks[:, :, 50:] = False
            again.pred_boxes, again.scores = Boxes(torch.tensor([[3.0, 40, 50, 52]])), bar.scores - 0.05
            return Instances.cat([bar, again])

    image = scene(100, 170)
    draw_rectangle(image, (50, 40, 150, 60), number=1)
    result = in_windows(Twice(), 100, 30)(image)
    (bar,) = (segment for segment in result.segments if segment.isthing)
    assert bar.area_px2 == 20 * 12 + 80 * 20 and (result.segment_ids[40:52, 50:150] == bar.id).all()


@pytest.mark.parametrize(("limit", "is_kept"), [(600, True), (601, False)])
def test_the_least_area_of_stuff_is_that_of_the_image(limit: int, is_kept: bool) -> None:
    """Water of 4 x 150 px in all windows together; no window sees 600 of its pixels."""
    image = scene(100, 200)
    draw_stuff(image, (20, 40, 170, 44), WATER)
    result = in_windows(PanopticColors(limit), 100, 20, limit=limit)(image)
    assert sorted(one.area_px2 for one in result.segments) == [600] * is_kept + [100 * 200 - 600]
    assert segments_of(result) == segments_of(whole(PanopticColors(limit))(image))


def test_probabilities_are_averaged_in_the_strip() -> None:
    """The first window has ground with 0.6, the second one water with 0.9, and its weight is above 0.2 from 7 px on."""

    class Torn(PanopticColors):
        def _output(self, sample: dict[str, Any]) -> dict[str, Any]:
            output = super()._output(sample)
            ground = 0.6 if not sample["image"].any() else 0.1
            chances = torch.tensor([1e-9, ground, 1 - ground, 1e-9])
            return output | {"sem_seg": chances.log()[:, None, None].expand(-1, sample["height"], sample["width"])}

    image = scene(100, 180)
    image[:, 170:] = (_STUFF + WATER, 0, 0)
    result = in_windows(Torn(), 100, 20)(image)
    (ground, water) = result.segments
    assert (ground.class_id, water.class_id) == (3, 4)
    assert (result.segment_ids[:, : 80 + 7] == ground.id).all() and (result.segment_ids[:, 80 + 7 :] == water.id).all()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_changes_nothing(batch_size: int) -> None:
    network, image = PanopticColors(), at_a_corner()
    batched = in_windows(network, 100, 30).batch([image], batch_size=batch_size)[0]
    usual = in_windows(PanopticColors(), 100, 30)(image)
    assert max(network.batches) == min(batch_size, len(grid(180, 180, Windows(window_px=100, overlap_px=30))))
    assert np.array_equal(batched.segment_ids, usual.segment_ids) and batched.segments == usual.segments


def test_a_batch_has_no_more_windows_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four classes of 100 x 100 px in float32 are 160,000 bytes a window."""
    image = scene(100, 500)
    for most, expected in ((480_000, 3), (1, 1), (1 << 28, 4)):
        monkeypatch.setattr("d2tune.inference.predictors.windowed_panoptic._BATCH_BYTES", most)
        network = PanopticColors()
        in_windows(network, 100, 20)(image)
        assert max(network.batches) == expected


def test_lowest_scores_of_classes_and_of_segments() -> None:
    """Discs of 253 pixels have a score of 0.601, whole ones of 1257 pixels one of 0.778."""
    image = scene(100, 200)
    for x, radius, class_id in ((30, 9, 0), (130, 9, 1), (60, 20, 0)):
        draw_disc(image, x, 20 + 2 * radius, radius, number=x, class_id=class_id)
    options: dict[str, Any] = {"class_names": NAMES, "things": THINGS, "reader": ImageReader()}
    scores = [0.7, 0.6, 0.6, 0, 0, 0]
    result = WindowedPanopticPredictor(PanopticColors(), config(100, 20), min_scores=scores, **options)(image)
    assert [one.class_id for one in result.segments if one.isthing] == [0, 1]
    cfg = config(100, 20)
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.7
    result = WindowedPanopticPredictor(PanopticColors(), cfg, **options)(image)
    assert [one.class_id for one in result.segments if one.isthing] == [0]


def test_a_stream_gives_pixels_errors_and_only_what_is_not_done(tmp_path: Path) -> None:
    image = at_a_corner()
    photo, broken = tmp_path / "a.png", tmp_path / "b.png"
    PillowImage.fromarray(image).save(photo)
    broken.write_bytes(b"not an image")
    seen: list[int] = []

    def convert(index: int, result: PanopticMap, pixels: Any) -> int:
        assert np.array_equal(pixels, image)
        seen.append(index)
        return len(result.segments)

    times = StageTimes()
    stream = in_windows(PanopticColors(), 100, 20).stream(
        [photo, broken, photo], convert=convert, keep_pixels=True, done={0}, show_progress=False, times=times
    )
    error, count = stream
    assert isinstance(error, DataError) and "b.png" in error.one_line()
    assert count == len(whole(PanopticColors())(image).segments) and seen == [2]
    assert times.total_s > 0 and times.forward_s > 0


@pytest.fixture(scope="module")
def fpn() -> tuple[Any, CfgNode]:
    """A Panoptic FPN with random weights, which detects many objects, and images in their own size."""
    model, cfg = built("panoptic_fpn_mobilenet_v2", {}, task="panoptic", things=("bus",), stuff=("car",))
    model.combine_stuff_area_thresh, model.combine_instances_score_thresh = 50, 0.0
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 0
    return model, cfg


def both(fpn: tuple[Any, CfgNode], window_px: int, **sizes: int) -> tuple[PanopticPredictor, WindowedPanopticPredictor]:
    """The predictors on whole images and in windows."""
    model, cfg = fpn
    options: dict[str, Any] = {"class_names": ("bus", "car"), "things": 1, "reader": ImageReader(3, cfg.INPUT.FORMAT)}
    cfg = cfg.clone()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = sizes.get("short_side_px", 0)
    alone = PanopticPredictor(model, cfg, **options)
    cfg = cfg.clone()
    cfg.TEST.WINDOW_PX, cfg.TEST.WINDOW_OVERLAP_PX = window_px, window_px // 4
    return alone, WindowedPanopticPredictor(model, cfg, **options)


@pytest.mark.parametrize(("window_px", "short_side_px"), [(96, 0), (90, 64)])
def test_an_image_of_one_window_has_the_bits_of_the_whole_image(
    fpn: tuple[Any, CfgNode], window_px: int, short_side_px: int
) -> None:
    """Images of their own size, and squares as large as a window, which are resized in the same way."""
    images = photos()[:2] if not short_side_px else [np.resize(photos()[0], (window_px, window_px, 3))]
    alone, windows = both(fpn, window_px, short_side_px=short_side_px)
    for image in images:
        expected, given = alone(image), windows(image)
        assert np.array_equal(given.segment_ids, expected.segment_ids) and given.segments == expected.segments
        assert len(expected.segments) > 1


def test_what_is_put_together_of_one_window_is_the_whole_image(fpn: tuple[Any, CfgNode]) -> None:
    """By the way of several windows, whose masks are pasted as those of instances; a pixel in a thousand may differ."""
    alone, windows = both(fpn, 96)
    image = photos()[2]
    size, chosen = {"height_px": image.shape[0], "width_px": image.shape[1]}, Windows(window_px=96, overlap_px=24)
    places = grid(*size.values(), chosen)
    stitcher = Stitcher(**size, windows=places, class_names=windows.class_names)
    samples = WindowSamples(open_image(image, windows.reader), places, scale=1)
    planes = windows._planes(samples, stitcher, {"batch_size": 1, "show_progress": False, "times": StageTimes()})
    ((top_px, labels, _),) = blend_rows(planes, **size, windows=chosen)
    assert places == [(0, 0, *size.values())] and top_px == 0
    result = combine(labels, stitcher.finish(), windows._thresholds(windows.model), things=1)
    expected = alone(image)
    assert [(one.id, one.class_id) for one in result.segments] == [(one.id, one.class_id) for one in expected.segments]
    assert (result.segment_ids != expected.segment_ids).mean() < 0.001


def test_every_pixel_of_a_large_image_is_in_at_most_one_segment(fpn: tuple[Any, CfgNode]) -> None:
    tiled: NDArray[np.uint8] = np.tile(photos()[0], (1, 2, 1))
    _, windows = both(fpn, 96)
    result = windows(tiled)
    segments_of(result)
    stuff = [segment.class_id for segment in result.segments if not segment.isthing]
    assert len(stuff) == len(set(stuff)) <= 1 and len(result.segments) > 3
