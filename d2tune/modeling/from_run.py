"""The model of a finished run."""

from __future__ import annotations

from pathlib import Path

from d2tune import files
from d2tune.modeling import checkpoint
from d2tune.modeling.config import read_config
from d2tune.modeling.loaded import DEFAULT_THRESHOLD, LoadedModel
from d2tune.modeling.ready import ready_model
from d2tune.project import load_project
from d2tune.run_folder import RunFolder


def load_run(path: str | Path, *, weights: str = "best") -> LoadedModel:
    """Build the model of a run and load its weights.

    Args:
        path: The run folder.
        weights: ``best``, ``final``, or a checkpoint file of this model.

    Raises:
        RunError: The folder is not a run folder, or the weights do not exist or are of another model.
    """
    folder = RunFolder(Path(path))
    record = folder.read_record()
    file = folder.weights(weights)
    cfg = read_config(folder.config)
    model = ready_model(
        cfg, recorded=record["machine"]["precision"], load=lambda model: checkpoint.load_weights(model, file)
    )
    return LoadedModel(
        source=folder.path,
        project=load_project(folder.project).project,
        record=record,
        cfg=cfg,
        model=model,
        thresholds=dict.fromkeys(record["classes"], DEFAULT_THRESHOLD),
        weights=file,
        weights_sha256=files.sha256_file(file),
        config_sha256=files.sha256_file(folder.config),
        project_sha256=files.sha256_file(folder.project),
        files=(file, folder.project, folder.config, folder.record),
        run=folder,
    )
