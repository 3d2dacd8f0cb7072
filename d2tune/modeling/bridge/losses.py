"""Losses of label maps: cross entropy, Dice, focal, Lovasz-softmax, and weighted sums of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2tune.errors import ProjectError, nearest

IGNORED = 255
"""Label of ignored pixels."""

FOCUS = 2.0
"""The focal loss's exponent, gamma, which Lin et al. found best."""


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean of ``-log p`` of the pixels' own classes, each pixel weighted as its class is.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.
        class_weights: ``(K,)``; None counts all classes the same.

    Returns:
        A scalar; 0 where no pixel is labeled.
    """
    return focal(logits, labels, class_weights, focus=0.0)


def focal(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, *, focus: float = FOCUS) -> Tensor:
    """Cross entropy in which pixels count less the surer they are: ``-(1 - p)^focus log p``.

    Equation 5 of Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, with a softmax in place of their
    sigmoid; the class weights are their alpha.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.
        class_weights: ``(K,)``; None counts all classes the same.
        focus: Gamma; 0 gives cross entropy.

    Returns:
        A scalar, the weighted mean over the labeled pixels; 0 where there is none.
    """
    surprise = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    weight = (labels != IGNORED).to(surprise.dtype)
    if class_weights is not None:
        weight = weight * class_weights[labels.clamp(max=len(class_weights) - 1)]
    if focus > 0:
        surprise = (1 - torch.exp(-surprise)).clamp(min=0).pow(focus) * surprise
    return (weight * surprise).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the soft Dice coefficient ``2 sum(p g) / (sum p + sum g)``, the mean over the classes present.

    Sums run over the labeled pixels of the whole batch. The coefficient is that of Milletari et al. (V-Net, 3DV 2016)
    with plain instead of squared sums below the line, as in Sudre et al., DLMIA 2017.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.

    Returns:
        A scalar between 0 and 1; 0 where no pixel is labeled.
    """
    labeled = (labels != IGNORED).unsqueeze(1)
    scores = logits.softmax(1) * labeled
    truth = F.one_hot(labels.masked_fill(labels == IGNORED, 0), logits.shape[1]).movedim(-1, 1) * labeled
    over_pixels = (0, 2, 3)
    true_sum = truth.sum(over_pixels)
    present = true_sum > 0
    both = scores.sum(over_pixels) + true_sum
    coefficient = 2 * (scores * truth).sum(over_pixels) / both.clamp(min=torch.finfo(scores.dtype).tiny)
    return ((1 - coefficient) * present).sum() / present.sum().clamp(min=1)


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """The Lovasz-softmax loss: a convex extension of ``1 - IoU``, the mean over the classes present.

    Equation 11 and algorithm 1 of Berman et al., CVPR 2018 (arXiv:1705.08790): a class's errors, sorted from the
    largest, are weighted by how much each of them, added to the ones before it, lowers the class's IoU. All labeled
    pixels of the batch are taken together.

    Args:
        logits: ``(N, K, h, w)``.
        labels: ``(N, h, w)`` int64, 255 = ignored.

    Returns:
        A scalar between 0 and 1; 0 where no pixel is labeled.
    """
    keep = labels != IGNORED
    scores = logits.softmax(1).movedim(1, -1)[keep]
    kept = labels[keep]
    present = kept.unique().tolist()  # type: ignore[no-untyped-call]
    total = scores.sum() * 0
    for place in present:
        total = total + _lovasz_of_class(scores[:, place], kept == place)
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
"""By the names that ``model.loss`` takes. Dice and Lovasz count each class present the same by themselves."""


class WeightedLosses(nn.Module):
    """Several losses, each times its weight.

    Args:
        terms: Pairs of a name of ``LOSSES`` and its weight.
        classes: How many classes there are.
        class_weights: One for each class, for cross entropy and focal loss; empty counts all the same.

    Raises:
        ProjectError: A loss is unknown, or the class weights are not as many as the classes.
    """

    def __init__(
        self, *, terms: Sequence[tuple[str, float]], classes: int, class_weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        for name, _ in terms:
            if name not in LOSSES:
                hint = f"Did you mean {nearest(name, LOSSES)!r}?" if nearest(name, LOSSES) else None
                raise ProjectError(
                    f"no loss {name!r}", place="model.loss", expected=f"one of {', '.join(LOSSES)}", hint=hint
                )
        if class_weights and len(class_weights) != classes:
            raise ProjectError(
                "the class weights are not as many as the classes",
                place="model.class_weights",
                found=f"{len(class_weights)} weights",
                expected=f"{classes}, one for each class",
            )
        self.terms = [(str(name), float(weight)) for name, weight in terms]
        weights = torch.tensor(class_weights, dtype=torch.float32) if class_weights else None
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The weighted losses by name, ``loss_dice`` and so on.

        Args:
            logits: ``(N, K, h, w)``, of any float type; taken as float32.
            labels: ``(N, h, w)`` int64, 255 = ignored.
        """
        logits = logits.float()
        return {
            f"loss_{name}": weight * LOSSES[name](logits, labels, self.class_weights) for name, weight in self.terms
        }


WEIGHT_LIMIT = 10.0
"""Balanced weights lie between one tenth and this, so that a class of few pixels does not drown the others."""


def balanced_weights(class_pixels: Sequence[int]) -> tuple[float, ...]:
    """Weights that make rare classes count: the median of the classes' pixels over each class's own.

    Median frequency balancing as in Eigen and Fergus, ICCV 2015, section 6.3.2, over all pixels and within
    ``WEIGHT_LIMIT``. A class without pixels weighs 1.

    Args:
        class_pixels: Pixels of each class in the training split.
    """
    there = [pixels for pixels in class_pixels if pixels > 0]
    if not there:
        return tuple(1.0 for _ in class_pixels)
    median = statistics.median(there)
    return tuple(
        min(WEIGHT_LIMIT, max(1 / WEIGHT_LIMIT, median / pixels)) if pixels > 0 else 1.0 for pixels in class_pixels
    )
