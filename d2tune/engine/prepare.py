"""Everything that is decided before the first step, and the record of it."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode
from tqdm import tqdm

from d2tune import files
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.catalog import register
from d2tune.data.image_reader import ImageReader, raster_options
from d2tune.data.label_maps import read_labels
from d2tune.data.splits import Splits, load_splits
from d2tune.data.statistics import channel_statistics, class_pixels
from d2tune.data.training import labels_of, layout_of
from d2tune.errors import DataError, ProjectError, RunError
from d2tune.hardware import usable_cores
from d2tune.modeling import weights
from d2tune.modeling.build import ChosenWeights, choose_weights
from d2tune.modeling.config import DataFacts, is_bridge, preset_config, project_config, read_config
from d2tune.modeling.device import Precision, choose_device, choose_precision
from d2tune.project import LoadedProject, Project, flatten
from d2tune.run_folder import RunFolder
from d2tune.versions import versions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything decided before the first step; small enough to send to every process."""

    loaded: LoadedProject
    parts: Splits
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
    parts = load_splits(project, sample=sample)
    chosen = choose_weights(project) if record is None else ChosenWeights(None, record["weights"]["line"])
    state = None if chosen.file is None else weights.read_state_dict(chosen.file.path)
    facts = _facts(project, parts, pretrained=state is not None or (record is not None and not _from_scratch(record)))
    cfg = project_config(
        project,
        facts,
        scratch=state is None if record is None else _from_scratch(record),
        device=device,
        rgb_resnet=bool(record["weights"]["rgb_resnet"])
        if record
        else state is not None and weights.is_rgb_resnet(state),
    )
    wanted = project.train.precision if record is None else record["machine"]["precision"]
    precision = choose_precision(wanted, device)
    return Prepared(loaded, parts, chosen, state, cfg, precision, gpus)


def _from_scratch(record: dict[str, Any]) -> bool:
    return bool(record["weights"]["from_scratch"])


def _facts(project: Project, parts: Splits, *, pretrained: bool) -> DataFacts:
    """What the config must know of the data; channels and pixels are measured where the task needs it."""
    train = parts.train
    names: dict[str, Any] = {
        "class_names": tuple(category.name for category in train.categories),
        "thing_names": tuple(category.name for category in train.categories if category.isthing),
        "stuff_names": tuple(category.name for category in train.categories if not category.isthing),
        "train_images": len(train.images),
        "has_rle": train.has_rle or parts.val.has_rle,
    }
    labels = labels_of(train, project), labels_of(parts.val, project)
    preset = preset_config(project.model.preset)
    layout = layout_of(preset)
    for part, dataset, label_images in zip(("train", "val"), (train, parts.val), labels, strict=True):
        name = register(dataset, project=project.name, part=part, labels=label_images, layout=layout)
        names[f"{part}_name"] = name
    if project.task == "semantic" and labels[0] is not None:
        names["class_pixels"] = class_pixels(map(read_labels, labels[0].semantic), classes=len(train.categories))
    raster = raster_options(project)
    if raster is not None:
        names |= _channels(parts, raster, pretrained=pretrained, takes_any_channels=is_bridge(preset))
    return DataFacts(**names)


def _channels(parts: Splits, raster: RasterOptions, *, pretrained: bool, takes_any_channels: bool) -> dict[str, Any]:
    """How many channels the images have and, unless weights were made for photos as these are, their scaling.

    Raises:
        DataError: An image of the validation part has other channels than those of the training part, or no image
            to learn from holds data.
    """
    train = parts.train
    reader = ImageReader(None, raster=raster)
    with reader.open(str(train.images[0].path)) as first:
        channels, is_photo = first.channels, first.is_photo
    if is_photo and channels == 1 and not takes_any_channels:
        channels = 3  # gray photos are shown to such a model as color photos
    found: dict[str, Any] = {"channels": channels}
    same = replace(reader, channels=channels)
    for image in parts.val.images:
        with same.open(str(image.path)):
            pass
    if is_photo and channels == 3 and pretrained:
        return found
    bar = tqdm(train.images, desc="measuring channels", unit="image", disable=None, leave=False)
    statistics = channel_statistics(same.open(str(image.path)) for image in bar)
    empty = [str(train.images[number].path) for number in statistics.empty]
    if len(empty) == len(train.images):
        raise DataError(
            "no image of the training part holds data anywhere",
            file=empty[0],
            found=f"NaN or no-data values alone, here and in {len(empty) - 1} more" if empty[1:] else None,
            hint="Correct data.label_images.nodata, or bring other images.",
        )
    for path in empty:
        logger.warning("%s holds no data anywhere: nothing can be learned from it", path)
    return found | {"pixel_mean": statistics.mean, "pixel_std": statistics.std}


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
            "task": prepared.project.task,
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
                "stacked": any(image.path is not None and image.path.is_dir() for image in parts.train.images[:1]),
                "channel_order": cfg.INPUT.FORMAT,
                "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
                "pixel_std": list(cfg.MODEL.PIXEL_STD),
                "short_side_px": cfg.INPUT.MIN_SIZE_TEST,
                "max_side_px": cfg.INPUT.MAX_SIZE_TEST,
                "mask_format": cfg.INPUT.MASK_FORMAT,
            },
        }
    )
