import math

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from d2tune.errors import ProjectError
from d2tune.modeling.bridge.losses import (
    LOSSES,
    WeightedLosses,
    balanced_weights,
    cross_entropy,
    dice,
    focal,
    lovasz,
)


def random_labels(classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 9, 7, generator=random, dtype=torch.float64)
    labels = torch.randint(classes, (2, 9, 7), generator=random)
    labels[:, :2] = 255
    return logits, labels


def labeled_pixels(logits: Tensor, labels: Tensor) -> list[tuple[list[float], int]]:
    """Probabilities and class of every labeled pixel, one by one."""
    labeled = []
    for image, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for y, row in enumerate(label):
            for x, class_id in enumerate(row):
                if class_id != 255:
                    powers = [math.exp(plane[y][x]) for plane in image]
                    labeled.append(([power / sum(powers) for power in powers], class_id))
    return labeled


def jaccard_loss(truth: list[bool], wrong: set[int]) -> float:
    """``1 - IoU`` of a class where exactly the pixels ``wrong`` are classified wrongly."""
    there = {place for place, one in enumerate(truth) if one}
    return 1 - len(there - wrong) / len(there | wrong)


class TestByLoops:
    @pytest.mark.parametrize("weights", [None, [1.0, 0.2, 3.0, 0.0]])
    @pytest.mark.parametrize("focus", [0.0, 1.0, 2.0])
    def test_focal_and_cross_entropy(self, weights: list[float] | None, focus: float) -> None:
        logits, labels = random_labels()
        per_class = weights or [1.0] * 4
        pixels = labeled_pixels(logits, labels)
        losses = [per_class[k] * -((1 - scores[k]) ** focus) * math.log(scores[k]) for scores, k in pixels]
        expected = sum(losses) / sum(per_class[k] for _, k in pixels)
        given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        assert focal(logits, labels, given, focus=focus).item() == pytest.approx(expected, rel=1e-9)

    def test_dice(self) -> None:
        logits, labels = random_labels()
        labels[labels == 3] = 255  # a class without pixels
        pixels = labeled_pixels(logits, labels)
        losses = []
        for k in range(3):
            both = sum(scores[k] for scores, class_id in pixels if class_id == k)
            total = sum(scores[k] for scores, _ in pixels) + sum(class_id == k for _, class_id in pixels)
            losses.append(1 - 2 * both / total)
        assert dice(logits, labels).item() == pytest.approx(sum(losses) / 3, rel=1e-9)

    def test_lovasz(self) -> None:
        logits, labels = random_labels()
        labels[labels == 3] = 255
        pixels = labeled_pixels(logits, labels)
        losses = []
        for k in range(3):
            truth = [class_id == k for _, class_id in pixels]
            errors = [1 - scores[k] if class_id == k else scores[k] for scores, class_id in pixels]
            wrong: set[int] = set()
            loss, before = 0.0, 0.0
            for pixel in sorted(range(len(errors)), key=lambda pixel: -errors[pixel]):
                wrong.add(pixel)
                after = jaccard_loss(truth, wrong)
                loss, before = loss + errors[pixel] * (after - before), after
            losses.append(loss)
        assert lovasz(logits, labels).item() == pytest.approx(sum(losses) / 3, rel=1e-9)


class TestAgainstLibraries:
    def test_cross_entropy_is_pytorchs(self) -> None:
        logits, labels = random_labels()
        weights = torch.tensor([1.0, 0.2, 3.0, 0.5], dtype=torch.float64)
        expected = torch.nn.functional.cross_entropy(logits, labels, weights, ignore_index=255)
        assert torch.allclose(cross_entropy(logits, labels, weights), expected)

    def test_dice_and_lovasz_are_those_of_segmentation_models(self) -> None:
        logits, labels = random_labels()
        their_dice = smp.losses.DiceLoss(mode="multiclass", ignore_index=255)
        assert torch.allclose(dice(logits, labels), their_dice(logits, labels))
        their_lovasz = smp.losses.LovaszLoss(mode="multiclass", ignore_index=255)
        assert torch.allclose(lovasz(logits.float(), labels), their_lovasz(logits.float(), labels), atol=1e-6)


