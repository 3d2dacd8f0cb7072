"""Before the first step: whether a training step and an evaluation fit into memory, and what they cost.

Both are run on the images that take most: a step on the largest images of the training split and the one with most
instances, an evaluation on the largest image of the validation split with as many detections that fill it as the model
gives at most, ``TEST.DETECTIONS_PER_IMAGE`` (100 unless it is set). Of several processes each runs its own share of a
step, and the same evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.annotations.splitting.lists import keep_images
from d2tune.data.batches import SampleKey, TrainingBatches
from d2tune.data.mapper import resized_shape
from d2tune.engine.cost import Cost, measure_cost, measure_evaluation, pixels_of
from d2tune.engine.memory import Peak, free_bytes, is_out_of_memory, refusing_more
from d2tune.engine.plan import TrainingPlan
from d2tune.errors import DataError, MachineError
from d2tune.inference.loop import fitting_batch
from d2tune.inference.predictors.base import Predictor
from d2tune.tasks import task_of
from d2tune.text import counted, in_bytes

Samples = torch.utils.data.Dataset[dict[str, Any]]


def preflight(
    plan: TrainingPlan,
    model: nn.Module,
    samples: Samples,
    batches: TrainingBatches,
    *,
    doing: Callable[[str], object],
) -> Cost:
    """Run a step and an evaluation as large as any, then time typical ones; the model is left as it was.

    Args:
        plan: The run's decisions.
        model: On its device.
        samples: The training split.
        batches: The keys of the training samples.
        doing: Called with what is done now, before it can take more memory than there is.

    Raises:
        MachineError: A stage does not fit into memory; it is named, with what to change.
        DataError: An image to train on cannot be read.
    """
    times = plan.project.train.accumulate
    keys = batches.typical()
    keys = keys[: len(keys) // times]
    large = largest_keys(plan, batches, count=len(keys))
    gradients, others = held_bytes(plan, model)
    what = training_stage(plan, large)
    with _stage(plan, what, doing, but_for=others, hint=_training_hint()):
        typical, largest = ([samples[key] for key in chosen] for chosen in (keys, large))
        cost = measure_cost(model, typical, plan.cfg, plan.precision, largest=largest)
    besides = 0 if plan.cfg.MODEL.DEVICE == "cuda" else others  # of a GPU it was taken
    cost = replace(cost, step_s=times * cost.step_s, memory_bytes=cost.memory_bytes + besides)
    if plan.project.traits.follows_objects:
        return cost
    return _with_evaluation(plan, model, cost, doing=doing, held=gradients + others)


def _with_evaluation(
    plan: TrainingPlan, model: nn.Module, cost: Cost, *, doing: Callable[[str], object], held: int
) -> Cost:
    val = plan.splits.val
    predictor = task_of(plan.project).predictor(model, plan.cfg, plan.project, val.categories)
    in_windows = bool(plan.cfg.INPUT.ORIGINAL_SIZE)
    with torch.random.fork_rng():
        peak = Peak(plan.cfg.MODEL.DEVICE)
        for image in _largest_images(predictor, val.images):
            try:
                _evaluate(plan, predictor, image, doing=doing, held=held)
            except DataError:
                break  # the evaluation itself reports the image
        memory = peak.bytes + (0 if plan.cfg.MODEL.DEVICE == "cuda" else held)
    evaluation_s = measure_evaluation(predictor, val.images, in_windows=in_windows, is_warm=True)
    if evaluation_s is not None:
        evaluation_s /= comm.get_world_size()  # the images are divided
    return replace(cost, evaluation_s=evaluation_s, evaluation_bytes=memory)


def _evaluate(
    plan: TrainingPlan,
    predictor: Predictor[Any, Any],
    image: Image,
    *,
    doing: Callable[[str], object],
    held: int,
) -> None:
    """Predict and score an image as in an evaluation, stage by stage."""
    most = plan.cfg.TEST.DETECTIONS_PER_IMAGE
    objects = counted(most, "object")
    place = f"{image.file_name}, {image.width_px} x {image.height_px} px"
    on_cuda = plan.cfg.MODEL.DEVICE == "cuda"
    with _stage(plan, f"reading {place}", doing, but_for=held, hint=READING_HINT):
        sample = predictor.prepare(image)
    count, network = 1, f"evaluating {place}, in windows"
    if predictor.takes_whole_images:
        height_px, width_px = (int(side) for side in sample["image"].shape[-2:])
        if on_cuda:  # a processor takes several images at once only where they are small
            count = min(fitting_batch(height_px, width_px, on_cuda=True), len(plan.splits.val.images))
        size = f"{counted(count, 'image')} of {width_px} x {height_px} px"
        network = f"the network in an evaluation, on {size} with {objects} each"
    with _stage(plan, network, doing, but_for=held, hint=NETWORK_HINT):
        raw = predictor.run_full([sample] * count, most)
    has_objects = plan.project.traits.has_objects
    what = f"pasting the masks of {objects} on" if has_objects else "the label map of"
    with _stage(plan, f"{what} {place}", doing, but_for=held, hint=PASTING_HINT):
        result = predictor.finish(raw[0], sample)
    task = task_of(plan.project)
    if not task.has_instance_metrics:
        return
    with _stage(plan, f"scoring {objects} on {place}", doing, but_for=held, hint=PASTING_HINT):
        evaluator = task.evaluator(keep_images(plan.splits.val, {image.file_name}), plan.cfg, plan.project)
        evaluator.quick(evaluator.keep([result]))


NETWORK_HINT = (
    "Set a smaller train.image_size; or train.image_size=original with train.patch_size, which evaluates in windows."
)
READING_HINT = "Reduce the size of the image file, or remove it from the validation split."
PASTING_HINT = "The validation images are too large for this machine: reduce the size of their files and annotations."


def _training_hint() -> str:
    automatic = "train.batch_size=auto, or " if comm.get_world_size() == 1 else ""
    return (
        f"Set {automatic}train.accumulate=2 or more, which computes a batch in parts; or a smaller train.image_size, "
        "or a smaller model.preset."
    )


@contextmanager
def _stage(plan: TrainingPlan, what: str, doing: Callable[[str], object], *, but_for: int, hint: str) -> Iterator[None]:
    """Report that memory does not suffice for what is done inside.

    Raises:
        MachineError: It does not.
    """
    device = plan.cfg.MODEL.DEVICE
    doing(f"checking that there is memory for {what}")
    free = free_bytes(device)
    try:
        with refusing_more(device, but_for=but_for), _reserved(device, but_for):
            yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        whose = "the GPU's memory" if device == "cuda" else "the memory"
        left = f"{in_bytes(max(0, free - but_for))} free"
        raise MachineError(f"{whose} does not suffice for {what}", found=left, hint=hint) from None


@contextmanager
def _reserved(device: str, size_bytes: int) -> Iterator[None]:
    """Inside, memory of the GPU is taken, as that of optimizer and averages will be; on processors nothing happens."""
    taken = torch.empty(size_bytes if device == "cuda" else 0, dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del taken


def held_bytes(plan: TrainingPlan, model: nn.Module) -> tuple[int, int]:
    """Memory of the gradients, and of what else a training has besides a step: the optimizer's state, and averages."""
    trained = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    states = 2 if plan.cfg.SOLVER.OPTIMIZER.upper() == "ADAMW" else 1
    floats = sum(value.nbytes for value in model.state_dict().values() if value.is_floating_point())
    # the average, and the model's own weights while it has the averaged ones
    averages = 2 * floats if plan.cfg.SOLVER.EMA_DECAY > 0 else 0
    return trained, states * trained + averages


