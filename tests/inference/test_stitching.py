"""Windows of instances: the same instances as on the whole image, with a network whose detections are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as PillowImage
from pycocotools import mask as mask_utils

from d2tune.annotations.model.types import Rle
from d2tune.data.image_reader import ImageReader, OpenImage
from d2tune.errors import DataError, ProjectError
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.predictors.windowed import WindowedPredictor
from d2tune.inference.results import Detections, decode_rle
from d2tune.inference.stitching import Stitcher
from d2tune.inference.windows import Window, Windows, grid, overlapping
from d2tune.modeling.config import default_config
from tests.inference.color_network import ColorNetwork, Scene, draw_disc, draw_rectangle, regions_of, scene

CLASSES = ("a", "b", "c")


def predictor(
    network: Any, window_px: int, overlap_px: int, *, short_side_px: int = 0, **options: Any
) -> WindowedPredictor:
    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = short_side_px
    cfg.TEST.WINDOW_PX, cfg.TEST.WINDOW_OVERLAP_PX = window_px, overlap_px
    return WindowedPredictor(network, cfg, class_names=CLASSES, reader=ImageReader(), **options)


def whole_predictor(network: Any) -> InstancePredictor:
    cfg = default_config()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = 0
    return InstancePredictor(network, cfg, class_names=CLASSES, reader=ImageReader())


def encoded(mask: NDArray[np.bool_]) -> str:
    counts: bytes = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts.decode()


def truth(image: Scene) -> list[tuple[int, str]]:
    """Class and run lengths of each object, by connected components of the whole image."""
    return sorted((class_id, encoded(mask)) for class_id, mask in regions_of(image))


def objects(detections: Detections) -> list[tuple[int, str]]:
    assert detections.rles is not None
    assert all((rle.height_px, rle.width_px) == (detections.height_px, detections.width_px) for rle in detections.rles)
    pairs = zip(detections.class_ids.tolist(), detections.rles, strict=True)
    return sorted((class_id, rle.counts) for class_id, rle in pairs)


def on_a_side() -> Scene:
    """Windows of 100 px that share 20 begin at 0, 80 and 100: discs on each of their sides."""
    image = scene(100, 200)
    for number, x in enumerate((80, 100, 180, 20)):
        draw_disc(image, x, 15 + 23 * number, 9, number=number + 1)
    return image


def at_a_corner() -> Scene:
    """Windows that begin at 0 and 80 in both directions: a disc where all four meet, and one beside it."""
    image = scene(180, 180)
    draw_disc(image, 90, 90, 17, number=1)
    draw_disc(image, 112, 108, 8, number=2)
    return image


def larger_than_a_window() -> Scene:
    image = scene(300, 360)
    draw_disc(image, 180, 150, 140, number=1)
    draw_rectangle(image, (0, 20, 360, 24), number=2, class_id=1)
    return image


def touching() -> Scene:
    """Rectangles and discs of one class without a gap, on the sides of windows and across them."""
    image = scene(180, 260)
    draw_rectangle(image, (60, 30, 90, 60), number=1)
    draw_rectangle(image, (90, 30, 130, 60), number=2)
    draw_rectangle(image, (60, 60, 180, 90), number=3)
    draw_disc(image, 90, 120, 15, number=4)
    draw_disc(image, 121, 120, 15, number=5)
    draw_rectangle(image, (180, 0, 181, 180), number=6)
    draw_rectangle(image, (181, 0, 183, 180), number=7)
    return image


def nested() -> Scene:
    """Rings around discs of their class, across windows."""
    image = scene(260, 260)
    for number, radius in enumerate((120, 90, 60, 30, 10)):
        draw_disc(image, 130, 130, radius, number=number + 1)
    return image


def at_the_border() -> Scene:
    image = scene(170, 190)
    draw_rectangle(image, (0, 0, 12, 170), number=1)
    draw_rectangle(image, (150, 160, 190, 170), number=2)
    draw_disc(image, 189, 0, 25, number=3, class_id=2)
    draw_rectangle(image, (100, 0, 103, 3), number=4)
    return image


def bent() -> Scene:
    """A comb whose teeth are separate in the windows above, and a spiral."""
    image = scene(260, 260)
    draw_rectangle(image, (10, 100, 250, 120), number=1)
    for x in range(10, 250, 24):
        draw_rectangle(image, (x, 20, x + 8, 100), number=1)
    draw_rectangle(image, (20, 140, 240, 150), number=2)
    draw_rectangle(image, (230, 140, 240, 250), number=2)
    draw_rectangle(image, (20, 240, 240, 250), number=2)
    draw_rectangle(image, (20, 170, 30, 250), number=2)
    return image


def slivers() -> Scene:
    """Objects that end one to five pixels inside the next window."""
    image = scene(100, 200)
    for number in range(1, 6):
        draw_rectangle(image, (60, 14 * number, 80 + number, 14 * number + 10), number=number)
        draw_rectangle(image, (100 - number, 14 * number, 130, 14 * number + 10), number=number + 10)
    return image


def nothing() -> Scene:
    return scene(130, 150)


def crowded() -> Scene:
    """300 overlapping objects of three classes and all sizes."""
    rng = np.random.default_rng(3)
    image = scene(230, 310)
    for number in range(1, 151):
        x, y = rng.uniform(0, 310), rng.uniform(0, 230)
        if rng.random() < 0.5:
            draw_disc(image, x, y, rng.uniform(2, rng.choice([8, 30, 70])), number=number, class_id=number % 3)
        else:
            width, height = rng.integers(3, rng.choice([12, 50, 150]), 2)
            box = (int(x), int(y), int(x) + int(width), int(y) + int(height))
            draw_rectangle(image, box, number=number, class_id=number % 3)
    return image


SCENES = [
    on_a_side,
    at_a_corner,
    larger_than_a_window,
    touching,
    nested,
    at_the_border,
    bent,
    slivers,
    nothing,
    crowded,
]


@pytest.mark.parametrize(("window_px", "overlap_px"), [(100, 20), (64, 8), (97, 60)])
@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_the_instances_are_those_of_the_whole_image(make: Callable[[], Scene], window_px: int, overlap_px: int) -> None:
    image = make()
    stitched = predictor(ColorNetwork(), window_px, overlap_px)(image)
    assert objects(stitched) == truth(image)
    assert objects(stitched) == objects(whole_predictor(ColorNetwork())(image))


def test_boxes_and_scores_of_united_instances() -> None:
    image = at_a_corner()
    stitched = predictor(ColorNetwork(), 100, 20)(image)
    by_area = {int(mask.sum()): index for index, mask in enumerate(stitched.masks)}
    large, small = by_area[max(by_area)], by_area[min(by_area)]
    assert stitched.boxes_xyxy[large].tolist() == [73, 73, 108, 108]
    assert stitched.boxes_xyxy[small].tolist() == [104, 100, 121, 117]
    # the largest share of the disc lies in the window that begins at 80, 80 and has all but seven of its columns
    window = stitched.masks[large][80:, 80:].sum()
    shares = [stitched.masks[large][y, x].sum() for y in (np.s_[:100], np.s_[80:]) for x in (np.s_[:100], np.s_[80:])]
    assert window == max(shares)
    assert stitched.scores[large] == pytest.approx(1 - 0.5 / (1 + window / 1000), abs=1e-6)
    assert stitched.scores.tolist() == sorted(stitched.scores.tolist(), reverse=True)


def test_an_object_that_a_window_sees_as_a_whole_keeps_that_mask() -> None:
    """The piece of it in the other window is wider there by two rows, which do not enter the mask."""
    windows = [Window(0, 0, 100, 100), Window(0, 80, 100, 180)]
    stitcher = Stitcher(100, 180, windows, CLASSES)
    stitcher.add(0, given([(60, 40, 86, 60)], [0.7], window=windows[0]))
    stitcher.add(1, given([(80, 38, 86, 62)], [0.9], window=windows[1]))
    result = stitcher.finish()
    assert boxes_of(result) == [(60, 40, 86, 60)] and result.scores.tolist() == pytest.approx([0.9])


def test_a_wrong_piece_beyond_the_whole_object_is_not_united() -> None:
    """The piece goes on 40 px beyond the first window, where the whole object ended."""
    windows = [Window(0, 0, 100, 100), Window(0, 80, 100, 180)]
    stitcher = Stitcher(100, 180, windows, CLASSES)
    stitcher.add(0, given([(60, 40, 88, 60)], [0.7], window=windows[0]))
    stitcher.add(1, given([(80, 40, 140, 60)], [0.9], window=windows[1]))
    assert boxes_of(stitcher.finish()) == [(60, 40, 88, 60), (80, 40, 140, 60)]


@pytest.mark.parametrize(("rows", "instances"), [(19, 1), (5, 2)])
def test_detections_in_the_strip_are_of_one_object_from_half_of_their_pixels_on(rows: int, instances: int) -> None:
    """Both are whole and 20 rows high; they share ``rows`` of them: an IoU of 19 / 21 and of 5 / 35."""
    windows = [Window(0, 0, 100, 100), Window(0, 60, 100, 160)]
    stitcher = Stitcher(100, 160, windows, CLASSES)
    stitcher.add(0, given([(70, 30, 90, 50)], [0.7], window=windows[0]))
    stitcher.add(1, given([(70, 50 - rows, 90, 70 - rows)], [0.8], window=windows[1]))
    assert len(stitcher.finish()) == instances


def test_the_same_pixels_of_two_classes_are_two_instances() -> None:
    windows = [Window(0, 0, 100, 100), Window(0, 60, 100, 160)]
    stitcher = Stitcher(100, 160, windows, CLASSES)
    stitcher.add(0, given([(70, 30, 90, 50)], [0.7], window=windows[0]))
    stitcher.add(1, given([(70, 30, 90, 50)], [0.8], window=windows[1], class_id=1))
    assert stitcher.finish().class_ids.tolist() == [1, 0]


def test_lower_scores_of_all_windows_and_detections_without_pixels_are_kept() -> None:
    windows = [Window(0, 0, 100, 100), Window(0, 60, 100, 160)]
    stitcher = Stitcher(100, 160, windows, CLASSES)
    stitcher.add(0, given([(10, 10, 10, 10)], [0.7], window=windows[0], lower=(0.2,)))
    stitcher.add(1, given([], [], window=windows[1], lower=(0.4, 0.1)))
    result = stitcher.finish()
    assert result.lower_scores == (0.4, 0.2, 0.1)
    assert len(result) == 1 and not result.masks.any()


def given(
    boxes: list[tuple[int, int, int, int]],
    scores: list[float],
    *,
    window: Window,
    class_id: int = 0,
    lower: tuple[float, ...] = (),
) -> Detections:
    """Filled boxes, in pixels of the image, as detections in a window."""
    height, width = window.bottom_px - window.top_px, window.right_px - window.left_px
    masks = []
    for x0, y0, x1, y1 in boxes:
        column = [(x0 - window.left_px) * height + y0 - window.top_px]
        runs = np.diff([0, *((column[0] + at * height + end) for at in range(x1 - x0) for end in (0, y1 - y0))])
        masks.append(Rle(height, width, joined([*runs.tolist(), height * width - int(runs.sum())], height, width)))
    shift = np.array([window.left_px, window.top_px] * 2)
    return Detections(
        height,
        width,
        (np.array(boxes, np.float32).reshape(-1, 4) - shift).astype(np.float32),
        np.array(scores, np.float32),
        np.full(len(boxes), class_id),
        tuple(masks),
        CLASSES,
        lower,
    )


def joined(counts: list[int], height: int, width: int) -> str:
    """Compressed run lengths, where runs of 0 pixels join their neighbors."""
    short: list[int] = counts[:1]
    for at, run in enumerate(counts[1:], start=1):
        if run == 0 and at + 1 < len(counts):
            counts[at + 1] += short.pop()
            continue
        short.append(run)
    rle = mask_utils.frPyObjects({"size": [height, width], "counts": short}, height, width)
    text: str = rle["counts"].decode()
    return text


def boxes_of(detections: Detections) -> list[tuple[int, ...]]:
    """The boxes, checked against the pixels of the masks."""
    boxes = []
    for box, mask in zip(detections.boxes_xyxy, detections.masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        boxes.append(tuple(int(side) for side in box))
    return sorted(boxes)


def test_an_image_of_one_window_gives_what_the_model_gives() -> None:
    image = crowded()
    one = predictor(ColorNetwork(), 400, 40)(image)
    alone = whole_predictor(ColorNetwork())(image)
    assert [rle.counts for rle in one.rles or ()] == [rle.counts for rle in alone.rles or ()]
    assert np.array_equal(one.boxes_xyxy, alone.boxes_xyxy) and np.array_equal(one.scores, alone.scores)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_changes_nothing(batch_size: int) -> None:
    network, image = ColorNetwork(), crowded()
    batched = predictor(network, 64, 16).batch([image], batch_size=batch_size)[0]
    usual = predictor(ColorNetwork(), 64, 16)(image)
    assert max(network.batches) == min(batch_size, len(grid(230, 310, Windows(window_px=64, overlap_px=16))))
    assert [rle.counts for rle in batched.rles or ()] == [rle.counts for rle in usual.rles or ()]
    assert np.array_equal(batched.scores, usual.scores) and np.array_equal(batched.boxes_xyxy, usual.boxes_xyxy)


def test_windows_are_resized_as_a_square_of_the_short_side_and_narrow_images_by_the_same_factor() -> None:
    square, narrow = ColorNetwork(), ColorNetwork()
    result = predictor(square, 50, 10, short_side_px=100)(touching())
    assert set(square.sizes) == {(100, 100)} and (result.height_px, result.width_px) == (180, 260)
    predictor(narrow, 50, 10, short_side_px=100)(scene(20, 120))
    assert set(narrow.sizes) == {(40, 100)}
    enlarged = next(mask for class_id, mask in regions_of(touching()) if mask[45, 75])
    mine = max(result.masks, key=lambda mask: int((mask & enlarged).sum()))
    assert (mine & enlarged).sum() / (mine | enlarged).sum() > 0.8


def test_scores_are_cut_in_each_window() -> None:
    image = on_a_side()
    everything = predictor(ColorNetwork(), 100, 20)(image)
    assert len(everything) == 4 and not everything.lower_scores
    kept = predictor(ColorNetwork(), 100, 20, min_scores=[0.59, 1, 1])(image)
    # of the discs of 253 pixels (score 0.601) whole ones are kept, pieces of up to 219 pixels are not
    assert kept.scores.tolist() == pytest.approx([0.6009577] * len(kept)) and 0 < len(kept) <= 4
    assert kept.lower_scores and max(kept.lower_scores) < 0.59


def test_a_stream_gives_pixels_errors_and_only_what_is_not_done(tmp_path: Path) -> None:
    image = crowded()
    photo, broken = tmp_path / "a.png", tmp_path / "b.png"
    PillowImage.fromarray(image).save(photo)
    broken.write_bytes(b"not an image")
    seen: list[int] = []

    def convert(index: int, result: Detections, pixels: Any) -> int:
        assert np.array_equal(pixels, image)
        seen.append(index)
        return len(result)

    stream = predictor(ColorNetwork(), 100, 20).stream(
        [photo, broken, photo, photo], convert=convert, keep_pixels=True, done={0}, show_progress=False
    )
    error, first, second = stream
    assert isinstance(error, DataError) and "b.png" in error.one_line()
    assert first == second == len(truth(image)) and seen == [2, 3]


def test_of_a_large_tiff_windows_are_read_and_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2tune.data.image_reader._LARGE_PX", 10_000)
    image = crowded()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", tile=(32, 32), compression="zlib")
    reads: list[tuple[int, ...]] = []
    read = OpenImage.read

    def counting(self: OpenImage, *window: int) -> NDArray[Any]:
        reads.append(window)
        return read(self, *window)

    monkeypatch.setattr(OpenImage, "read", counting)
    assert objects(predictor(ColorNetwork(), 100, 20)(path)) == truth(image)
    assert {window[2:] for window in reads} == {(100, 100)}
    assert str(path) not in [file.path for file in psutil.Process().open_files()]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_area_of_the_image() -> None:
    """5,000 objects on 20,000 x 20,000 px, some over the sides of windows, and a line across the whole image."""
    side, windows = 20_000, Windows(window_px=1000, overlap_px=200)
    boxes = [(x, y, x + 40, y + 30) for y in range(100, 19_900, 280) for x in range(60, 19_900, 280)][:5000]
    boxes.append((0, 19_000, side, 19_010))
    array = np.array(boxes)
    chosen = grid(side, side, windows)
    process = psutil.Process()
    before = process.memory_info().rss
    stitcher = Stitcher(side, side, chosen, CLASSES)
    for index, window in enumerate(chosen):
        top, left, bottom, right = window
        near = array[(array[:, 0] < right) & (array[:, 2] > left) & (array[:, 1] < bottom) & (array[:, 3] > top)]
        inside = np.clip(near, (left, top, left, top), (right, bottom, right, bottom))
        stitcher.add(index, given([tuple(box) for box in inside.tolist()], [0.9] * len(inside), window=window))
    result = stitcher.finish()
    assert process.memory_info().rss - before < 200 * 2**20
    assert len(result) == 5001
    boxes_xywh = mask_utils.toBbox([rle.to_coco() for rle in result.rles or ()]).astype(int)
    assert sorted(map(tuple, boxes_xywh.tolist())) == sorted((x, y, z - x, w - y) for x, y, z, w in boxes)
    assert sum(int(mask_utils.area(rle.to_coco())) for rle in result.rles or ()) == 5000 * 1200 + 200_000


def test_masks_that_fill_columns_of_the_image() -> None:
    """Runs that go on from one column to the next, from the first pixel and to the last one."""
    image = scene(40, 90)
    draw_rectangle(image, (0, 0, 90, 40), number=1)
    result = predictor(ColorNetwork(), 40, 10)(image)
    assert [rle.counts for rle in result.rles or ()] == [encoded(np.ones((40, 90), bool))]
    assert decode_rle((result.rles or ())[0]).all()


def test_an_image_with_more_pixels_than_run_lengths_can_count_is_refused() -> None:
    with pytest.raises(DataError, match="the image is too large for run-length masks"):
        Stitcher(70_000, 70_000, [], CLASSES)


def test_windows_begin_at_steps_and_end_with_the_image() -> None:
    windows = grid(150, 230, Windows(window_px=100, overlap_px=20))
    assert [window[:2] for window in windows] == [(y, x) for y in (0, 50) for x in (0, 80, 130)]
    assert all(bottom - top == 100 and right - left == 100 for top, left, bottom, right in windows)
    assert grid(30, 40, Windows(window_px=100, overlap_px=20)) == [Window(0, 0, 30, 40)]
    pairs = {(a, b): shared for a, b, shared in overlapping(windows)}
    assert pairs[0, 1] == Window(0, 80, 100, 100) and pairs[0, 3] == Window(50, 0, 100, 100)
    assert (0, 2) not in pairs and pairs[1, 5] == Window(50, 130, 100, 180) and len(pairs) == 11


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window_px": 20}, "--window-px: the window is too small; found 20 px; expected at least 32 px"),
        (
            {"window_px": 100, "overlap": 1.0},
            "--overlap: windows that are so close cover each pixel too often",
        ),
        ({"window_px": 100, "overlap": 0.0}, "found 0; expected above 0 and at most 0.75: a share of the window"),
        ({"window_px": 100, "overlap": float("nan")}, "found nan"),
        ({"window_px": 100, "object_px": 100}, "--object-px: objects that are to be whole in a window"),
        ({"window_px": 100, "object_px": -1}, "found -1 px; expected from 0 to below the window of 100 px"),
    ],
)
def test_invalid_windows(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError) as error:
        Windows.chosen(**options)
    assert words in error.value.one_line()


def test_the_overlap_is_as_wide_as_the_stated_objects() -> None:
    assert Windows.chosen(640).overlap_px == 128
    assert Windows.chosen(640, object_px=90).overlap_px == 128
    assert Windows.chosen(640, object_px=300).overlap_px == 300
    assert Windows.chosen(32, overlap=0.001).overlap_px == 1
