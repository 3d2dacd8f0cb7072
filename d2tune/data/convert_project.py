"""Converting the splits of a project."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2tune.annotations.convert import ConvertResult, FindingsError, Stage, staged, write_findings
from d2tune.annotations.model.ledger import write_ledger
from d2tune.data.location import locate_data
from d2tune.data.sources import refuse_shared_names, split_source
from d2tune.project import load_project


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
        to: The format; one of ``annotations.convert.WRITERS``.
        writing: Further options of ``annotations.convert.Stage.write``.

    Returns:
        A result for each split that has its own annotations; a fraction of the training split has none.

    Raises:
        FindingsError: A split has errors.
        DataError: The data cannot be used.
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
                    staged(annotations, format=data.format, options=options, strict=strict)
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
        folder = Path(out or data.root / "coco")
        suffix = ".json" if to == "coco" else ""
        return [stage.write(folder / f"{split}{suffix}", to=to, **writing) for split, stage in stages.items()]
