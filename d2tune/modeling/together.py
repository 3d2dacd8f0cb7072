"""Losses of a batch that is divided over processes, as if one process had all of it.

Detectron2 divides losses by the counts of a process, pads images to the largest one of a process, and draws its samples
anew in each process; the mean over processes is then another loss than that of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.structures import ImageList
from detectron2.utils import comm
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

Result = TypeVar("Result")

_IS_DIVIDED: ContextVar[bool] = ContextVar("is_divided", default=False)

_OF_PROPOSALS, _OF_OBJECTS = ("loss_cls", "loss_box_reg"), ("loss_mask",)
"""How the losses begin that are means over all proposals, and over those of objects."""

_OF_PIXELS = ("loss_sem_seg", "loss_sem_seg_point")
"""The means over labeled pixels and points, in the order in which Detectron2 computes them."""


@contextmanager
def divided_batch() -> Iterator[None]:
    """Inside, the model of each process gets its images of a batch; all processes enter it together."""
    if comm.get_world_size() == 1:
        yield
        return
    token, own = _IS_DIVIDED.set(True), ImageList.__dict__["from_tensors"]
    ImageList.from_tensors = staticmethod(_padded_alike)
    try:
        yield
    finally:
        ImageList.from_tensors = own
        _IS_DIVIDED.reset(token)


def is_divided() -> bool:
    """Whether the model gets the images of a process of a batch of several."""
    return _IS_DIVIDED.get()


def divided_over() -> int:
    """The processes that a batch is divided over; 1 outside of `divided_batch`."""
    return comm.get_world_size() if is_divided() else 1


def shares(counts: Sequence[float]) -> list[float]:
    """What means over the counts of this process are multiplied by, so that their mean over processes is that of all.

    Args:
        counts: What the means of this process are divided by; each process gives as many.
    """
    own = torch.tensor([float(count) for count in counts], dtype=torch.float64)
    total = sum_of_all(own)
    return [float(one * divided_over() / of_all) if of_all else 1.0 for one, of_all in zip(own, total, strict=True)]


def sum_of_all(values: Tensor) -> Tensor:
    """The sum of values of all processes, through which no gradient flows."""
    if not is_divided():
        return values
    total = values.detach().to(_device_of_messages(), copy=True)
    distributed.all_reduce(total)
    return total.to(values.device)


def differentiable_sum(values: Tensor) -> Tensor:
    """The sum of values of all processes, whose gradient comes from the losses of all of them."""
    if not is_divided():
        return values
    from torch.distributed.nn import functional

    summed: Tensor = functional.all_reduce(values)  # type: ignore[no-untyped-call]
    return summed


def largest_of_all(sizes: Sequence[int]) -> list[int]:
    """The largest of each of some whole numbers over all processes."""
    if not is_divided():
        return list(sizes)
    largest = torch.tensor(list(sizes), device=_device_of_messages())
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return [int(size) for size in largest]


def all_counts(counts: Sequence[int]) -> list[list[int]]:
    """The counts of all processes, in their order; each process may give another number of them."""
    return comm.all_gather(list(counts)) if is_divided() else [list(counts)]


def rows_of_all(draw: Callable[..., Tensor], rows: int, *shape: int, rows_before: int, rows_total: int) -> Tensor:
    """Random numbers for the rows of this process, as one process would draw them for those of all.

    Args:
        draw: Takes a shape.
        rows: Rows of this process.
        shape: Of a row.
        rows_before: Rows of the processes before.
        rows_total: Rows of all processes.
    """
    return draw(rows_total, *shape)[rows_before : rows_before + rows]


def train_together(model: nn.Module) -> None:
    """Let the parts of a Detectron2 model that count or draw consider the images of all processes.

    Random numbers are those of one process on the CPU only; on GPUs each process draws its own.

    Args:
        model: The model in training; it changes nothing outside of `divided_batch`.
    """
    for module in list(model.modules()):
        if isinstance(module, RPN):
            module.label_and_sample_anchors = _in_turn(module.label_and_sample_anchors)
        elif isinstance(module, ROIHeads):
            _share_counts(module)
    head = getattr(model, "sem_seg_head", None)
    if isinstance(head, nn.Module):
        _share_pixels(head)


def _device_of_messages() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def _draws_alike() -> bool:
    return is_divided() and distributed.get_backend() == "gloo"


def _padded_alike(tensors: Sequence[Tensor], *args: Any, **options: Any) -> ImageList:
    """``ImageList.from_tensors`` with the padding of the largest image of all processes."""
    own = _FROM_TENSORS(tensors, *args, **options)
    height_px, width_px = own.tensor.shape[-2:]
    tallest, widest = largest_of_all([height_px, width_px])
    pad_value = options.get("pad_value", args[1] if len(args) > 1 else 0.0)
    padded = F.pad(own.tensor, (0, widest - width_px, 0, tallest - height_px), value=pad_value)
    return ImageList(padded.contiguous(), own.image_sizes)


_FROM_TENSORS = ImageList.from_tensors


def _in_turn(work: Callable[..., Result]) -> Callable[..., Result]:
    """Let the processes do some work one after the other, each with the random numbers that the one before left."""

    def in_turn(*args: Any, **options: Any) -> Result:
        if not _draws_alike():
            return work(*args, **options)
        results = []
        for rank in range(comm.get_world_size()):
            if rank == comm.get_rank():
                results.append(work(*args, **options))
            state = torch.get_rng_state()
            distributed.broadcast(state, src=rank)
            torch.set_rng_state(state)
        return results[0]

    return in_turn


def _share_counts(heads: Any) -> None:
    """Divide the losses of proposals by the counts of all processes."""
    sample, forward = _in_turn(heads.label_and_sample_proposals), heads.forward
    counts = [[0, 0]]

    def label_and_sample_proposals(*args: Any, **options: Any) -> Any:
        proposals = sample(*args, **options)
        if is_divided():
            classes = torch.cat([one.gt_classes for one in proposals])
            objects = int(((classes >= 0) & (classes < heads.num_classes)).sum())
            counts[:] = all_counts([len(classes), objects])
        return proposals

    def forward_together(*args: Any, **options: Any) -> Any:
        result, losses = forward(*args, **options)
        if is_divided() and losses and heads.training:
            proposals, objects = shares(counts[comm.get_rank()])
            for name in losses:
                if name.startswith(_OF_PROPOSALS):
                    losses[name] = losses[name] * proposals
                elif name.startswith(_OF_OBJECTS):
                    losses[name] = losses[name] * objects
        return result, losses

    heads.label_and_sample_proposals = label_and_sample_proposals
    heads.forward = forward_together
    mask_head = getattr(heads, "mask_head", None)
    choose = getattr(mask_head, "_sample_train_points", None)
    if choose is not None:  # PointRend's, which is imported for models that have it alone

        def choose_points(*args: Any) -> Any:
            if not _draws_alike():
                return choose(*args)
            with _RowsOfAll([objects for _, objects in counts]):
                return choose(*args)

        heads.mask_head._sample_train_points = choose_points


def _share_pixels(head: Any) -> None:
    """Divide the losses of a semantic head by the labeled pixels and points of all processes."""
    forward = head.forward

    def forward_together(features: Any, targets: Tensor | None = None, *rest: Any) -> Any:
        if not is_divided() or targets is None:
            return forward(features, targets, *rest)
        images = [len(targets)] * comm.get_world_size()
        with _RowsOfAll(images if _draws_alike() else [len(targets)]), _CountedMeans() as means:
            result, losses = forward(features, targets, *rest)
        factors = shares([*means.counts, 0, 0][: len(_OF_PIXELS)])
        for name, factor in zip(_OF_PIXELS, factors, strict=True):
            if name in losses:
                losses[name] = losses[name] * factor
        return result, losses

    head.forward = forward_together


class _RowsOfAll(TorchFunctionMode):
    """Inside, ``torch.rand`` gives the rows of this process of what is drawn for all processes.

    Args:
        rows: Rows of each process.
    """

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__()
        self._rows = list(rows)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is not torch.rand or len(self._rows) == 1:
            return func(*args, **options)
        before = sum(self._rows[: comm.get_rank()])
        return rows_of_all(
            lambda *shape: torch.rand(*shape, **options), *args, rows_before=before, rows_total=sum(self._rows)
        )


class _CountedMeans(TorchFunctionMode):
    """Counts the labels that each mean of ``F.cross_entropy`` is over.

    Attributes:
        counts: In the order of the calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is F.cross_entropy and options.get("reduction", "mean") == "mean":
            labels = args[1] if len(args) > 1 else options["target"]
            self.counts.append(int((labels != options.get("ignore_index", -100)).sum()))
        return func(*args, **options)