def training_stage(plan: TrainingPlan, keys: Sequence[SampleKey]) -> str:
    """What a step on samples is called in messages."""
    side_px = plan.cfg.INPUT.PATCH_PX
    if side_px:
        return f"a training step on {counted(len(keys), 'square')} of {side_px} px"
    sizes = [_training_size(plan, plan.splits.train.images[key.index]) for key in keys]
    height_px, width_px = max(sizes, key=lambda size_hw: size_hw[0] * size_hw[1])
    return f"a training step on {counted(len(keys), 'image')} of up to {width_px} x {height_px} px"


def largest_keys(plan: TrainingPlan, batches: TrainingBatches, *, count: int) -> list[SampleKey]:
    """The keys of ``count`` samples that take as much memory as any."""
    train: Dataset = plan.splits.train
    by_image = train.by_image()
    instances = [len(by_image.get(image.id, ())) for image in train.images]
    return batches.largest([_training_size(plan, image) for image in train.images], instances, count=count)


def _training_size(plan: TrainingPlan, image: Image) -> tuple[int, int]:
    """Height and width of an image at the largest size in training."""
    own = image.height_px, image.width_px
    if plan.cfg.INPUT.ORIGINAL_SIZE:
        return own
    side_px = plan.cfg.INPUT.MIN_SIZE_TRAIN[1]
    if plan.cfg.INPUT.LARGE_SCALE_JITTER:  # images are cut to the size of evaluations
        side_px = min(side_px, plan.cfg.INPUT.MIN_SIZE_TEST)
    return resized_shape(own, short_side_px=side_px, max_side_px=plan.cfg.INPUT.MAX_SIZE_TRAIN)


def _largest_images(predictor: Predictor[Any, Any], images: Sequence[Image]) -> list[Image]:
    """The image with most pixels, and the one that is largest for the network, where that is a quarter larger.

    In windows, the smallest image: its windows are as large as those of any, and the others take their time.
    """
    having = [image for image in images if image.path is not None]
    if not having:
        return []
    if not predictor.takes_whole_images:
        return [min(having, key=pixels_of)]
    largest = max(having, key=pixels_of)
    for_network = max(having, key=predictor.input_px)
    is_larger = predictor.input_px(for_network) > 1.25 * predictor.input_px(largest)
    return [largest, for_network] if is_larger else [largest]
