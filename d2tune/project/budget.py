"""What a training does with the time that a person gives it: sizes of images, frozen parts, steps and evaluations.

All of it are pure functions of the data, the time and what was measured on the machine. The constants are the rule; the
table in ``docs/training.md`` shows what follows from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d2tune.project.schedule import EVALUATIONS, LEAST_PASSES, evaluations, fitting_length
from d2tune.project.traits import TaskName
from d2tune.text import counted

SIZES_PX: tuple[tuple[int, float], ...] = ((256, 0.0), (320, 0.5), (384, 0.75), (480, 1.0), (640, 2.0), (800, 3.0))
"""Short sides in pixels, each with how many times `enough_steps` must fit into the time for images to be so large."""

ENOUGH_AT_MOST = 1000
"""Steps above which larger images are preferred to more steps."""

LEAST_OBJECT_PX = 12
"""Pixels across that three quarters of the objects have at the smallest short side, however short the time is."""

LEAST_TRAINED_OBJECT_PX = 8
"""The same at the smallest size in training."""

LARGE_OBJECT_PX = 40
"""Pixels across that three quarters of the objects have where a size is large enough for them; thin ones half of it."""

LARGE_OBJECT_FACTOR = 3.0
"""How many times as many steps a size wants where a smaller one is large enough."""

SHORT_JITTER = (0.5, 1.0)
"""``train.scale_jitter`` where time is short."""

AMPLE_JITTER = (0.6, 1.2)
"""The same where images that are large enough leave time, as in a project that sets neither it nor a budget."""

HIGHEST_LOW = 0.8
"""The most that the lower bound of both is raised to for small objects."""

AMPLE_FROM = 0.5
"""Share of `enough_steps` from which images on which objects are large leave time; the largest images need all."""

FREEZE_BELOW = 0.2
"""Share of `enough_steps` below which a pretrained backbone is not trained."""

EVALUATION_SHARE = 0.2
"""Largest share of the time that evaluations take; there are fewer of them where they would take more."""

RESERVE = 0.04
"""Share of the time that is left for what differs between steps."""

LEAST_STEPS = 10
"""Steps below which a budget is too short."""

MOST_EPOCHS = 200
MOST_STEPS = 3000
"""Steps above which more gain nothing, unless `MOST_EPOCHS` passes over the images are more."""

_STEP_PX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What of the data decides.

    Attributes:
        task: What the project is for.
        images: Images to train on.
        objects: Objects in them.
        short_side_px: Median of the images' short sides.
        object_share: The size across, the root of the area, that three quarters of the objects exceed, relative to the
            short side of their image; None where there are no objects.
        width_share: The same, but at most twice the width of an object, for thin ones; None where there are no objects.
    """

    task: TaskName
    images: int
    objects: int
    short_side_px: int
    object_share: float | None
    width_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of images, and whether the backbone is trained.

    Attributes:
        image_px: Short side in evaluations.
        jitter: Sizes in training relative to it.
        freezes: Whether a pretrained backbone stays as it is.
        reasons: By the key of ``train`` that is chosen.
    """

    image_px: int
    jitter: tuple[float, float]
    freezes: bool
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How the time is divided.

    Attributes:
        iterations: Optimizer steps.
        evaluations: Evaluations, that after the last step included.
        reason: Why so many.
    """

    iterations: int
    evaluations: int
    reason: str


def enough_steps(material: Material, *, batch_size: int, on_gpu: bool) -> int:
    """Steps that fit the number of images where nothing is set, but at most about `ENOUGH_AT_MOST`.

    Args:
        material: What of the data decides.
        batch_size: Images a step.
        on_gpu: Whether a GPU trains.
    """
    images = material.images
    usual = fitting_length(material.task, images=images, batch_size=batch_size, on_gpu=on_gpu).iterations
    return min(usual, max(ENOUGH_AT_MOST, math.ceil(LEAST_PASSES * images / batch_size)))


