"""Windows: the same as on the whole image, blending by hand, and independence of the batch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from d2tune.annotations.io.rasters import open_raster
from d2tune.errors import ProjectError, RunError
from d2tune.inference import sliding_window
from d2tune.inference.sliding_window import predict_rows

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "sliding_window.py"


@dataclass
class ArrayImage:
    """Pixels ``(H, W, C)`` in memory; remembers which windows were read."""

    pixels: NDArray[Any]
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def height_px(self) -> int:
        return self.pixels.shape[0]

    @property
    def width_px(self) -> int:
        return self.pixels.shape[1]

    def read(self, top_px: int, left_px: int, height_px: int, width_px: int) -> NDArray[Any]:
        self.reads.append((top_px, left_px, height_px, width_px))
        window = self.pixels[top_px : top_px + height_px, left_px : left_px + width_px]
        assert window.shape[:2] == (height_px, width_px), "a window beyond the image"
        return window


def numbers(height_px: int, width_px: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (height_px, width_px, channels), dtype=np.uint8)


def brightest(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores that are the channels themselves: the class is the brightest channel."""
    return [{"sem_seg": sample["image"].float().nan_to_num() / 255} for sample in samples]


class Local(nn.Module):
    """Scores from a convolution of whole numbers, so that float arithmetic is exact: its receptive field is 5 px."""

    def __init__(self, channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, classes, 5, padding=2, bias=False)
        self.dropout = nn.Dropout(0.5)
        weights = torch.from_numpy(np.random.default_rng(2).integers(-4, 5, self.convolution.weight.shape))
        self.convolution.weight = nn.Parameter(weights.float())

    def forward(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        images = torch.stack([sample["image"].float() for sample in samples])
        return [{"sem_seg": scores} for scores in self.dropout(self.convolution(images))]


def whole(model: Any, photo: ArrayImage, **options: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """All rows put together, after checking that they come one after another."""
    blocks = list(predict_rows(model, photo, **options))
    tops = np.cumsum([0, *(len(block.class_ids) for block in blocks)])
    assert [block.top_px for block in blocks] == tops[:-1].tolist()
    class_ids = np.concatenate([block.class_ids for block in blocks])
    assert class_ids.shape == photo.pixels.shape[:2]
    assert class_ids.dtype == np.uint8
    if blocks[0].confidence is None:
        return class_ids, None
    return class_ids, np.concatenate([block.confidence for block in blocks])


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("size", [(32, 32), (33, 31), (100, 75), (7, 90), (90, 1), (1, 1), (31, 32), (57, 129)])
@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_a_function_of_a_pixel_is_evaluated_on_every_pixel(size: tuple[int, int], overlap: float, scores: str) -> None:
    photo = ArrayImage(numbers(*size))
    class_ids, _ = whole(brightest, photo, classes=3, window_px=32, overlap=overlap, scores=scores)
    np.testing.assert_array_equal(class_ids, photo.pixels.argmax(axis=2))
    assert {read[2:] for read in photo.reads} == {(min(32, size[0]), min(32, size[1]))}


@pytest.mark.parametrize("size", [(70, 101), (64, 64), (65, 63), (20, 130)])
@pytest.mark.parametrize("overlap", [0.25, 0.4, 0.6])
def test_windows_do_not_matter_for_a_receptive_field_up_to_a_quarter_of_the_overlap(
    size: tuple[int, int], overlap: float
) -> None:
    photo = ArrayImage(numbers(*size))
    model = Local().eval()
    with torch.no_grad():
        scores = model([{"image": torch.from_numpy(photo.pixels.transpose(2, 0, 1).copy())}])[0]["sem_seg"]
    class_ids, _ = whole(model, photo, classes=4, window_px=32, overlap=overlap, scores="probabilities")
    np.testing.assert_array_equal(class_ids, scores.argmax(dim=0).numpy())
    _, confidence = whole(model, photo, classes=4, window_px=32, overlap=overlap, with_confidence=True)
    np.testing.assert_allclose(confidence, scores.softmax(dim=0).amax(dim=0).numpy(), atol=1e-6)


def test_without_overlap_the_borders_of_windows_show() -> None:
    photo = ArrayImage(numbers(64, 64))
    model = Local()
    apart, _ = whole(model, photo, classes=4, window_px=32, overlap=0, scores="probabilities")
    alone, _ = whole(model, photo, classes=4, window_px=64, scores="probabilities")
    rows, columns = np.nonzero(apart != alone)
    assert len(rows) > 10
    assert np.all(np.isin(rows, (30, 31, 32, 33)) | np.isin(columns, (30, 31, 32, 33)))


def test_blending_by_hand() -> None:
    """Windows of 4 px that share 2: the weights of the first are 1, 1, 3/4, 1/4, of the second the reverse."""

    def by_first_pixel(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        shares = [float(sample["image"][0, 0, 0]) / 10 for sample in samples]
        rows = [torch.full(sample["image"].shape[1:], share) for sample, share in zip(samples, shares, strict=True)]
        return [{"sem_seg": torch.stack([row, 1 - row])} for row in rows]

    across = np.array([[10, 0, 2, 0, 0, 0]], np.uint8)[..., None]
    for pixels in (across, across.transpose(1, 0, 2)):
        class_ids, confidence = whole(
            by_first_pixel,
            ArrayImage(pixels),
            classes=2,
            window_px=4,
            overlap=0.5,
            scores="probabilities",
            with_confidence=True,
        )
        assert class_ids.ravel().tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_allclose(confidence.ravel(), [1, 1, 0.8, 0.6, 0.8, 0.8], rtol=1e-6)


@pytest.mark.parametrize(("size", "overlap"), [((50, 61), 0.25), ((41, 90), 0.5), ((39, 33), 0.8), ((20, 47), 0)])
def test_blending_equals_a_plain_average_on_a_whole_canvas(size: tuple[int, int], overlap: float) -> None:
    """Weights written out pixel by pixel, float64, in another order, for scores that depend on the window."""
    photo = ArrayImage(numbers(*size, channels=1))

    def uneven(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        images = [sample["image"].double() / 255 for sample in samples]
        planes = [
            torch.stack([image[0], image.mean() - image[0], image[0].T[:1].mean() * image[0]]) for image in images
        ]
        return [{"sem_seg": plane} for plane in planes]

    _, confidence = whole(uneven, photo, classes=3, window_px=20, overlap=overlap, with_confidence=True)
    shared_px = round(20 * overlap)
    core_px = shared_px - 2 * (shared_px // 4)

    def weight(at: int, start: int, length: int) -> float:
        sides = ([at - start] if start else []) + ([start + 19 - at] if start + 20 < length else [])
        shares = [(side - shared_px // 4 + 0.5) / core_px if core_px else 1.0 for side in sides]
        return min([1.0, *(max(0.0, share) for share in shares)])

    sums, weights = np.zeros((3, *size)), np.zeros(size)
    for top, left, height, width in set(photo.reads):
        window = torch.from_numpy(photo.pixels[top : top + height, left : left + width].transpose(2, 0, 1).copy())
        scores = uneven([{"image": window}])[0]["sem_seg"].softmax(dim=0).numpy()
        rows = [weight(at, top, size[0]) for at in range(top, top + height)]
        columns = [weight(at, left, size[1]) for at in range(left, left + width)]
        share = np.outer(rows, columns)
        sums[:, top : top + height, left : left + width] += scores * share
        weights[top : top + height, left : left + width] += share
    np.testing.assert_allclose(confidence, (sums / weights).max(axis=0), atol=2e-6)


def test_windows_cover_the_image_and_the_last_ones_end_with_it() -> None:
    photo = ArrayImage(numbers(50, 101))
    whole(brightest, photo, classes=3, window_px=40, overlap=0.25)
    assert photo.reads == [(top, left, 40, 40) for top in (0, 10) for left in (0, 30, 60, 61)]


@pytest.mark.parametrize("batch_size", [2, 3, 7, 1000])
def test_the_batch_changes_nothing(batch_size: int) -> None:
    photo = ArrayImage(numbers(100, 140))
    options: dict[str, Any] = {"classes": 4, "window_px": 32, "overlap": 0.3, "with_confidence": True}
    single = whole(Local(), photo, batch_size=1, **options)
    batched = whole(Local(), photo, batch_size=batch_size, **options)
    np.testing.assert_array_equal(single[0], batched[0])
    np.testing.assert_array_equal(single[1], batched[1])


def test_sums_that_wait_in_files_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = ArrayImage(numbers(70, 200))
    options: dict[str, Any] = {"classes": 4, "window_px": 32, "overlap": 0.5, "with_confidence": True}
    in_memory = whole(Local(), photo, **options)
    monkeypatch.setattr(sliding_window, "_CARRY_IN_MEMORY_BYTES", 1000)
    in_files = whole(Local(), photo, **options)
    np.testing.assert_array_equal(in_memory[0], in_files[0])
    np.testing.assert_array_equal(in_memory[1], in_files[1])


def test_pixels_without_data_are_ignored_and_empty_windows_not_run() -> None:
    pixels = numbers(100, 130).astype(np.float32)
    expected = pixels.argmax(axis=2).astype(np.uint8)
    pixels[:40, 20:] = np.nan
    pixels[70, 5] = np.nan
    pixels[80, 80, 0] = np.nan
    expected[:40, 20:] = expected[70, 5] = 255
    expected[80, 80] = pixels[80, 80, 1:].argmax() + 1
    run: list[int] = []

    def counting(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        run.extend(not bool(sample["image"].isnan().all()) for sample in samples)
        return brightest(samples)

    photo = ArrayImage(pixels)
    class_ids, confidence = whole(
        counting, photo, classes=3, window_px=32, overlap=0.5, with_confidence=True, batch_size=4
    )
    np.testing.assert_array_equal(class_ids, expected)
    assert np.all((confidence == 0) == (expected == 255))
    assert all(run)
    empty = [read for read in photo.reads if np.isnan(pixels[read[0] : read[0] + 32, read[1] : read[1] + 32]).all()]
    assert len(run) == len(photo.reads) - len(empty) < len(photo.reads)


def test_an_image_without_any_data_is_ignored() -> None:
    class_ids, _ = whole(brightest, ArrayImage(np.full((50, 50, 3), np.nan, np.float32)), classes=3, window_px=32)
    assert np.all(class_ids == 255)


def test_the_model_runs_in_evaluation_mode_and_its_mode_is_restored() -> None:
    model = Local().train()
    photo = ArrayImage(numbers(70, 70))
    blocks = predict_rows(model, photo, classes=4, window_px=32, scores="probabilities")
    first = next(blocks)
    assert model.training
    assert torch.is_grad_enabled()
    again = next(iter(predict_rows(model, photo, classes=4, window_px=32, scores="probabilities")))
    np.testing.assert_array_equal(first.class_ids, again.class_ids)
    blocks.close()


def test_stopping_early_reads_no_further() -> None:
    photo = ArrayImage(numbers(1000, 40))
    blocks = predict_rows(brightest, photo, classes=3, window_px=40, overlap=0)
    next(blocks)
    blocks.close()
    assert len(photo.reads) <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": 1.0}, "overlap: the overlap must be from 0 to below 1; found 1.0"),
        ({"overlap": -0.1}, "overlap: the overlap must be from 0 to below 1; found -0.1"),
        ({"window_px": 0}, "window_px: the window size must be at least 1 px; found 0"),
        ({"batch_size": 0}, "batch_size: the batch size must be at least 1; found 0"),
        ({"classes": 256}, "classes: the number of classes must be from 1 to 255; found 256"),
    ],
)
def test_invalid_options_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError) as caught:
        predict_rows(brightest, ArrayImage(numbers(9, 9)), **{"classes": 3, "window_px": 32} | options)
    assert str(caught.value).startswith(words)


def test_other_scores_than_expected_are_refused() -> None:
    with pytest.raises(RunError, match="found 3 x 9 x 9; expected 5 x 9 x 9"):
        whole(brightest, ArrayImage(numbers(9, 9)), classes=5, window_px=32)


def test_progress_counts_windows(capsys: pytest.CaptureFixture[str]) -> None:
    photo = ArrayImage(numbers(50, 101))
    whole(brightest, photo, classes=3, window_px=40, show_progress=True)
    assert "0/8 [00:00<?, ? windows/s]" in capsys.readouterr().err
    whole(brightest, photo, classes=3, window_px=40)
    assert capsys.readouterr().err == ""


def test_a_tiff_of_four_channels_is_read_by_windows(tmp_path: Path) -> None:
    pixels = numbers(300, 200, channels=4)
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="minisblack", planarconfig="contig")
    with open_raster(path) as raster:
        blocks = list(predict_rows(brightest, raster, classes=4, window_px=128))
    np.testing.assert_array_equal(np.concatenate([block.class_ids for block in blocks]), pixels.argmax(axis=2))


@pytest.mark.extended
def test_the_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "values.json"
    command = [sys.executable, str(BENCHMARK), "--side", "1500", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    values = json.loads(out.read_text("utf-8"))
    assert values["windows"] == 16
    assert 100 < values["peak_rss_mb"] < 2000
