"""Everything that is decided before the first step, and the record of it."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode

from d2tune import files
from d2tune.data.catalog import register
from d2tune.data.parts import Parts, load_parts
from d2tune.errors import ProjectError, RunError
from d2tune.hardware import usable_cores
from d2tune.modeling import weights
from d2tune.modeling.build import ChosenWeights, choose_weights
from d2tune.modeling.config import DataFacts, project_config, read_config
from d2tune.modeling.device import Precision, choose_device, choose_precision
from d2tune.project import LoadedProject, Project, flatten
from d2tune.run_folder import RunFolder
from d2tune.versions import versions


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided before the first step; small enough to send to every process."""

    loaded: LoadedProject
    parts: Parts
    chosen: ChosenWeights
    state: weights.StateDict | None
    cfg: CfgNode
    precision: Precision
    num_gpus: int

    @property
    def project(self) -> Project:
        """The typed project."""
        return self.loaded.project


def prepare(loaded: LoadedProject, *, num_gpus: int | None, sample: bool, resumed: RunFolder | None = None) -> Prepared:
    """Read the data, find the weights, and derive the config; writes nothing but a sample that is asked for.

    A run that is resumed has its own weights: none are looked for, and its precision stays.

    Raises:
        D2TuneError: Something the person must mend first.
    """
    project = loaded.project
    device = _device(project, num_gpus)
    record = resumed.read_record() if resumed else None
    gpus = max(1, num_gpus or 1)
    if project.train.batch_size % gpus:
        raise ProjectError(
            "the batch cannot be divided among the GPUs",
            place="train.batch_size",
            found=str(project.train.batch_size),
            expected=f"a multiple of {gpus}",
        )
    parts = load_parts(project, sample=sample)
    chosen = choose_weights(project) if record is None else ChosenWeights(None, record["weights"]["line"])
    state = None if chosen.file is None else weights.read_state_dict(chosen.file.path)
    facts = DataFacts(
        class_names=tuple(category.name for category in parts.train.categories if category.isthing),
        train_images=len(parts.train.images),
        has_rle=parts.train.has_rle or parts.val.has_rle,
        train_name=register(parts.train, project=project.name, part="train"),
        val_name=register(parts.val, project=project.name, part="val"),
    )
    cfg = project_config(
        project,
        facts,
        scratch=state is None if record is None else bool(record["weights"]["from_scratch"]),
        device=device,
        rgb_resnet=bool(record["weights"]["rgb_resnet"])
        if record
        else state is not None and weights.is_rgb_resnet(state),
    )
    wanted = project.train.precision if record is None else record["machine"]["precision"]
    precision = choose_precision(wanted, device)
    return Prepared(loaded, parts, chosen, state, cfg, precision, gpus)


def _device(project: Project, num_gpus: int | None) -> str:
    wanted = "cpu" if num_gpus == 0 else str(project.detectron2.get("MODEL.DEVICE", choose_device()))
    if wanted not in ("cpu", "cuda") or (wanted == "cuda" and not torch.cuda.is_available()):
        there = "cpu or cuda" if torch.cuda.is_available() else "cpu, as torch finds no GPU here"
        raise ProjectError("cannot train on this device", place="MODEL.DEVICE", found=wanted, expected=there)
    return wanted


def check_gpus(num_gpus: int | None) -> None:
    """Refuse more GPUs than there are.

    Raises:
        ProjectError: There are fewer.
    """
    there = torch.cuda.device_count()
    if num_gpus is not None and not 0 <= num_gpus <= there:
        raise ProjectError(
            f"{num_gpus} GPUs are asked for", place="--num-gpus", found=f"{there} on this machine", hint="Leave it out."
        )


_MAY_CHANGE = ("SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS", "DATASETS.", "MODEL.DEVICE", "MODEL.WEIGHTS", "OUTPUT_DIR")


def check_resumable(folder: RunFolder, prepared: Prepared) -> None:
    """Refuse to go on with a run whose classes, data or settings are no longer the project's.

    The number of iterations may change; nothing else that training depends on.

    Raises:
        RunError: Says what changed.
    """
    record = folder.read_record()
    differences = [
        ("classes", record["classes"], list(prepared.parts.train.class_names)),
        ("training data", record["data"]["train_sha256"], prepared.parts.train.content_hash()),
    ]
    then, now = flatten(read_config(folder.config)), flatten(prepared.cfg)
    differences += [(key, then.get(key), value) for key, value in now.items() if not key.startswith(_MAY_CHANGE)]
    for what, old, new in differences:
        # a config that was written and read again has lists where it had tuples
        if json.dumps(old) != json.dumps(new):
            raise RunError(
                f"{what} changed since this run began",
                file=folder.path,
                found=str(new),
                expected=str(old),
                hint="Start a new run without --resume.",
            )


def write_resumed(folder: RunFolder, prepared: Prepared) -> None:
    """Bring the project, the config and the record of a resumed run up to date."""
    files.write_text(folder.project, prepared.project.to_yaml())
    files.write_text(folder.config, prepared.cfg.dump())
    earlier = folder.read_record().get("resumed", [])
    now = {"command": sys.argv, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "versions": versions()}
    folder.update_record({"resumed": [*earlier, now]})


def write_beginning(folder: RunFolder, prepared: Prepared) -> None:
    """Write the resolved project, the config and the record into a new run folder."""
    cfg, parts, chosen = prepared.cfg, prepared.parts, prepared.chosen
    files.write_text(folder.project, prepared.project.to_yaml())
    files.write_text(folder.config, cfg.dump())
    folder.update_record(
        {
            "d2tune_record": 1,
            "project": prepared.project.name,
            "project_file": str(prepared.loaded.file),
            "profile": prepared.loaded.profile,
            "preset": prepared.project.model.preset,
            "command": sys.argv,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seed": cfg.SEED,
            "versions": versions(),
            "machine": {
                "system": platform.platform(),
                "device": torch.cuda.get_device_name() if cfg.MODEL.DEVICE == "cuda" else platform.processor() or "cpu",
                "cores": usable_cores(),
                "precision": prepared.precision,
            },
            "classes": list(parts.train.class_names),
            "thing_ids": [category.id for category in parts.train.categories if category.isthing],
            "data": {
                "train_sha256": parts.train.content_hash(),
                "val_sha256": parts.val.content_hash(),
                "train_images": len(parts.train.images),
                "val_images": len(parts.val.images),
                "train_instances": parts.train.counts(),
                "val_instances": parts.val.counts(),
                "rendered_sample": parts.rendered,
            },
            "weights": {
                "line": chosen.line,
                "source": None if chosen.file is None else chosen.file.source,
                "sha256": None if chosen.file is None else chosen.file.sha256,
                "from_scratch": chosen.file is None,
                "rgb_resnet": prepared.state is not None and weights.is_rgb_resnet(prepared.state),
            },
            "input": {
                "channels": len(cfg.MODEL.PIXEL_MEAN),
                "channel_order": cfg.INPUT.FORMAT,
                "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
                "pixel_std": list(cfg.MODEL.PIXEL_STD),
                "short_side_px": cfg.INPUT.MIN_SIZE_TEST,
                "max_side_px": cfg.INPUT.MAX_SIZE_TEST,
                "mask_format": cfg.INPUT.MASK_FORMAT,
            },
        }
    )
