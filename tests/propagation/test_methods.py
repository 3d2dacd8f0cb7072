"""The order of frames, windows, the loss, confidences, optical flow and the network itself."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from d2tune.errors import DataError, ProjectError, WeightsError
from d2tune.propagation.methods import method_named
from d2tune.propagation.methods.base import Reference
from d2tune.propagation.methods.fine_tuning import FineTuning
from d2tune.propagation.methods.flow import Flow, FlowEstimator, moved, returns, separate
from d2tune.propagation.methods.identity import identity_of
from d2tune.propagation.methods.learner import band_confidence, loss_of, sample_of
from d2tune.propagation.methods.network import PropagationNetwork
from d2tune.propagation.methods.order import steps_of
from d2tune.propagation.methods.variants import ground_of, rearranged, varied
from d2tune.propagation.methods.windows import Window, merged_windows, whole, window_around
from tests.propagation.clips import GREEN, RED, Clip, iou, render, texture
from tests.shared_files import SHARED

WEIGHTS = SHARED / "weights" / "mobilenet_v2_imagenet.pth"


class Images:
    """The frames of a rendered clip."""

    def __init__(self, clip: Clip) -> None:
        from d2tune.annotations.io.photos.reading import read_photo

        self._images = [read_photo(path) for path in clip.paths]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[index]


@pytest.mark.parametrize(
    ("count", "references", "expected"),
    [
        (4, [0], [(0, 1), (1, 2), (2, 3)]),
        (4, [2], [(2, 3), (2, 1), (1, 0)]),
        (5, [0, 4], [(0, 1), (1, 2), (4, 3)]),
        (4, [0, 3], [(0, 1), (3, 2)]),
        (3, [0, 1, 2], []),
        (1, [0], []),
    ],
)
def test_every_frame_is_reached_once_from_the_nearest_reference(
    count: int, references: list[int], expected: list[tuple[int, int]]
) -> None:
    assert list(steps_of(count, references)) == expected


def test_a_window_is_around_the_masks_with_a_margin_inside_the_frame() -> None:
    mask = np.zeros((100, 200), bool)
    mask[40:60, 150:190] = True
    # the longer side has 40 px: a margin of 0.6 * 40 + 0.05 * 200 = 34 px, cut off at the right edge
    assert window_around([mask], mask.shape) == Window(116, 6, 84, 88)
    assert window_around([np.zeros_like(mask)], mask.shape) == whole(mask.shape) == Window(0, 0, 200, 100)


def test_the_input_has_the_same_area_whatever_the_window_has_and_is_enlarged_twice_at_most() -> None:
    assert Window(0, 0, 1920, 1080).input_size == (416, 256)
    assert Window(0, 0, 1080, 1920).input_size == (256, 416)
    assert Window(0, 0, 80, 64).input_size == (160, 128)
    assert Window(0, 0, 3000, 20).input_size == (3904, 64)


def test_windows_that_overlap_are_joined() -> None:
    a, b, far, bridge = Window(0, 0, 10, 10), Window(8, 8, 10, 10), Window(50, 0, 5, 5), Window(15, 0, 40, 3)
    assert merged_windows([a, far]) == [a, far]
    assert merged_windows([a, far, b]) == [far, Window(0, 0, 18, 18)]
    assert merged_windows([a, far, b, bridge]) == [Window(0, 0, 55, 18)]


def test_variants_keep_labels_on_their_pixels() -> None:
    image = np.full((60, 80, 3), 20, np.uint8)
    image[20:40, 30:60] = 220
    labels = (image[..., 0] > 128).astype(np.uint8)
    chance = random.Random(1)
    for _ in range(20):
        pixels, classes = varied(image, labels, Window(10, 5, 60, 50), chance)
        assert pixels.shape[:2] == classes.shape == (96, 128)
        bright, dark = pixels[classes == 1], pixels[classes == 0]
        assert len(bright) and np.median(bright) > np.median(dark) + 100
        assert set(np.unique(classes)) <= {0, 1, 255}


def test_moved_objects_take_their_labels_along_over_a_filled_ground() -> None:
    image = np.full((60, 80, 3), 20, np.uint8)
    labels = np.zeros((60, 80), np.uint8)
    image[10:30, 10:30], labels[10:30, 10:30] = 220, 1
    image[40:55, 50:75], labels[40:55, 50:75] = (20, 220, 20), 2
    ground = ground_of(image, labels)
    assert ground.shape == image.shape and ground.max() < 40
    chance, shown, places = random.Random(2), 0, []
    for _ in range(30):
        pixels, classes = rearranged(image, ground, labels, whole(labels.shape), chance)
        assert pixels.shape[:2] == classes.shape == (128, 160)
        assert set(np.unique(classes)) <= {0, 1, 2}
        if (classes == 1).sum() > 200:
            shown += 1
            places.append(np.argwhere(classes == 1).mean(axis=0))
            assert np.median(pixels[classes == 1][:, 0]) > np.median(pixels[classes == 0][:, 0]) + 100
    assert 15 <= shown < 30
    assert np.ptp(np.array(places), axis=0).min() > 40


def test_the_smaller_of_overlapping_objects_is_in_front() -> None:
    large, small = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    large[:15], small[5:8, 5:8] = True, True
    sample = sample_of(np.zeros((20, 20, 3), np.uint8), {4: small, 9: large}, {4: 1, 9: 2})
    assert np.count_nonzero(sample.labels == 1) == 9
    assert np.count_nonzero(sample.labels == 2) == 300 - 9


def test_the_loss_is_cross_entropy_and_half_of_dice() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    targets = torch.tensor([[[0, 1], [1, 255]]])
    # probabilities are 0.5: entropy ln 2; Dice of 3 valid pixels (2 * 1 + 1) / (1.5 + 2 + 1)
    assert loss_of(logits, targets).item() == pytest.approx(np.log(2) + 0.5 * (1 - 3 / 4.5))
    only_ground = torch.zeros(1, 2, 2, dtype=torch.long)
    assert loss_of(logits, only_ground).item() == pytest.approx(np.log(2))


def test_confidence_is_that_of_the_band_around_the_outline() -> None:
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    sharp = mask.astype(np.float32)
    assert band_confidence(sharp, mask) == 1
    unsure_inside = sharp.copy()
    unsure_inside[28:32, 28:32] = 0.5
    assert band_confidence(unsure_inside, mask) == 1
    assert band_confidence(np.where(mask, 0.75, 0.25).astype(np.float32), mask) == pytest.approx(0.5)


def test_masks_of_several_objects_do_not_overlap_and_empty_ones_are_missing() -> None:
    first, second = np.full((4, 4), 0.6, np.float32), np.zeros((4, 4), np.float32)
    second[:2] = 0.9
    masks = separate({3: first, 5: second, 7: np.full((4, 4), 0.4, np.float32)})
    assert sorted(masks) == [3, 5]
    assert masks[3].sum() == masks[5].sum() == 8 and not (masks[3] & masks[5]).any()
    assert separate({}) == {}


def test_optical_flow_finds_a_shift_there_and_back() -> None:
    ground = texture(180, 120)
    before, after = ground[10:100, 10:160], ground[12:102, 7:157]  # 3 px to the right, 2 px up
    dense = FlowEstimator()
    back, forth = dense.between(after, before), dense.between(before, after)
    inside = (slice(15, -15), slice(15, -15))
    assert np.median(back[inside][..., 0]) == pytest.approx(-3, abs=0.2)
    assert np.median(back[inside][..., 1]) == pytest.approx(2, abs=0.2)
    assert returns(back, forth)[inside].mean() > 0.95
    mask = np.zeros((90, 150), np.float32)
    mask[40:60, 50:80] = 1
    expected = np.zeros((90, 150), bool)
    expected[38:58, 53:83] = True
    assert iou(moved(mask, back) >= 0.5, expected) > 0.9
    other = dense.between(after, texture(150, 90)[::-1].copy())
    assert returns(back, -other)[inside].mean() < 0.5


def test_reduced_frames_give_the_flow_of_the_whole_ones() -> None:
    ground = np.kron(texture(240, 160), np.ones((4, 4, 1), np.uint8))
    back = FlowEstimator().between_small(ground[40:600, 40:900], ground[40:600, 56:916])
    assert back.shape == (560, 860, 2)
    assert np.median(back[..., 0]) == pytest.approx(-16, abs=1.5)


def test_flow_starts_again_at_each_reference(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [replace(RED, step_px=(2, 1))], count=7)
    references = [Reference(index, {0: clip.masks[index][0]}) for index in (0, 6)]
    results = {one.index: one for one in Flow().propagate(Images(clip), references, finished={})}
    assert sorted(results) == [1, 2, 3, 4, 5]
    assert all(iou(results[index].masks[0], clip.masks[index][0]) > 0.8 for index in results)
    assert all(result.confidences[0] > 0.9 for result in results.values())


def test_flow_goes_on_from_finished_frames(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [RED], count=5)
    wrong = np.zeros_like(clip.masks[0][0])
    wrong[5:15, 100:110] = True
    results = list(Flow().propagate(Images(clip), [Reference(0, {0: clip.masks[0][0]})], finished={1: {0: wrong}}))
    assert [one.index for one in results] == [2, 3, 4]
    assert iou(results[0].masks[0], wrong) > 0.8


def test_fine_tuning_follows_an_object(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [replace(RED, starts_px=(16, 20), radius_px=9)], count=3, size=(64, 48))
    method = FineTuning(str(WEIGHTS), steps=70)
    references = [Reference(1, {3: clip.masks[1][0]})]
    results = {one.index: one for one in method.propagate(Images(clip), references, finished={})}
    assert sorted(results) == [0, 2]
    assert all(iou(result.masks[3], clip.masks[index][0]) > 0.7 for index, result in results.items())


@pytest.mark.extended
def test_fine_tuning_follows_objects_of_which_one_leaves_and_comes_back(tmp_path: Path) -> None:
    clip = render(tmp_path / "frames", [RED, replace(GREEN, hidden=range(2, 4))], count=6)
    first = Reference(0, {0: clip.masks[0][0], 4: clip.masks[0][1]})
    method = FineTuning(str(WEIGHTS), steps=200)
    results = {one.index: one for one in method.propagate(Images(clip), [first], finished={})}
    assert sorted(results) == [1, 2, 3, 4, 5]
    for index, result in results.items():
        red, green = clip.masks[index]
        assert iou(result.masks[0], red) > 0.85
        assert (4 in result.masks) == bool(green.any())
        assert set(result.confidences) == {0, 4}
        assert all(0 <= value <= 1 for value in result.confidences.values())
    assert iou(results[5].masks[4], clip.masks[5][1]) > 0.7


def test_pretrained_weights_must_be_those_of_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, path)
    network = PropagationNetwork(1)
    with pytest.raises(WeightsError, match=r"other\.pth: \d+ tensors of the encoder are missing.*mobilenet_v2"):
        network.load_encoder(torch.load(path, weights_only=True), file=path)
    with pytest.raises(WeightsError, match="the weights file does not exist"):
        method_named("fine-tuning", weights=str(tmp_path / "none.pth"))


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ProjectError, match="--method: is not a method; found median; expected fine-tuning, flow"):
        method_named("median")


def test_fine_tuning_refuses_more_objects_than_label_maps_have_numbers() -> None:
    mask = np.ones((4, 4), bool)
    with pytest.raises(DataError, match="fewer objects; found 255 objects; expected 254 at most"):
        next(FineTuning(str(WEIGHTS)).propagate([], [Reference(0, dict.fromkeys(range(255), mask))], finished={}))


def test_the_identity_of_weights_depends_on_names_and_values_alone() -> None:
    a, b = torch.ones(2), torch.zeros(3)
    same = {identity_of({"a": a, "b": b}), identity_of({"b": b.clone(), "a": a.clone()})}
    assert len(same) == 1
    assert len(same | {identity_of({"a": a + 1, "b": b}), identity_of({"c": a, "b": b})}) == 3
