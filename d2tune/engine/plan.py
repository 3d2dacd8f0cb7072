"""The plan of a training: everything that is decided before the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from detectron2.config import CfgNode
from tqdm import tqdm

from d2tune.annotations.io.photos.findings import white_of
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import RasterOptions
from d2tune.data.catalog import register
from d2tune.data.image_reader import ImageReader
from d2tune.data.label_maps import LabelFiles, read_label_map
from d2tune.data.sources import raster_options
from d2tune.data.splits import Splits, load_splits
from d2tune.data.statistics import channel_statistics, class_pixels
from d2tune.data.training import layout_of
from d2tune.engine.as_begun import as_begun
from d2tune.engine.cost import Cost
from d2tune.errors import DataError, ProjectError
from d2tune.modeling import weights
from d2tune.modeling.build import ChosenWeights, choose_weights
from d2tune.modeling.config import DataFacts, is_bridge, preset_config, project_config
from d2tune.modeling.device import choose_device
from d2tune.modeling.precision import Precision, decide
from d2tune.modeling.weights import StateDict
from d2tune.project import LoadedProject, Project
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassPixels:
    """Labeled pixels of each class, in the order of the classes."""

    train: tuple[int, ...]
    val: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenBatch:
    """The batch size that was chosen for this machine, where ``train.batch_size`` is ``auto``.

    Attributes:
        size: Images per step.
        reason: Why not more, for the plan.
        step_bytes: Memory of a step by its number of images, as far as it was measured, beside what the process had.
        free_bytes: Memory that a step could take.
    """

    size: int
    reason: str
    step_bytes: dict[int, int]
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenBudget:
    """What was chosen so that a training fits into ``train.budget`` on this machine.

    Attributes:
        seconds: The budget.
        values: What was chosen, by the keys of ``train``.
        reasons: Why, by the same keys.
        step_s: Seconds of a step; 0 before it was measured.
        evaluation_s: Seconds of an evaluation; 0 before it was measured.
        expected_s: Seconds of the whole training; 0 before it is known.
    """

    seconds: float
    values: Mapping[str, Any]
    reasons: Mapping[str, str]
    step_s: float = 0.0
    evaluation_s: float = 0.0
    expected_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything decided before the first step; without tensors, so that it is sent to every process at once.

    Attributes:
        loaded: The project and where it comes from.
        splits: What it trains on and what it is evaluated on.
        train_sha256: Hash of the content of the training split.
        val_sha256: Hash of the content of the validation split.
        class_pixels: Where the task measures them.
        chosen: What the model starts from; each process reads the file itself.
        rgb_resnet: Whether the pretrained weights are those of torchvision's or timm's ResNet.
        cfg: Detectron2's config.
        precision: Of the forward pass.
        num_gpus: Processes that train; 1 on the CPU.
        precision_reason: Why it is in this precision.
        batch: How the batch size was chosen, where it was.
        budget: How sizes and length were chosen, where they were.
        cost: What the pre-flight measured, where it has been run for the plan.
    """

    loaded: LoadedProject
    splits: Splits
    train_sha256: str
    val_sha256: str
    class_pixels: ClassPixels | None
    chosen: ChosenWeights
    rgb_resnet: bool
    cfg: CfgNode
    precision: Precision
    num_gpus: int
    precision_reason: str = field(default="", kw_only=True)
    batch: ChosenBatch | None = field(default=None, kw_only=True)
    budget: ChosenBudget | None = field(default=None, kw_only=True)
    cost: Cost | None = field(default=None, kw_only=True)

    @property
    def project(self) -> Project:
        """The typed project."""
        return self.loaded.project


@dataclass(frozen=True, slots=True)
class _Start:
    """The weights of a run: what is chosen, what of that the config depends on, and the precision that goes with it."""

    chosen: ChosenWeights
    state: StateDict | None
    from_scratch: bool
    rgb_resnet: bool
    precision: str


BatchChoice = Callable[[TrainingPlan, StateDict | None], ChosenBatch]
"""Chooses the batch size, from the plan with a batch size of its own and the pretrained weights."""

Replan = Callable[[TrainingPlan, Mapping[str, Any]], TrainingPlan]
"""Makes the plan of the same project with other keys of ``train``."""


class BudgetChoice(Protocol):
    """Chooses what a project with ``train.budget`` does not set; see `budget.Budget`."""

    def sizes(self, plan: TrainingPlan, state: StateDict | None, replan: Replan) -> TrainingPlan:
        """The plan with sizes and frozen parts, before the batch size is chosen."""
        ...

    def length(self, plan: TrainingPlan, state: StateDict | None, replan: Replan) -> TrainingPlan:
        """The plan with iterations and evaluations, after it."""
        ...


