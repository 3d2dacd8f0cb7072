"""Converting the splits of a project."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2tune.annotations.convert import ConvertResult, FindingsError, Stage, staged, write_findings
from d2tune.annotations.model.ledger import write_ledger
from d2tune.annotations.splitting.lists import keep_images
from d2tune.data.label_maps import with_background
from d2tune.data.location import locate_data
from d2tune.data.sources import refuse_shared_names, split_source
from d2tune.data.splits import divide, refuse_sharing
from d2tune.errors import DataError
from d2tune.project import Project, load_project

_SPLITS_INSIDE = ("yolo-seg", "rfdetr", "cityscapes")
"""Formats whose folder has those of the splits in it."""

_LABEL_MAPS = ("semantic", "panoptic", "cityscapes")
"""Formats with a class for each pixel, in which the class of the background is written."""


def convert_project(
    path: Path,
    *,
    out: str | Path | None = None,
    findings_path: str | Path | None = None,
    ledger_path: str | Path | None = None,
    strict: bool = False,
    overrides: dict[str, Any] | None = None,
    to: str = "coco",
    **writing: Any,
) -> list[ConvertResult]:
    """Write the splits of a project in another format, and only where none of them has an error.

    Args:
        path: The project file.
        out: Folder for the files; None is ``coco`` in the project's data folder.
        findings_path: File for the findings.
        ledger_path: File for the ledger.
        strict: Whether warnings count as errors.
        overrides: Fields of `ReadOptions` that differ from the project's.
        to: The format; one of ``annotations.registry.TARGETS``.
        writing: Further options of ``annotations.convert.Stage.write``.

    Returns:
        The results of ``train`` and ``val``, divided as training divides them.

    Raises:
        FindingsError: A split has errors.
        DataError: The data cannot be used, or the splits share images.
    """
    project, _ = locate_data(load_project(path).project)
    data = project.data
    refuse_shared_names(project)
    stages: dict[str, Stage] = {}
    failed: list[FindingsError] = []
    with contextlib.ExitStack() as stack:
        for split, source in (("train", data.train), ("val", data.val)):
            if not isinstance(source, str):
                continue
            labels = project.class_names or (stages["train"].dataset.class_names if "train" in stages else None)
            annotations, options = split_source(project, source, labels)
            options = replace(options, **(overrides or {}))
            try:
                stages[split] = stack.enter_context(
                    staged(annotations, format=data.format, options=options, strict=strict, to=to)
                )
            except FindingsError as error:
                failed.append(error)
        findings = [*(stage.dataset.findings for stage in stages.values()), *(error.findings for error in failed)]
        ledgers = [*(stage.dataset.ledger for stage in stages.values()), *(error.ledger for error in failed)]
        if findings_path is not None:
            write_findings(findings_path, [finding for of_split in findings for finding in of_split])
        if ledger_path is not None:
            write_ledger(ledger_path, [row for rows in ledgers for row in rows])
        if failed:
            raise FindingsError(
                failed[0],
                [finding for error in failed for finding in error.findings],
                [row for error in failed for row in error.ledger],
            )
        if isinstance(data.val, float):
            stages = _divided(project, stages["train"])
        elif data.fold is not None:
            raise DataError(
                "the images of data.train and data.val are divided into folds together, which cannot be converted",
                file=path,
                place="data.fold",
                hint="Remove data.fold to convert both splits as they are.",
            )
        else:
            refuse_sharing(project, {split: stage.dataset for split, stage in stages.items()})
        if to in _LABEL_MAPS:
            stages = {
                split: replace(stage, dataset=with_background(stage.dataset, data.background))
                for split, stage in stages.items()
            }
        folder = Path(out or data.root / "coco")
        if to in _SPLITS_INSIDE:
            return [stage.write(folder, to=to, subfolder=split, **writing) for split, stage in stages.items()]
        suffix = ".json" if to == "coco" else ""
        return [
            stage.write(folder / f"{split}{suffix}", to=to, subfolder=split if suffix else "", **writing)
            for split, stage in stages.items()
        ]


def _divided(project: Project, stage: Stage) -> dict[str, Stage]:
    """The two splits of a project that divides one source, by a fraction or into folds."""
    dataset = stage.dataset
    train, val = (
        keep_images(dataset, {image.file_name for image in images.images})
        for images in divide(project, with_background(dataset, project.data.background), None)
    )
    own = {image.annotation_file for image in val.images} | {image.file_name for image in val.images}
    val = replace(
        val,
        findings=tuple(finding for finding in val.findings if finding.file in own),
        ledger=tuple(row for row in val.ledger if row.file in own),
    )
    return {"train": replace(stage, dataset=train), "val": replace(stage, dataset=val)}
