"""The losses and gradients of a batch in one process and divided over two, for tests of both."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.engine import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import distributed, nn

from d2tune.data.batches import TrainingBatches
from d2tune.engine.assembly import training_split
from d2tune.engine.plan import make_plan
from d2tune.engine.process import seeded_model
from d2tune.modeling.together import divided_batch, train_together
from d2tune.project import load_project


def measured(project: Path) -> dict[str, Any]:
    """The losses of the first batch, the mean over processes, and the norm of the gradient of each parameter."""
    rank, world = comm.get_rank(), comm.get_world_size()
    plan, _ = make_plan(load_project(project), num_gpus=0, sample=False, processes=world)
    model, _ = seeded_model(plan, None, device="cpu")
    _steady(model)
    if world > 1:
        train_together(model)
    wrapped: nn.Module = create_ddp_model(model, broadcast_buffers=False, device_ids=None)
    images = plan.splits.train.images
    batches = TrainingBatches(
        [image.height_px > image.width_px for image in images],
        batch_size=plan.cfg.SOLVER.IMS_PER_BATCH // world,
        short_side_range_px=tuple(plan.cfg.INPUT.MIN_SIZE_TRAIN),
        seed=plan.cfg.SEED,
        most_short_side_px=2000,  # each image has a size of its own
        rank=rank,
        world=world,
    )
    samples = training_split(plan)
    data = [samples[key] for key in next(iter(batches))]
    torch.manual_seed(5)
    np.random.seed(rank)
    random.seed(rank)
    with EventStorage(), divided_batch():
        losses = wrapped(data)
        sum(losses.values()).backward()
    values = {name: float(value.detach()) for name, value in losses.items()}
    gathered = comm.all_gather(values)
    gradients = {name: float(one.grad.norm()) for name, one in model.named_parameters() if one.grad is not None}
    sizes = comm.all_gather([tuple(sample["image"].shape[-2:]) for sample in data])
    means = {name: sum(one[name] for one in gathered) / world for name in values}
    return {"losses": means, "gradients": gradients, "sizes": [size for some in sizes for size in some]}


def _steady(model: nn.Module) -> None:
    """Let norms use their running statistics, which do not depend on the other images of a batch; drop nothing out."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
            module.eval()


def work(rank: int, projects: list[Path], meeting: str, out: Path) -> None:
    """What one of two processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    results = [measured(project) for project in projects]
    if rank == 0:
        torch.save(results, out)
    distributed.destroy_process_group()
    sys.stdout.flush()
