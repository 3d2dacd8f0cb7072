"""Small models with seeded random weights, and what Detectron2's own code gives for an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.projects.point_rend import PointRendMaskHead

from d2tune.export.export import ExportOptions, make_candidate
from d2tune.export.formats import FORMATS
from d2tune.export.reference import reference_model
from d2tune.modeling.build import build_model
from d2tune.modeling.config import DataFacts, project_config
from d2tune.modeling.loaded import LoadedModel
from d2tune.packages.read import Package, read_package
from d2tune.packages.write import write_package
from d2tune.project import Project
from tests.packages.builders import MODELS, make_run

SIZES_HW = ((96, 128), (97, 64), (160, 144))


def build(
    task: str,
    preset: str,
    raw: Mapping[str, Any],
    *,
    classes: Sequence[str] = ("bus", "road", "sky"),
    model: Mapping[str, Any] | None = None,
) -> Any:
    """A model in evaluation mode whose scores and classes differ.

    Args:
        task: The task.
        preset: The preset.
        raw: Keys of Detectron2.
        classes: The classes; of a panoptic model the first is a thing and the others are stuff.
        model: Further keys of ``model``.
    """
    things, stuff = (classes[:1], classes[1:]) if task == "panoptic" else ((), ())
    named = {"things": list(things), "stuff": list(stuff)} if things else {"classes": list(classes)}
    plain = {
        "name": "small",
        "task": task,
        "data": {"root": "data"},
        "model": {"preset": preset, **(model or {})},
        "train": {"image_size": 64},
        "detectron2": dict(raw),
        **named,
    }
    project = Project.model_validate(plain)
    facts = DataFacts(
        class_names=tuple(classes),
        train_images=9,
        has_rle=True,
        train_name="t",
        val_name="v",
        thing_names=tuple(things),
        stuff_names=tuple(stuff),
    )
    torch.manual_seed(3)
    built = build_model(project_config(project, facts, scratch=True, device="cpu"))[0]
    for name, parameter in built.named_parameters():
        if name.endswith(("cls_score.weight", "predictor.weight", "objectness_logits.weight")):
            torch.nn.init.normal_(parameter, std=0.2)
    return built.eval().requires_grad_(False)


def image_of(size_hw: tuple[int, int], *, channels: int = 3) -> torch.Tensor:
    """``(C, h, w)`` float32 with values from 0 to 255."""
    random = np.random.default_rng(size_hw[0])
    return torch.from_numpy(random.integers(0, 256, (channels, *size_hw)).astype(np.float32))


def detected_by_detectron2(model: Any, image: torch.Tensor, min_scores: Sequence[float]) -> list[torch.Tensor]:
    """Boxes, classes, scores and masks of the instances above the lowest scores, by Detectron2's own code."""
    with torch.no_grad():
        images = model.preprocess_image([{"image": image}])
        features = model.backbone(images.tensor)
        proposals, _ = model.proposal_generator(images, features, None)
        detected = model.roi_heads._forward_box(features, proposals)[0]
        kept = detected[detected.scores >= torch.tensor(min_scores)[detected.pred_classes]]
        head = model.roi_heads.mask_head
        if isinstance(head, PointRendMaskHead):
            PointRendMaskHead.forward(head, features, [kept])
        else:
            model.roi_heads.forward_with_given_boxes(features, [kept])
    return [kept.pred_boxes.tensor, kept.pred_classes, kept.scores, kept.pred_masks[:, 0]]


def package_of(folder: Path, task: str = "instance") -> Package:
    """A package of `tests.packages.builders.make_run`."""
    thresholds = "0.45" if task == "instance" else None
    write_package(make_run(folder, task), folder / "package", thresholds=thresholds)
    return read_package(folder / "package")


def candidate_of(source: Package, folder: Path, format_name: str, **options: Any) -> tuple[Package, LoadedModel]:
    """The package of an export without a check, and the model that it was made of."""
    reference = reference_model(source)
    chosen = FORMATS[format_name]
    precision = options.pop("precision", "float32")
    make_candidate(folder, source, reference, ExportOptions(format=chosen, precision=precision, **options))
    return read_package(folder), reference


SMALL_INSTANCE: dict[str, Any] = MODELS["instance"]["raw"] | {"MODEL.POINT_HEAD.SUBDIVISION_STEPS": 3}
"""Keys of a small PointRend with masks of 56 x 56."""
