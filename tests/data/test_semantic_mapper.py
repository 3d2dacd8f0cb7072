"""The input of a semantic model: images whose values identify the label of each pixel, after cutting and turning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from d2tune.annotations.model.dataset import Image
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.augmentation.options import Augmentations
from d2tune.data.batches import SampleKey
from d2tune.data.image_reader import ImageReader
from d2tune.data.semantic_mapper import (
    SemanticInput,
    SemanticSamples,
    input_size,
    resized,
    resized_labels,
    semantic_sample,
)
from d2tune.errors import DataError
from d2tune.inference.images import InputSize, PredictionSamples

LEVELS = np.array([10.0, 90.0, 170.0, 250.0])
"""Value of the first channel for each class."""


def blocks(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Labels 0 to 3 in blocks of 8 px, which no symmetry leaves as they are."""
    height, width = size_hw
    coarse = np.random.default_rng(seed).integers(0, 4, (height // 8 + 1, width // 8 + 1))
    return np.kron(coarse, np.ones((8, 8), int))[:height, :width].astype(np.uint8)


def pixels_of(labels: np.ndarray, channels: int, dtype: Any) -> np.ndarray:
    """The class in the first channel; row and column, halved, in the next two; noise in the rest."""
    rows, columns = np.indices(labels.shape)
    planes = [LEVELS[labels], rows / 2, columns / 2]
    noise = np.random.default_rng(1).uniform(0, 255, (max(0, channels - 3), *labels.shape))
    return np.stack([*planes, *noise][:channels], axis=-1).astype(dtype)


def source_of(folder: Path, labels: np.ndarray, pixels: np.ndarray, name: str = "a.npy") -> dict[str, Any]:
    PilImage.fromarray(labels).save(folder / f"{name}.labels.png")
    if name.endswith(".npy"):
        np.save(folder / name, pixels)
    else:
        PilImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(folder / name)
    return {
        "file_name": str(folder / name),
        "sem_seg_file_name": str(folder / f"{name}.labels.png"),
        "image_id": 7,
        "height": labels.shape[0],
        "width": labels.shape[1],
    }


def samples(
    *sources: dict[str, Any],
    channels: int = 5,
    largest: int = 0,
    patch_px: int = 0,
    augment: str = "photo",
    cache_bytes: int = 1 << 24,
    jitter: float = 0.0,
    balance: float = 0.5,
    max_side_px: int = 10_000,
    order: str = "RGB",
) -> SemanticSamples:
    options = SemanticInput(
        reader=ImageReader(channels, order, RasterOptions()),
        max_side_px=max_side_px,
        largest_short_side_px=largest,
        patch_px=patch_px,
        patch_balance=balance,
        augment=augment,
        augmentations=Augmentations(color=jitter),
        classes=4,
    )
    return SemanticSamples(sources, options, cache_bytes=cache_bytes)


def encoded_labels(image: torch.Tensor) -> np.ndarray:
    """The label that the first channel encodes, -1 where resizing has mixed two."""
    distance = np.abs(image[0].numpy().astype(float)[..., None] - LEVELS)
    return np.where(distance.min(axis=-1) < 6, distance.argmin(axis=-1), -1)


def assert_aligned(item: dict[str, Any], *, clear_share: float = 0.6) -> None:
    labels, shown = item["sem_seg"].numpy(), encoded_labels(item["image"])
    assert labels.dtype == np.int64 and labels.shape == shown.shape
    clear = (shown >= 0) & (labels != 255)
    assert clear.mean() >= clear_share
    assert (labels[clear] == shown[clear]).mean() > 0.97


@pytest.mark.parametrize("augment", ["photo", "overhead"])
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.float32), (4, np.float32), (60, np.float32)],
)
@pytest.mark.parametrize("how", ["whole", "patch", "resized", "resized patch"])
def test_image_and_labels_stay_together(tmp_path: Path, augment: str, channels: int, dtype: Any, how: str) -> None:
    labels = blocks((75, 101))
    source = source_of(tmp_path, labels, pixels_of(labels, channels, dtype))
    data = samples(
        source,
        channels=channels,
        augment=augment,
        patch_px=40 if "patch" in how else 0,
        largest=120 if "resized" in how else 0,
    )
    shapes, seen = set(), set()
    for seed in range(12):
        item = data[SampleKey(0, (60, 120)[seed % 2], seed)]
        assert item["image"].shape[0] == channels
        assert item["image"].dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
        assert (item["height"], item["width"], item["image_id"]) == (75, 101, 7)
        assert_aligned(item, clear_share=1 if "resized" not in how else 0.6)
        shapes.add(tuple(item["sem_seg"].shape))
        seen.add(item["sem_seg"].numpy().tobytes())
    turned = {(75, 101), (101, 75)} if augment == "overhead" else {(75, 101)}
    resized_to = {(60, 81), (120, 162), *([(81, 60), (162, 120)] if augment == "overhead" else [])}
    assert shapes == {"whole": turned, "resized": resized_to}.get(how, {(40, 40)})
    assert len(seen) > 1