def candidates_px(material: Material) -> list[tuple[int, float]]:
    """The short sides that are considered, smallest first, with the multiple of `enough_steps` that each needs.

    None is larger than the images, and the smallest is one at which objects can be seen. Those above the first at which
    most objects are large want more steps.
    """
    own_px = max(_STEP_PX, material.short_side_px // _STEP_PX * _STEP_PX)
    sizes: dict[int, float] = {}
    for size_px, multiple in SIZES_PX:
        sizes.setdefault(min(size_px, own_px), multiple)
    share = material.object_share
    if not share:
        return list(sizes.items())
    least_px = min(max(sizes), LEAST_OBJECT_PX / share)
    large_px = next((size_px for size_px in sizes if _has_large_objects(material, size_px)), math.inf)
    return [
        (size_px, multiple * (LARGE_OBJECT_FACTOR if size_px > large_px else 1.0))
        for size_px, multiple in sizes.items()
        if size_px >= least_px
    ]


def fitting_sizes(
    material: Material,
    *,
    sizes: Sequence[tuple[int, float]],
    jitter: tuple[float, float] | None,
    step_s: Callable[[float], float],
    seconds: float,
    enough: int,
    is_pretrained: bool,
) -> Sizes:
    """The largest images with which enough steps fit into the time.

    Args:
        material: What of the data decides.
        sizes: From `candidates_px`, or the one that is set.
        jitter: What is set of the sizes in training; None chooses them.
        step_s: Seconds of a step by the root mean square of the short sides in pixels.
        seconds: Time for steps.
        enough: From `enough_steps`.
        is_pretrained: Whether the backbone has pretrained weights.
    """

    def steps(size_px: int, usual: tuple[float, float]) -> float:
        return seconds / step_s(size_px * mean_factor(*(jitter or raised(material, size_px, usual))))

    fitting = [size for size in sizes if steps(size[0], SHORT_JITTER) >= size[1] * enough]
    size_px, multiple = fitting[-1] if fitting else sizes[0]
    has_large = _has_large_objects(material, size_px)
    wanted = max(AMPLE_FROM if has_large else 1.0, multiple) * enough
    has_time = (has_large or size_px == sizes[-1][0]) and steps(size_px, AMPLE_JITTER) >= wanted
    usual = AMPLE_JITTER if has_time else SHORT_JITTER
    chosen = jitter or raised(material, size_px, usual)
    count = steps(size_px, usual)
    freezes = is_pretrained and count < FREEZE_BELOW * enough
    reasons = {
        "image_size": _size_reason(material, sizes, size_px, enough=enough),
        "scale_jitter": _jitter_reason(chosen, usual),
        "freeze": f"about {count:.0f} steps are too few to train a pretrained backbone",
    }
    return Sizes(image_px=size_px, jitter=chosen, freezes=freezes, reasons=reasons)


def raised(material: Material, size_px: int, usual: tuple[float, float]) -> tuple[float, float]:
    """Sizes in training whose lower bound is raised where most objects would be too small to be learned.

    Args:
        material: What of the data decides.
        size_px: Short side in evaluations.
        usual: Sizes relative to it.
    """
    low, high = usual
    if not material.object_share:
        return usual
    wanted = LEAST_TRAINED_OBJECT_PX / (material.object_share * size_px)
    return max(low, min(HIGHEST_LOW, math.ceil(10 * wanted) / 10)), high


def mean_factor(low: float, high: float) -> float:
    """The root mean square of sizes that are drawn evenly between two, which has the average cost of a step."""
    return math.sqrt((low * low + low * high + high * high) / 3)


def fitting_steps(
    material: Material,
    *,
    batch_size: int,
    step_s: float,
    evaluation_s: float,
    closing_s: float,
    seconds: float,
    period: int | None,
) -> Steps:
    """The steps and evaluations that take the time that is left.

    Args:
        material: What of the data decides.
        batch_size: Images a step.
        step_s: Seconds of a step.
        evaluation_s: Seconds of an evaluation.
        closing_s: Seconds for what comes after the last evaluation.
        seconds: Time that is left.
        period: Iterations between evaluations that are set, 0 for none but the last; None chooses them.
    """
    usable = seconds * (1 - RESERVE) - closing_s
    if period:
        iterations = max(0, math.floor((usable - evaluation_s) / (step_s + evaluation_s / period)))
        count = evaluations(period, iterations)
    else:
        count = EVALUATIONS if period is None else 1
        while count > 1 and count * evaluation_s > EVALUATION_SHARE * usable:
            count -= 1
        iterations = max(0, math.floor((usable - count * evaluation_s) / step_s))
    most = max(MOST_STEPS, math.ceil(MOST_EPOCHS * material.images / batch_size))
    if iterations > most:
        reason = f"more than {most} for {counted(material.images, 'image')} would gain nothing"
        return Steps(iterations=most, evaluations=count, reason=reason)
    shares = f"at {step_s:.2f} s each, with {counted(count, 'evaluation')} at {evaluation_s:.1f} s"
    return Steps(iterations=iterations, evaluations=count, reason=f"as many as fit, {shares}")


def seconds_for(iterations: int, *, step_s: float, evaluation_s: float, closing_s: float, before_s: float) -> float:
    """The budget that so many steps and one evaluation need.

    Args:
        iterations: Steps.
        step_s: Seconds of a step.
        evaluation_s: Seconds of an evaluation.
        closing_s: Seconds for what comes after the last evaluation.
        before_s: Seconds before the first step.
    """
    return before_s + (iterations * step_s + evaluation_s + closing_s) / (1 - RESERVE)


def _has_large_objects(material: Material, size_px: int) -> bool:
    return (material.width_share or 0.0) * size_px >= LARGE_OBJECT_PX


def _size_reason(material: Material, sizes: Sequence[tuple[int, float]], size_px: int, *, enough: int) -> str:
    smallest_px, largest_px = sizes[0][0], sizes[-1][0]
    if size_px == largest_px < SIZES_PX[-1][0]:
        why = f"as large as images of {material.short_side_px} px allow"
    elif size_px == largest_px:
        why = "there is time for enough steps on the largest images"
    else:
        next_px, multiple = next(size for size in sizes if size[0] > size_px)
        why = f"{next_px} px would want {math.ceil(multiple * enough)} steps, for which there is no time"
    if size_px == smallest_px > SIZES_PX[0][0] and size_px != largest_px:
        why = f"{why}; on smaller ones most objects could not be seen"
    share = material.object_share
    objects = counted(material.objects, "object")
    return why if not share else f"{why}; three quarters of {objects} are then larger than {share * size_px:.0f} px"


def _jitter_reason(chosen: tuple[float, float], usual: tuple[float, float]) -> str:
    is_raised = chosen[0] > usual[0]
    if usual == AMPLE_JITTER:
        return "the usual sizes, for which there is time" + (", but smaller objects would be lost" if is_raised else "")
    lower = "smaller objects would be lost" if is_raised else "steps on smaller images take less time"
    return f"{lower}, larger ones take too long"