def make_plan(
    loaded: LoadedProject,
    *,
    num_gpus: int | None,
    sample: bool,
    resumed: RunFolder | None = None,
    choose_batch: BatchChoice | None = None,
    budget: BudgetChoice | None = None,
    processes: int | None = None,
) -> tuple[TrainingPlan, StateDict | None]:
    """Read the data, find the weights, and derive the config; writes nothing but a sample that is asked for.

    A run that is resumed has its own weights: none are looked for, and its precision stays.

    Args:
        loaded: The project.
        num_gpus: GPUs to train on; None takes one where there is one.
        sample: Render the project's sample where its data are missing.
        resumed: The run that is continued.
        choose_batch: Chooses a batch size that is ``auto``; None plans with about 4.
        budget: Chooses what fits into ``train.budget``; None plans without regard to time.
        processes: Processes that train, on all machines; None is one for each GPU.

    Returns:
        The plan, and the tensors of the pretrained weights, which were read for it; None without such weights.

    Raises:
        D2TuneError: Something that the user must fix first.
    """
    if resumed is not None:
        loaded = as_begun(loaded, resumed)
    project = loaded.project
    device = device_of(project, num_gpus)
    gpus = max(1, num_gpus or 1) if processes is None else processes
    check_processes(project, gpus)
    splits = load_splits(project, sample=sample)
    start = _chosen_start(project) if resumed is None else _earlier_start(resumed)
    facts, class_pixels = _facts(project, splits, pretrained=not start.from_scratch)

    def config(project: Project) -> CfgNode:
        return project_config(project, facts, scratch=start.from_scratch, device=device, rgb_resnet=start.rgb_resnet)

    cfg = config(project)
    decision = decide(start.precision, device, cfg)
    plan = TrainingPlan(
        loaded=loaded.with_root(splits.root),
        splits=splits,
        train_sha256=splits.train.content_hash(),
        val_sha256=splits.val.content_hash(),
        class_pixels=class_pixels,
        chosen=start.chosen,
        rgb_resnet=start.rgb_resnet,
        cfg=cfg,
        precision=decision.precision,
        precision_reason=decision.reason if resumed is None else "as the run began",
        num_gpus=gpus,
    )

    def replanned(plan: TrainingPlan, values: Mapping[str, Any]) -> TrainingPlan:
        other = plan.loaded.with_train(values)
        return replace(plan, loaded=other, cfg=config(other.project))

    if project.train.budget is None:
        budget = None
    if budget is not None:
        plan = budget.sizes(plan, start.state, replanned)
    if project.train.batch_size == "auto" and choose_batch is not None:
        batch = choose_batch(plan, start.state)
        plan = replace(replanned(plan, {"batch_size": batch.size}), batch=batch)
    if budget is not None:
        plan = budget.length(plan, start.state, replanned)
    return plan, start.state


def check_processes(project: Project, gpus: int) -> None:
    """Refuse a project that cannot be trained by so many processes.

    Raises:
        ProjectError: Its batch cannot be divided by them, or what it leaves to d2tune is chosen for one process.
    """
    train = project.train
    if train.budget is not None and gpus > 1:
        raise ProjectError(
            "the length that fits into a time is chosen for one process",
            place="train.budget",
            found=f"{gpus} processes",
            hint="Set train.iterations; `d2tune train` with one process and train.budget shows what fits.",
        )
    if train.batch_size == "auto":
        if gpus > 1:
            raise ProjectError(
                "the batch size is chosen for one process",
                place="train.batch_size",
                found="auto",
                expected=f"with {gpus} processes a multiple of {gpus * train.accumulate}",
            )
    elif train.batch_size % (gpus * train.accumulate):
        times = f" times train.accumulate, {train.accumulate}" if train.accumulate > 1 else ""
        raise ProjectError(
            f"the batch size is not a multiple of the number of processes{times}",
            place="train.batch_size",
            found=str(train.batch_size),
            expected=f"a multiple of {gpus * train.accumulate}",
        )


def _chosen_start(project: Project) -> _Start:
    chosen = choose_weights(project)
    state = None if chosen.file is None else weights.read_state_dict(chosen.file.path)
    rgb_resnet = state is not None and weights.is_rgb_resnet(state)
    return _Start(chosen, state, state is None, rgb_resnet, project.train.precision)


def _earlier_start(resumed: RunFolder) -> _Start:
    record = resumed.read_record()
    then, precision = record["weights"], str(record["machine"]["precision"])
    chosen = ChosenWeights(None, then["line"])
    return _Start(chosen, None, bool(then["from_scratch"]), bool(then["rgb_resnet"]), precision)


