"""Making a package of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor

from d2tune import files, run_schema
from d2tune.errors import PackageError, RunError
from d2tune.evaluation.summaries import closing_sentence
from d2tune.modeling import checkpoint
from d2tune.modeling.build import build_model
from d2tune.modeling.config import read_config
from d2tune.modeling.ready import random_init_off
from d2tune.packages.folder import check_replaceable, write_folder
from d2tune.packages.manifest import CONFIG, PROJECT, WEIGHTS, Manifest, is_package
from d2tune.packages.portable import portable, portable_config, portable_project
from d2tune.packages.thresholds import choose_thresholds, threshold_lines
from d2tune.project import Project, load_project
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from d2tune.text import counted


@dataclass(frozen=True, slots=True)
class PackageResult:
    """A written package.

    Attributes:
        out: Its folder.
        manifest: Its description.
    """

    out: Path
    manifest: Manifest

    @property
    def summary(self) -> str:
        """What the package holds, its thresholds, and its folder."""
        manifest = self.manifest
        size_mb = sum(entry.bytes for entry in manifest.files.values()) / 1e6
        lines = [f"lowest scores: {'; '.join(threshold_lines(manifest))}"] if manifest.thresholds else []
        tested = "not evaluated" if manifest.metrics is None else manifest.metrics.sentence
        return "\n".join(
            [
                f"{manifest.project}: {tested}",
                *lines,
                f"{counted(len(manifest.files) + 1, 'file')}, {size_mb:.1f} MB: {self.out}",
            ]
        )


def write_package(
    run: str | Path, out: str | Path, *, weights: str = "best", thresholds: str | None = None, force: bool = False
) -> PackageResult:
    """Make a package of a run.

    Args:
        run: The run folder.
        out: The folder of the package; it appears whole or not at all.
        weights: ``best``, ``final`` or a checkpoint file of this model.
        thresholds: See `thresholds.choose_thresholds`.
        force: Whether an unchanged package in ``out`` is replaced.

    Raises:
        D2TuneError: The run or the weights cannot be used, or the folder cannot be written.
    """
    folder, target = RunFolder(Path(run)), Path(out)
    if is_package(folder.path):
        raise PackageError("is a package already", file=folder.path, expected="a run folder", hint="Copy the folder.")
    check_replaceable(target, force=force)
    record = folder.read_record()
    file = folder.weights(weights)
    project, cfg = load_project(folder.project).project, read_config(folder.config)
    task = task_of(project)
    task.check_predicts_images()
    source = {
        "source": weights if weights in ("best", "final") else file.name,
        "source_sha256": files.sha256_file(file),
    }
    evaluation = _evaluation(folder, source["source_sha256"])
    if thresholds is not None and not task.has_scores:
        message = f"predictions of {task.name} models have no scores"
        raise PackageError(message, place="--thresholds", hint="Remove it.")
    rows = None if evaluation is None else evaluation["classes"]
    chosen = choose_thresholds(thresholds, record["classes"], rows) if task.has_scores else {}
    tensors, divisible_by_px = _tensors(cfg, file)
    entries = {
        **described_entries(project, cfg, record, evaluation, divisible_by_px=divisible_by_px),
        "thresholds": chosen,
        "weights": {
            "file": WEIGHTS,
            "format": "safetensors",
            "precision": "float32",
            "tensors": len(tensors),
            **source,
        },
        "inference": {"device": cfg.MODEL.DEVICE, "precision": record["machine"]["precision"]},
    }

    def fill(into: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            save_file(tensors, into / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:  # of a full disk too
            raise PackageError(f"the weights cannot be written: {error}", file=target) from None
        files.write_text(into / PROJECT, _portable_yaml(project))
        files.write_text(into / CONFIG, portable_config(cfg).dump())

    return PackageResult(target, write_folder(target, entries, fill, force=force))


def described_entries(
    project: Project,
    cfg: CfgNode,
    record: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    *,
    divisible_by_px: int,
) -> dict[str, Any]:
    """The entries of ``package.json`` that describe the model of a run.

    Args:
        project: The project of the run.
        cfg: Its config.
        record: Its record.
        evaluation: The evaluation of the weights; None where they were not evaluated.
        divisible_by_px: What the network pads the sides of images to multiples of.
    """
    return {
        "project": record["project"],
        "preset": project.model.preset,
        "task": project.task,
        "classes": tuple(record["classes"]),
        "thing_ids": tuple(_thing_ids(record)),
        "input": input_entries(cfg, project, record, divisible_by_px),
        "metrics": None if evaluation is None else _metrics(evaluation, project),
        "data": record["data"],
        "training": _training(record, cfg) | ({"intended_use": project.intended_use} if project.intended_use else {}),
        "versions": record.get("versions", {}),
    }


def _portable_yaml(project: Project) -> str:
    return portable_project(project).to_yaml()


def _tensors(cfg: CfgNode, file: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors of a checkpoint of this model in its own types, and what the sides of its input are multiples of."""
    cpu = cfg.clone()
    cpu.MODEL.DEVICE = "cpu"
    with random_init_off():
        model, _ = build_model(cpu)
    checkpoint.load_weights(model, file)
    return checkpoint.plain_state(model), divisibility(model)


