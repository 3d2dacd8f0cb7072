"""Advice on a dataset before training, each piece based on a count or a size that was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from d2tune.report.axes import number
from d2tune.report.check_page.survey import FEW_INSTANCES, SMALL_PX, Survey
from d2tune.text import counted

_DETECTIONS_PER_IMAGE = 100
_THIN = 4.0
_UNBALANCED = 20


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommended change.

    Attributes:
        title: The observation, in one sentence.
        text: What to do.
        urgent: Whether training is impossible, or its scores are misleading, until it is done.
    """

    title: str
    text: str
    urgent: bool = False


def short(name: str, *, limit: int = 48) -> str:
    """A name of at most ``limit`` characters."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def listed(names: Sequence[str], *, limit: int = 4) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c, d and 3 more``; long names are cut."""
    shown = [short(name) for name in names[:limit]]
    if len(names) > limit:
        return f"{', '.join(shown)} and {len(names) - limit} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def advice(survey: Survey, *, leaks: int = 0) -> tuple[Advice, ...]:
    """The advice on a dataset, the urgent first.

    Args:
        survey: The dataset.
        leaks: Groups of near-duplicates that lie in more than one split.
    """
    pieces = [*_findings(survey, leaks), *_classes(survey), *_sizes(survey), *_images(survey)]
    return tuple(sorted(pieces, key=lambda piece: not piece.urgent))


def verdict(survey: Survey, *, leaks: int = 0, groups: int = 0) -> str:
    """The result of the check in one or two sentences.

    Args:
        survey: The dataset.
        leaks: Groups of near-duplicates that lie in more than one split.
        groups: All groups of near-duplicates.
    """
    classes = counted(len(survey.class_names), "class")
    objects = counted(len(survey.labels), survey.setting.noun)
    if survey.crowds:
        objects = f"{counted(len(survey.labels), 'object')}, {counted(survey.crowds, 'crowd')}"
    first = f"{counted(len(survey.entries), 'image')}, {objects} of {classes}"
    errors, warnings = survey.level("error"), survey.level("warning")
    problems = []
    if errors:
        problems.append(f"{counted(errors, 'error')} {'stops' if errors == 1 else 'stop'} training")
    if leaks:
        problems.append(
            f"{counted(leaks, 'group')} of near-duplicates {'lies' if leaks == 1 else 'lie'} in more than one split"
        )
    elif groups:
        problems.append(f"{counted(groups, 'group')} of near-duplicates")
    if warnings:
        problems.append(counted(warnings, "warning"))
    if not survey.labels and not errors:
        problems.append(f"no {survey.setting.noun}s to train on")
    return f"{'; '.join([first, *(problems or ['no problems'])])}."


def _findings(survey: Survey, leaks: int) -> Iterator[Advice]:
    errors = survey.level("error")
    if errors:
        codes = Counter(finding.code for finding in survey.findings if finding.level == "error")
        kinds = listed([code for code, _ in codes.most_common()])
        text = f"Fix the findings {kinds}, or exclude the files with --skip-bad."
        yield Advice(f"{counted(errors, 'error')} to fix before training", text, urgent=True)
    if leaks:
        text = (
            "The model is evaluated on images that it was trained on, so its scores will be too high. Keep each group "
            "in one split, as d2tune split does."
        )
        title = f"Near-duplicates lie in different splits ({counted(leaks, 'group')})"
        yield Advice(title, text, urgent=True)
    if survey.crowds:
        text = (
            "Crowds (iscrowd) are not trained on. Some tools mark every brush mask so: where they are single objects, "
            "read them as objects with data.crowds: objects, or --crowds objects."
        )
        urgent = not survey.labels
        yield Advice(f"{counted(survey.crowds, 'annotation')} marked as crowds", text, urgent=urgent)
    unlabeled = sum(finding.code == "unlabeled_image" for finding in survey.findings)
    if unlabeled:
        text = (
            "An image without an annotation file is not used in training. If it shows no object, save an empty "
            "annotation: the image is then a negative."
        )
        yield Advice(f"{counted(unlabeled, 'image')} without an annotation", text)


