"""Training with Detectron2's ``DefaultTrainer``, as a script of its users does, for the benchmarks of trainings."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer
from detectron2.solver.build import get_default_optimizer_params

import d2tune.modeling.build  # noqa: F401  # registers the backbones
from d2tune.modeling.config import read_config

COMPONENTS = "d2tune.modeling.components"
"""The module that registers the other components; earlier commits do so with the backbones."""


class AdamWTrainer(DefaultTrainer):  # type: ignore[misc]  # Detectron2 has no types
    """The trainer, with the optimizer of d2tune's presets."""

    @classmethod
    def build_optimizer(cls, cfg: Any, model: Any) -> Any:
        """AdamW with the rates and decays of the config."""
        parameters = get_default_optimizer_params(model, base_lr=cfg.SOLVER.BASE_LR)
        return torch.optim.AdamW(parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def train_plainly(
    config: Path,
    weights: Path,
    truth: Path,
    photos: Path,
    out: Path,
    *,
    iterations: int,
    workers: int = 0,
    amp: bool = False,
) -> None:
    """Train with the config and weights of a run of d2tune, without its clipping of gradients.

    Args:
        config: ``detectron2.yaml`` of the run.
        weights: Its weights.
        truth: COCO file of the training images.
        photos: Their folder.
        out: Folder for what Detectron2 writes.
        iterations: Number of steps.
        workers: Processes that load images.
        amp: Whether it is Detectron2's ``AMPTrainer``.
    """
    register_coco_instances("photos", {}, str(truth), str(photos))
    cfg = read_config(config).clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("photos",), ()
    cfg.MODEL.WEIGHTS = str(weights)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "PointRendMaskHead"
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.AMP.ENABLED = iterations, False, amp
    cfg.TEST.EVAL_PERIOD = 0
    cfg.OUTPUT_DIR = str(out)
    if importlib.util.find_spec(COMPONENTS):
        importlib.import_module(COMPONENTS).register_components(cfg)
    out.mkdir()
    trainer = AdamWTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