def test_all_eight_symmetries_and_only_two_for_photos(tmp_path: Path) -> None:
    labels = blocks((40, 40))
    source = source_of(tmp_path, labels, pixels_of(labels, 4, np.float32))
    ways = {turned.tobytes() for plain in (labels, labels.T) for turned in (np.rot90(plain, k) for k in range(4))}
    for augment, expected in (("overhead", ways), ("photo", {labels.tobytes(), labels[:, ::-1].tobytes()})):
        data = samples(source, channels=4, augment=augment)
        items = [data[SampleKey(0, 40, seed)] for seed in range(80)]
        assert {item["sem_seg"].numpy().astype(np.uint8).tobytes() for item in items} == expected
        for item in items:
            assert_aligned(item, clear_share=1)


@pytest.mark.parametrize("size_hw", [(17, 90), (90, 17), (9, 11)])
@pytest.mark.parametrize("augment", ["photo", "overhead"])
def test_images_smaller_than_the_patch_come_whole(tmp_path: Path, size_hw: tuple[int, int], augment: str) -> None:
    labels = blocks(size_hw)
    data = samples(source_of(tmp_path, labels, pixels_of(labels, 5, np.float32)), patch_px=32, augment=augment)
    for seed in range(8):
        item = data[SampleKey(0, 999, seed)]
        expected = tuple(min(32, side) for side in size_hw)
        assert tuple(item["sem_seg"].shape) in ({expected, expected[::-1]} if augment == "overhead" else {expected})
        assert_aligned(item, clear_share=1)


@pytest.mark.parametrize("short_side_px", [13, 50, 64, 75, 76, 131, 240])
def test_patches_of_resized_images_have_their_side_and_scale(tmp_path: Path, short_side_px: int) -> None:
    """Neighbors in the patch are as far apart in the image as the scale says."""
    rows, columns = np.indices((75, 175))
    pixels = np.stack([rows, columns], axis=-1).astype(np.float32)
    data = samples(
        source_of(tmp_path, np.zeros((75, 175), np.uint8), pixels),
        channels=2,
        largest=240,
        patch_px=32,
        augment="photo",
    )
    for seed in range(10):
        image = data[SampleKey(0, short_side_px, seed)]["image"].numpy()
        side_px = 32 * 75 / short_side_px
        expected = (32 if side_px <= side else round(side * short_side_px / 75) for side in (75, 175))
        assert image.shape[1:] == tuple(expected)
        step = np.diff(image[0, 4:-4, 5]).mean(), np.abs(np.diff(image[1, 5, 4:-4]).mean())
        assert step == pytest.approx((75 / short_side_px,) * 2, rel=0.09)


def test_patches_of_long_images_have_the_scale_of_the_evaluation(tmp_path: Path) -> None:
    """Where the longest side decides on the size, a patch is reduced as the whole image is."""
    columns = np.tile(np.arange(640, dtype=np.float32), (64, 1))[:, :, None]
    source = source_of(tmp_path, np.zeros((64, 640), np.uint8), columns)
    assert input_size((64, 640), short_side_px=64, max_side_px=160) == (16, 160)
    data = samples(source, channels=1, largest=64, max_side_px=160, patch_px=32, balance=0)
    image = data[SampleKey(0, 64, 0)]["image"].numpy()
    assert image.shape == (1, 16, 32)
    assert np.abs(np.diff(image[0, 5, 2:-2])).mean() == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("suffix", ["npy", "png"])