def _classes(survey: Survey) -> Iterator[Advice]:
    rows, noun = survey.class_rows, survey.setting.noun
    unused = [row.name for row in rows if not row.instances]
    if unused and survey.labels:
        text = "A class without annotations cannot be learned. Annotate some, or remove the name from the classes."
        yield Advice(f"{listed(unused)} {'has' if len(unused) == 1 else 'have'} no annotations", text)
    for split_number, split in enumerate(survey.splits):
        missing = [row.name for row in rows if row.instances and not row.by_split[split_number]]
        if missing and survey.labels:
            effect = "cannot be learned" if split == "train" else "is not evaluated"
            text = f"A class without {noun}s in {split} {effect}. Split the images again with d2tune split."
            yield Advice(f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing from {split}", text)
    scarce = [row.name for row in rows if 0 < row.instances < FEW_INSTANCES]
    if scarce:
        text = (
            f"With so few {noun}s a class is learned poorly and its scores vary by chance. Annotate more images of "
            f"{'this class' if len(scarce) == 1 else 'these classes'}."
        )
        has = "has" if len(scarce) == 1 else "have"
        yield Advice(f"{listed(scarce)} {has} fewer than {FEW_INSTANCES} {noun}s", text)
    if not survey.setting.has_objects:
        yield from _pixel_balance(survey)
        return
    some = [row.instances for row in rows if row.instances >= FEW_INSTANCES]
    if len(some) > 1 and some[0] > _UNBALANCED * some[-1]:
        rare = next(row.name for row in reversed(rows) if row.instances >= FEW_INSTANCES)
        common, rare = short(rows[0].name), short(rare)
        text = f"Training will favor {common}. Annotate more of {rare}, and compare the AP of each class."
        yield Advice(f"{common} is {number(some[0] / some[-1])} times as frequent as {rare}", text)


def _pixel_balance(survey: Survey) -> Iterator[Advice]:
    """How unevenly the classes share the labeled pixels."""
    shares = [row for row in survey.class_rows if row.share]
    if len(shares) > 1 and shares[0].share > _UNBALANCED * shares[-1].share:
        common, rare = short(shares[0].name), short(shares[-1].name)
        text = f"Training will favor {common}. Set model.class_weights: balanced, and compare the IoU of each class."
        yield Advice(f"{common} has {number(shares[0].share / shares[-1].share)} times as many pixels as {rare}", text)


def _sizes(survey: Survey) -> Iterator[Advice]:
    if not len(survey.sizes_px):
        return
    sides, setting = survey.image_sizes_of_instances_px.min(axis=1), survey.setting
    side_px, thing = setting.short_side_px, setting.thing
    shown = survey.sizes_px * (1.0 if side_px is None else np.minimum(1.0, side_px / sides))
    small, small_shown = float(np.mean(survey.sizes_px < SMALL_PX)), float(np.mean(shown < SMALL_PX))
    if small >= 0.5:
        text = (
            f"The median {thing} is {number(float(np.median(survey.sizes_px)))} px across. Raise train.image_size "
            "above the short side of the images, or cut the images into tiles."
        )
        yield Advice(f"{_percent(small)} of the {thing}s are smaller than {SMALL_PX:.0f} px", text)
    elif small_shown >= 0.25:
        resized = "By default training resizes images"
        if setting.project is not None:
            resized = f"The project {setting.project} resizes images"
        text = (
            f"{resized} to a short side of {side_px} px; the median {thing} is then "
            f"{number(float(np.median(shown)))} px across instead of "
            f"{number(float(np.median(survey.sizes_px)))}. Raise train.image_size."
        )
        title = f"{_percent(small_shown)} of the {thing}s are smaller than {SMALL_PX:.0f} px after resizing"
        yield Advice(title, text)
    thin = float(np.mean(np.maximum(survey.aspect_ratios, 1 / survey.aspect_ratios) > _THIN))
    if thin >= 0.2 and setting.has_objects:
        text = (
            "The anchors of the presets are at most twice as long as wide. Add longer ones: "
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS=[[0.2,0.5,1.0,2.0,5.0]]."
        )
        yield Advice(f"{_percent(thin)} of the objects are over {_THIN:.0f} times as long as wide", text)


def _images(survey: Survey) -> Iterator[Advice]:
    most = int(survey.objects_per_image.max()) if len(survey.entries) else 0
    if most > _DETECTIONS_PER_IMAGE and survey.setting.has_objects:
        text = (
            f"Detectron2 predicts at most {_DETECTIONS_PER_IMAGE} objects in an image by default. Allow more: "
            f"TEST.DETECTIONS_PER_IMAGE={-(-most // 100) * 100 + 100}."
        )
        yield Advice(f"An image has {number(most)} objects", text)
    sides = np.sqrt(np.prod(survey.image_sizes_px, axis=1))
    if len(sides) and sides.max() > 4 * sides.min() and survey.setting.short_side_px is not None:
        text = (
            f"All images are resized to the same short side, so {survey.setting.thing}s of the same real size differ "
            "widely in pixels. Use a wider train.scale_jitter."
        )
        title = f"The largest image is {number(float(sides.max() / sides.min()))} times as wide as the smallest"
        yield Advice(title, text)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
