"""What a training step costs on this machine, measured."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.modeling.checkpoint import detached
from d2tune.modeling.device import Precision


@dataclass(frozen=True, slots=True)
class Cost:
    """What one training step costs here, measured.

    Attributes:
        step_s: Seconds for forward and backward.
        memory_bytes: Peak memory: of the GPU on CUDA, else of the process.
    """

    step_s: float
    memory_bytes: int


def measure_cost(model: nn.Module, batch: list[dict[str, Any]], cfg: CfgNode, precision: Precision) -> Cost:
    """Time a training step on a real batch; the model is left as it was."""
    before = detached(model.state_dict())
    cuda = cfg.MODEL.DEVICE == "cuda"
    model.train()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    with torch.random.fork_rng(), EventStorage():
        for _ in range(2):
            start = time.perf_counter()
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda and precision == "bfloat16"):
                losses = model(batch)
            sum(losses.values()).backward()
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    return Cost(seconds[-1], torch.cuda.max_memory_allocated() if cuda else peak_process_bytes())


def peak_process_bytes() -> int:
    """The most memory that this process has had so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