@pytest.mark.parametrize("largest", [0, 120])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_what_does_not_fit_the_cache_is_read_by_windows_with_the_same_result(
    tmp_path: Path, suffix: str, largest: int, order: str
) -> None:
    labels = blocks((90, 130))
    pixels = pixels_of(labels, 3, np.uint8 if suffix == "png" else np.float32)
    source = source_of(tmp_path, labels, pixels, f"a.{suffix}")
    options: dict[str, Any] = {"channels": 3, "patch_px": 40, "largest": largest, "augment": "overhead", "order": order}
    kept, streamed = samples(source, **options), samples(source, **options, cache_bytes=0)
    for seed in range(12):
        cached, read = (data[SampleKey(0, (70, 120)[seed % 2], seed)] for data in (kept, streamed))
        assert torch.equal(cached["image"], read["image"]) and torch.equal(cached["sem_seg"], read["sem_seg"])
    assert kept._cache and not streamed._cache


def test_the_cache_takes_no_more_than_it_may(tmp_path: Path) -> None:
    sources = []
    for number in range(4):
        labels = blocks((40, 50), seed=number)
        sources.append(source_of(tmp_path, labels, pixels_of(labels, 4, np.float32), f"{number}.npy"))
    one_bytes = 40 * 50 * 4 * 4
    for patch_px in (0, 16):
        data = samples(*sources, channels=4, patch_px=patch_px, cache_bytes=2 * one_bytes + 100)
        for index in (0, 1, 2, 3, 2, 0):
            assert_aligned(data[SampleKey(index, 40, 1)], clear_share=1)
        assert sorted(data._cache) == [0, 1]


def test_pixels_without_any_data_are_ignored(tmp_path: Path) -> None:
    labels = blocks((48, 64))
    pixels = pixels_of(labels, 5, np.float32)
    pixels[10:20, 30:50] = np.nan
    pixels[30:40, 5:25, 1:] = np.nan
    source = source_of(tmp_path, labels, pixels)
    for patch_px, largest in ((0, 0), (32, 0), (0, 60), (32, 60)):
        data = samples(source, patch_px=patch_px, largest=largest, augment="overhead")
        some = 0
        for seed in range(8):
            item = data[SampleKey(0, 60, seed)]
            empty = item["image"].isnan().all(dim=0)
            assert torch.equal(item["sem_seg"] == 255, empty)
            some += int(empty.sum())
        assert some > 0
    whole = samples(source)[SampleKey(0, 48, 0)]
    assert int((whole["sem_seg"] == 255).sum()) == 200, "one channel with data is enough"


def test_ignored_pixels_stay_ignored(tmp_path: Path) -> None:
    labels = blocks((48, 64))
    labels[:9, :7] = 255
    labels[40:, 50:] = 255
    data = samples(source_of(tmp_path, labels, pixels_of(np.where(labels == 255, 0, labels), 3, np.uint8)), channels=3)
    item = data[SampleKey(0, 48, 0)]["sem_seg"].numpy()
    assert np.array_equal(item, labels) or np.array_equal(item, labels[:, ::-1])


@pytest.mark.parametrize("patch_px", [0, 32])
def test_a_key_determines_all_random_numbers(tmp_path: Path, patch_px: int) -> None:
    labels = blocks((60, 80))
    source = source_of(tmp_path, labels, pixels_of(labels, 3, np.uint8), "a.png")
    options: dict[str, Any] = {"channels": 3, "patch_px": patch_px, "augment": "overhead", "jitter": 0.5}
    first, second = samples(source, **options), samples(source, **options)
    keys = [SampleKey(0, 60, seed) for seed in range(10)]
    items = [first[key] for key in keys]
    np.random.seed(99)
    again = [second[key] for key in reversed(keys)][::-1]
    for item, repeated in zip(items, again, strict=True):
        assert torch.equal(item["image"], repeated["image"]) and torch.equal(item["sem_seg"], repeated["sem_seg"])
    assert len({item["image"].numpy().tobytes() for item in items}) > 5