def divisibility(model: Any) -> int:
    """What the sides of the input of a model are multiples of."""
    own = model if hasattr(model, "size_divisibility") else model.backbone
    return int(own.size_divisibility)


def _evaluation(folder: RunFolder, weights_sha256: str) -> dict[str, Any] | None:
    """The evaluation of the weights on the validation split: that of the training, or of ``d2tune eval``."""
    config_sha256 = files.sha256_file(folder.config)
    later = sorted(folder.path.glob("evaluation*/evaluation.json"))
    for path in (folder.evaluation, *later):
        try:
            evaluation = run_schema.read_evaluation(path)
        except (FileNotFoundError, RunError):
            continue
        bound = evaluation["data"], evaluation["weights_sha256"], evaluation["config_sha256"]
        if bound == (None, weights_sha256, config_sha256):
            return evaluation
    return None


def _thing_ids(record: Mapping[str, Any]) -> list[int]:
    given = record.get("thing_ids")
    return list(range(1, len(record["classes"]) + 1)) if given is None else list(given)


def input_entries(cfg: CfgNode, project: Project, record: Mapping[str, Any], divisible_by_px: int) -> dict[str, Any]:
    """The entries of `InputSpec` of a model.

    Args:
        cfg: Its config.
        project: Its project.
        record: Its record.
        divisible_by_px: What the network pads the sides of images to multiples of.
    """
    is_raster = project.data.format == "label_images"
    keys = project.data.label_images
    return {
        "channels": len(cfg.MODEL.PIXEL_MEAN),
        "channel_order": cfg.INPUT.FORMAT,
        "value_range": None if is_raster else (0.0, 255.0),
        "white_16bit": cfg.INPUT.WHITE or None,
        "pixel_mean": tuple(map(float, cfg.MODEL.PIXEL_MEAN)),
        "pixel_std": tuple(map(float, cfg.MODEL.PIXEL_STD)),
        "short_side_px": cfg.INPUT.MIN_SIZE_TEST,
        "max_side_px": cfg.INPUT.MAX_SIZE_TEST,
        "divisible_by_px": divisible_by_px,
        "window_px": cfg.TEST.WINDOW_PX,
        "image_short_side_px": record["input"].get("image_short_side_px"),
        "raster": {"stack": keys.stack, "channels": keys.channels, "nodata": keys.nodata} if is_raster else None,
        "stacked": bool(record["input"].get("stacked", False)),
        "mask_format": cfg.INPUT.MASK_FORMAT,
    }


def _metrics(evaluation: Mapping[str, Any], project: Project) -> dict[str, Any]:
    metrics = task_of(project).metrics_from_json(evaluation)
    return {
        "images": evaluation["images"],
        "data_sha256": evaluation["data_sha256"],
        "values": evaluation["metrics"],
        "classes": tuple(evaluation["classes"]),
        "sentence": closing_sentence(metrics, best_iteration=None, contact_sheet=None),
    }


def _training(record: Mapping[str, Any], cfg: CfgNode) -> dict[str, Any]:
    weights = record["weights"]
    chain = weights.get("chain")
    return {
        "started": record.get("started"),
        "finished": (record.get("finished") or {}).get("time"),
        "iterations": cfg.SOLVER.MAX_ITER,
        "seconds": (record.get("durations") or {}).get("training_s"),
        "seed": record.get("seed"),
        "pretrained": portable(weights.get("source")),
        "pretrained_sha256": weights.get("sha256"),
        **({"pretrained_chain": portable(chain)} if chain else {}),
        **({"assembled": record["assembled"]["sentence"]} if "assembled" in record else {}),
        "precision": record["machine"]["precision"],
    }
