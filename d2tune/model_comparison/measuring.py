"""Time and memory of a prediction."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from d2tune.inference.images import ImageLike
from d2tune.inference.predictors.base import Predictor

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a prediction of one image takes.

    Attributes:
        prepare_s: Seconds for resizing the image.
        network_s: Seconds in the network.
        finish_s: Seconds for the result at the size of the image.
        weights_bytes: Memory of the weights; None where it is not known.
        peak_bytes: Largest memory of all tensors of the prediction at one time, without the weights; None where the
            network does not run in torch.
    """

    prepare_s: float
    network_s: float
    finish_s: float
    weights_bytes: int | None
    peak_bytes: int | None

    @property
    def total_s(self) -> float:
        """Seconds in all."""
        return self.prepare_s + self.network_s + self.finish_s


def measured(predictor: Predictor[Any, Any], image: ImageLike, *, weights_bytes: int | None) -> tuple[Any, Cost]:
    """The result of a predictor for an image, and what it takes.

    The image is predicted twice: first the memory is measured, which also fills caches, then the time.

    Args:
        predictor: The predictor.
        image: The image.
        weights_bytes: Memory of the weights.

    Raises:
        DataError: The image cannot be read, or is not what the model takes.
    """
    sample = predictor.prepare(image)
    peak = _peak_bytes(predictor.model, lambda: predictor.run([sample]))
    start = time.perf_counter()
    sample = predictor.prepare(image)
    prepared = time.perf_counter()
    raw = predictor.run([sample])[0]
    ran = time.perf_counter()
    result = predictor.finish(raw, sample)
    end = time.perf_counter()
    cost = Cost(
        prepare_s=prepared - start,
        network_s=ran - prepared,
        finish_s=end - ran,
        weights_bytes=weights_bytes,
        peak_bytes=peak,
    )
    return result, cost


def _peak_bytes(model: Any, run: Callable[[], object]) -> int | None:
    if not isinstance(model, nn.Module):
        run()
        return None
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with TensorMemory([*model.parameters(), *model.buffers()]) as memory:
        run()
    return int(memory.peak_bytes)


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of the tensors that operators of this thread make, as long as they are alive.

    Args:
        known: Tensors that do not count.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes: int = 0
        self.peak_bytes: int = 0
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if not place or place in self._seen or place in self._alive:
            return
        self._alive[place] = storage.nbytes()
        self.live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self.live_bytes -= self._alive.pop(place, 0)