def test_colors_vary_and_labels_do_not(tmp_path: Path) -> None:
    labels = blocks((32, 48))
    source = source_of(tmp_path, labels, pixels_of(labels, 3, np.uint8), "a.png")
    plain, varied = (samples(source, channels=3, jitter=jitter) for jitter in (0.0, 1.0))
    for seed in range(5):
        original, jittered = plain[SampleKey(0, 32, seed)], varied[SampleKey(0, 32, seed)]
        assert torch.equal(original["sem_seg"], jittered["sem_seg"])
        assert not torch.equal(original["image"], jittered["image"])
        assert jittered["image"].dtype == torch.uint8


def test_gray_photos_beside_colored_ones(tmp_path: Path) -> None:
    labels = blocks((40, 56))
    colored = source_of(tmp_path, labels, pixels_of(labels, 3, np.uint8), "c.png")
    gray = source_of(tmp_path, labels, pixels_of(labels, 1, np.uint8), "g.png")
    for channels, sources in ((3, (colored, gray)), (1, (gray,))):
        data = samples(*sources, channels=channels, patch_px=24)
        for index in range(len(sources)):
            item = data[SampleKey(index, 40, 3)]
            assert tuple(item["image"].shape) == (channels, 24, 24)
            assert_aligned(item, clear_share=1)


@pytest.mark.parametrize("patch_px", [0, 16])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_changed_image_size_is_an_error_with_the_name(tmp_path: Path, patch_px: int, cache_bytes: int) -> None:
    labels = blocks((40, 56))
    source = source_of(tmp_path, labels, pixels_of(labels[:30], 5, np.float32))
    with pytest.raises(DataError, match=r"a\.npy: the size.*changed.*found 56 x 30 px; expected 56 x 40 px"):
        samples(source, patch_px=patch_px, cache_bytes=cache_bytes)[SampleKey(0, 40, 0)]
    reader = ImageReader(5, "RGB", RasterOptions())
    with pytest.raises(DataError, match=r"a\.npy: the size of the image has changed"):
        prediction_samples(source, reader, short_side_px=0, max_side_px=0)[0]


def prediction_samples(source: dict[str, Any], reader: ImageReader, **size: int) -> PredictionSamples:
    image = Image(7, "a.npy", source["width"], source["height"], Path(source["file_name"]))
    return PredictionSamples([image], reader=reader, size=InputSize(**size), is_semantic=True)


@pytest.mark.parametrize(("short_side_px", "expected"), [(0, (41, 83)), (20, (20, 40)), (60, (49, 100))])
def test_evaluation_sees_the_whole_image(tmp_path: Path, short_side_px: int, expected: tuple[int, int]) -> None:
    labels = blocks((41, 83))
    pixels = pixels_of(labels, 4, np.float32)
    source = source_of(tmp_path, labels, pixels)
    reader = ImageReader(4, "RGB", RasterOptions())
    data = prediction_samples(source, reader, short_side_px=short_side_px, max_side_px=100)
    item = data[0]
    assert len(data) == 1 and data.input_size(0) == tuple(item["image"].shape[1:]) == expected
    assert (item["height"], item["width"]) == (41, 83)
    sample = semantic_sample(pixels, short_side_px=short_side_px, max_side_px=100)
    assert torch.equal(sample["image"], item["image"])
    if not short_side_px:
        assert np.array_equal(item["image"].numpy(), pixels.transpose(2, 0, 1))


def test_halving_averages_pixels_and_takes_labels() -> None:
    image = np.arange(32, dtype=np.float32).reshape(4, 4, 2)
    half = resized(image, (2, 2))
    assert np.allclose(half, image.reshape(2, 2, 2, 2, 2).mean(axis=(1, 3)))
    labels = np.array([[0, 0, 3, 3], [0, 0, 3, 3], [1, 1, 2, 2], [1, 1, 2, 2]], np.uint8)
    assert resized_labels(labels, (2, 2)).tolist() == [[0, 3], [1, 2]]
    assert np.array_equal(resized_labels(resized_labels(labels, (2, 2)), (4, 4)), labels)
    assert resized(image, (4, 4)) is image and resized_labels(labels, (4, 4)) is labels