def _facts(project: Project, splits: Splits, *, pretrained: bool) -> tuple[DataFacts, ClassPixels | None]:
    """What the config must know of the data; channels and pixels are measured where the task needs it."""
    train, val = splits.train, splits.val
    preset = preset_config(project.model.preset)
    layout = layout_of(preset)
    task = task_of(project)
    train_labels, val_labels = task.label_files(train), task.label_files(val)
    facts: dict[str, Any] = {
        "class_names": tuple(category.name for category in train.categories),
        "thing_names": tuple(category.name for category in train.categories if category.isthing),
        "stuff_names": tuple(category.name for category in train.categories if not category.isthing),
        "train_images": len(train.images),
        "has_rle": train.has_rle or val.has_rle,
        "white": white_of(train, val),
        "train_name": register(train, project=project.name, split="train", labels=train_labels, layout=layout),
        "val_name": register(val, project=project.name, split="val", labels=val_labels, layout=layout),
    }
    pixels = None
    if task.measures_pixels and train_labels is not None and val_labels is not None:
        pixels = ClassPixels(_pixels(train, train_labels), _pixels(val, val_labels))
        facts["class_pixels"] = pixels.train
    raster = raster_options(project)
    if raster is not None:
        facts |= _channels(splits, raster, pretrained=pretrained, takes_any_channels=is_bridge(preset))
    return DataFacts(**facts), pixels


def _pixels(dataset: Dataset, labels: LabelFiles) -> tuple[int, ...]:
    """The pixels of each class, counted in the label maps unless they were counted when the label images were read."""
    counted = dataset.class_pixels()
    if counted is not None:
        return counted
    return class_pixels(map(read_label_map, labels.semantic), classes=len(dataset.categories))


def _channels(splits: Splits, raster: RasterOptions, *, pretrained: bool, takes_any_channels: bool) -> dict[str, Any]:
    """How many channels the images have and, unless weights were made for photos as these are, their scaling.

    Raises:
        DataError: An image of the validation split has other channels than those of the training split, or no image
            to learn from has data.
    """
    train = splits.train
    reader = ImageReader(None, raster=raster)
    with reader.open(str(train.images[0].path)) as first:
        channels, is_photo = first.channels, first.is_photo
    if is_photo and channels == 1 and not takes_any_channels:
        channels = 3  # such a model gets gray photos as color photos
    measured: dict[str, Any] = {"channels": channels}
    same = replace(reader, channels=channels)
    for image in splits.val.images:
        with same.open(str(image.path)):
            pass
    if is_photo and channels == 3 and pretrained:
        return measured
    bar = tqdm(train.images, desc="measuring channels", unit=" images", disable=None, leave=False)
    statistics = channel_statistics(same.open(str(image.path)) for image in bar)
    empty = [str(train.images[number].path) for number in statistics.empty]
    if len(empty) == len(train.images):
        raise DataError(
            "no image of the training split has data",
            file=empty[0],
            found=f"only NaN or no-data values, here and in {len(empty) - 1} more" if empty[1:] else None,
            hint="Correct data.label_images.nodata, or use other images.",
        )
    for path in empty:
        logger.warning("%s has no data, only NaN or no-data values: it has no effect on training", path)
    return measured | {"pixel_mean": statistics.mean, "pixel_std": statistics.std}


def device_of(project: Project, num_gpus: int | None) -> str:
    """Where a project trains, ``cpu`` or ``cuda``.

    Raises:
        ProjectError: It asks for a device that is missing.
    """
    wanted = "cpu" if num_gpus == 0 else str(project.detectron2.get("MODEL.DEVICE", choose_device()))
    if wanted not in ("cpu", "cuda") or (wanted == "cuda" and not torch.cuda.is_available()):
        expected = "cpu or cuda" if torch.cuda.is_available() else "cpu, because torch finds no GPU"
        raise ProjectError("cannot train on this device", place="MODEL.DEVICE", found=wanted, expected=expected)
    return wanted


def check_gpus(num_gpus: int | None) -> None:
    """Refuse more GPUs than the machine has.

    Raises:
        ProjectError: It has fewer.
    """
    available = torch.cuda.device_count()
    if num_gpus is not None and not 0 <= num_gpus <= available:
        raise ProjectError(
            f"must be between 0 and {available}, the number of GPUs on this machine",
            place="--num-gpus",
            found=str(num_gpus),
            hint="Without --num-gpus a GPU is used where there is one.",
        )