class TestByHand:
    def test_two_pixels(self) -> None:
        logits = torch.tensor([[[[0.0, math.log(3)]], [[0.0, 0.0]]]])  # p of class 0: 1/2 and 3/4
        labels = torch.tensor([[[0, 1]]])
        assert cross_entropy(logits, labels).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
        expected_focal = (0.25 * math.log(2) + 0.5625 * math.log(4)) / 2
        assert focal(logits, labels).item() == pytest.approx(expected_focal)
        assert dice(logits, labels).item() == pytest.approx(((1 - 1 / 2.25) + (1 - 0.5 / 1.75)) / 2)
        # both classes: errors 3/4 on the second pixel, 1/2 on the first, whose first wrong pixel halves or empties IoU
        assert lovasz(logits, labels).item() == pytest.approx(((0.75 * 0.5 + 0.5 * 0.5) + 0.75) / 2)

    @pytest.mark.parametrize("name", LOSSES)
    def test_the_loss_is_zero_for_correct_and_large_for_wrong_logits(self, name: str) -> None:
        labels = torch.tensor([[[0, 1, 2, 255]]])
        right = torch.full((1, 3, 1, 4), -30.0)
        for class_id in range(3):
            right[0, class_id, 0, class_id] = 30.0
        assert LOSSES[name](right, labels, None).item() == pytest.approx(0, abs=1e-6)
        assert LOSSES[name](-right, labels, None).item() > 0.6

    @pytest.mark.parametrize("name", LOSSES)
    def test_ignored_pixels_change_nothing(self, name: str) -> None:
        logits, labels = random_labels()
        before = LOSSES[name](logits, labels, None)
        logits[:, :, :2] = 100 * torch.rand(2, 4, 2, 7)
        assert torch.equal(LOSSES[name](logits, labels, None), before)

    @pytest.mark.parametrize("name", LOSSES)
    def test_gradients(self, name: str) -> None:
        logits, labels = random_labels()
        cut = logits[:, :, 1:4, :2].clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, labels[:, 1:4, :2], None), cut)


class TestWeighted:
    def test_each_term_times_its_weight(self) -> None:
        logits, labels = random_labels()
        losses = WeightedLosses(terms=[("dice", 0.5), ("lovasz", 2.0)], classes=4)(logits, labels)
        assert list(losses) == ["loss_dice", "loss_lovasz"]
        assert losses["loss_dice"].item() == pytest.approx(0.5 * dice(logits, labels).item(), rel=1e-5)
        assert losses["loss_lovasz"].item() == pytest.approx(2 * lovasz(logits, labels).item(), rel=1e-5)

    def test_half_precision_is_taken_as_float32(self) -> None:
        logits, labels = random_labels()
        losses = WeightedLosses(terms=[(name, 1.0) for name in LOSSES], classes=4)(logits.bfloat16(), labels)
        assert {loss.dtype for loss in losses.values()} == {torch.float32}

    def test_mistakes(self) -> None:
        with pytest.raises(ProjectError, match=r"the loss 'dise' is unknown.*Did you mean 'dice'"):
            WeightedLosses(terms=[("dise", 1.0)], classes=2)
        with pytest.raises(ProjectError, match="found 3 weights; expected 2"):
            WeightedLosses(terms=[("dice", 1.0)], classes=2, class_weights=[1.0, 1.0, 1.0])


class TestBalanced:
    @pytest.mark.parametrize(
        ("pixels", "weights"),
        [
            ((100, 50, 25), (0.5, 1.0, 2.0)),
            ((100, 100), (1.0, 1.0)),
            ((10**9, 10**6, 1), (0.1, 1.0, 10.0)),
            ((100, 0, 50, 25), (0.5, 1.0, 1.0, 2.0)),
            ((0, 0), (1.0, 1.0)),
            ((), ()),
        ],
    )
    def test_by_hand(self, pixels: tuple[int, ...], weights: tuple[float, ...]) -> None:
        assert balanced_weights(pixels) == pytest.approx(weights)
