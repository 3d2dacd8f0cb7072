"""The model of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from d2tune import files
from d2tune.errors import RunError
from d2tune.modeling import checkpoint
from d2tune.modeling.build import build_model
from d2tune.modeling.config import read_config
from d2tune.modeling.device import choose_device, speed_up
from d2tune.modeling.precision import choose_precision, is_native
from d2tune.project import LoadedProject, Project, load_project
from d2tune.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A finished run with its model.

    Attributes:
        folder: The run folder.
        loaded: The project of the run, with its overrides and profile.
        record: The record of the run: classes, input scaling, hashes.
        cfg: Detectron2's config.
        model: The model in evaluation mode, on its device.
        weights: The loaded checkpoint.
        weights_sha256: Hash of the checkpoint.
    """

    folder: RunFolder
    loaded: LoadedProject
    record: dict[str, Any]
    cfg: CfgNode
    model: nn.Module
    weights: Path
    weights_sha256: str

    @property
    def project(self) -> Project:
        """The project of the run."""
        return self.loaded.project


def load_run(path: str | Path, *, weights: str = "best") -> LoadedRun:
    """Build the model of a run and load its weights.

    Args:
        path: The run folder.
        weights: ``best``, ``final``, or a checkpoint file of this model.

    Raises:
        RunError: The folder is not a run folder, or the weights do not exist or are of another model.
    """
    folder = RunFolder(Path(path))
    record = folder.read_record()
    file = {"best": folder.best, "final": folder.final}.get(weights, Path(weights))
    if not file.is_file():
        raise RunError("the weights do not exist", file=file, hint="Use --resume to finish the training of the run.")
    cfg = read_config(folder.config)
    device = choose_device()
    recorded = str(record["machine"]["precision"])
    goes_on = device == cfg.MODEL.DEVICE and is_native(recorded, device)
    precision = choose_precision(recorded if goes_on else "auto", device)
    cfg.MODEL.DEVICE = device
    cfg.freeze()
    model, _ = build_model(cfg)
    checkpoint.load_weights(model, file)
    speed_up(model, device=device, precision=precision)
    model.eval()
    return LoadedRun(folder, load_project(folder.project), record, cfg, model, file, files.sha256_file(file))
