"""Losses of label maps: cross entropy, Dice, focal, Lovasz-softmax, and weighted sums of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.errors import ProjectError, nearest
from d2tune.modeling.together import differentiable_sum, divided_over, sum_of_all

FOCUS = 2.0
"""The exponent (gamma) of the focal loss with the best results of Lin et al."""


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The mean of ``-log p`` of the annotated classes, weighted by class.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.
        class_weights: ``(K,)``; None weights all classes equally.

    Returns:
        A scalar; 0 without labeled pixels.
    """
    return focal(logits, labels, class_weights, focus=0.0)


def focal(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, *, focus: float = FOCUS) -> Tensor:
    """Cross entropy with a lower weight for pixels of high probability: ``-(1 - p)^focus log p``.

    Equation 5 of Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, with softmax instead of sigmoid; the
    class weights are their alpha.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.
        class_weights: ``(K,)``; None weights all classes equally.
        focus: Gamma; 0 gives cross entropy.

    Returns:
        A scalar, the weighted mean over the labeled pixels; 0 without labeled pixels.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, reduction="none")
    weight = (labels != IGNORE_LABEL).to(losses.dtype)
    if class_weights is not None:
        weight = weight * class_weights[labels.clamp(max=len(class_weights) - 1)]
    if focus > 0:
        losses = (1 - torch.exp(-losses)).clamp(min=0).pow(focus) * losses
    mean_weight = sum_of_all(weight.sum()) / divided_over()
    return (weight * losses).sum() / mean_weight.clamp(min=torch.finfo(weight.dtype).tiny)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice coefficient ``2 sum(p g) / (sum p + sum g)``, the mean over the classes present.

    The sums are over the labeled pixels of the whole batch. The coefficient is that of Milletari et al. (V-Net, 3DV
    2016) with sums instead of sums of squares in the denominator, as in Sudre et al., DLMIA 2017.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.

    Returns:
        A scalar from 0 to 1; 0 without labeled pixels.
    """
    labeled = (labels != IGNORE_LABEL).unsqueeze(1)
    scores = logits.softmax(1) * labeled
    truth = F.one_hot(labels.masked_fill(labels == IGNORE_LABEL, 0), logits.shape[1]).movedim(-1, 1) * labeled
    over_pixels = (0, 2, 3)
    true_sum = sum_of_all(truth.sum(over_pixels))
    present = true_sum > 0
    both = differentiable_sum(scores.sum(over_pixels)) + true_sum
    common = differentiable_sum((scores * truth).sum(over_pixels))
    coefficient = 2 * common / both.clamp(min=torch.finfo(scores.dtype).tiny)
    return ((1 - coefficient) * present).sum() / present.sum().clamp(min=1)


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """The Lovasz-softmax loss: a convex extension of ``1 - IoU``, the mean over the classes present.

    Equation 11 and algorithm 1 of Berman et al., CVPR 2018 (arXiv:1705.08790): the errors of a class in descending
    order, each weighted by the decrease of the IoU of the class when it is added to the previous errors. All labeled
    pixels of the batch are taken together.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.

    Returns:
        A scalar from 0 to 1; 0 without labeled pixels.
    """
    keep = labels != IGNORE_LABEL
    scores = logits.softmax(1).movedim(1, -1)[keep]
    kept = labels[keep]
    present = kept.unique().tolist()  # type: ignore[no-untyped-call]
    total = scores.sum() * 0
    for class_id in present:
        total = total + _lovasz_of_class(scores[:, class_id], kept == class_id)
    return total / max(1, len(present))


def _lovasz_of_class(scores: Tensor, truth: Tensor) -> Tensor:
    errors, order = torch.where(truth, 1 - scores, scores).sort(descending=True)
    wrong_truth = truth[order].to(scores.dtype)
    missed = wrong_truth.cumsum(0)
    false_alarms = (1 - wrong_truth).cumsum(0)
    size = missed[-1]
    jaccard_loss = 1 - (size - missed) / (size + false_alarms)
    steps = torch.diff(jaccard_loss, prepend=jaccard_loss.new_zeros(1))
    return (errors * steps).sum()


_Loss = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]

LOSSES: dict[str, _Loss] = {
    "cross_entropy": cross_entropy,
    "dice": lambda logits, labels, _: dice(logits, labels),
    "focal": focal,
    "lovasz": lambda logits, labels, _: lovasz(logits, labels),
}
"""The losses by their names in ``model.loss``. Dice and Lovasz weight all present classes equally."""


class WeightedLosses(nn.Module):
    """A weighted sum of losses, as separate terms.

    Args:
        terms: Pairs of a name of ``LOSSES`` and its weight.
        classes: Number of classes.
        class_weights: A weight for each class, for cross entropy and focal loss; empty weights all classes equally.

    Raises:
        ProjectError: A loss is unknown, or the number of class weights is not the number of classes.
    """

    def __init__(
        self, *, terms: Sequence[tuple[str, float]], classes: int, class_weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        for name, _ in terms:
            if name not in LOSSES:
                similar = nearest(name, LOSSES)
                raise ProjectError(
                    f"the loss {name!r} is unknown",
                    place="model.loss",
                    expected=", ".join(LOSSES),
                    hint=f"Did you mean {similar!r}?" if similar else None,
                )
        if class_weights and len(class_weights) != classes:
            raise ProjectError(
                "the number of class weights is not the number of classes",
                place="model.class_weights",
                found=f"{len(class_weights)} weights",
                expected=str(classes),
            )
        self.terms = [(str(name), float(weight)) for name, weight in terms]
        weights = torch.tensor(class_weights, dtype=torch.float32) if class_weights else None
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The weighted losses by name, ``loss_dice`` and so on.

        Args:
            logits: ``(N, K, h, w)``, of any float type; converted to float32.
            labels: ``(N, h, w)`` int64, 255 = ignored.
        """
        logits = logits.float()
        return {
            f"loss_{name}": weight * LOSSES[name](logits, labels, self.class_weights) for name, weight in self.terms
        }


WEIGHT_LIMIT = 10.0
"""Largest balanced weight, so that a rare class does not dominate; the smallest is its inverse."""


def balanced_weights(class_pixels: Sequence[int]) -> tuple[float, ...]:
    """Larger weights for rare classes: the median number of pixels of the classes, divided by that of each class.

    Median frequency balancing as in Eigen and Fergus, ICCV 2015, section 6.3.2, over all pixels and limited by
    ``WEIGHT_LIMIT``. The weight of a class without pixels is 1.

    Args:
        class_pixels: Number of pixels of each class in the training split.
    """
    present = [pixels for pixels in class_pixels if pixels > 0]
    if not present:
        return tuple(1.0 for _ in class_pixels)
    median = statistics.median(present)
    return tuple(
        min(WEIGHT_LIMIT, max(1 / WEIGHT_LIMIT, median / pixels)) if pixels > 0 else 1.0 for pixels in class_pixels
    )
