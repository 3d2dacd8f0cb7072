"""The assembled model as a run folder, which all commands take that take a run."""

from __future__ import annotations

import sys
import time
from typing import Any

from d2tune import files
from d2tune.annotations.model.dataset import Dataset
from d2tune.assembling.candidates import Candidate
from d2tune.evaluation.evaluator import Evaluator, Scoring
from d2tune.modeling import checkpoint
from d2tune.modeling.build import build_model
from d2tune.modeling.ready import random_init_off
from d2tune.packages.run_card import write_run_card
from d2tune.packages.write import divisibility
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of
from d2tune.versions import versions


def write_model(
    folder: RunFolder,
    candidate: Candidate,
    predictions: list[Any],
    *,
    evaluator: Evaluator[Any],
    dataset: Dataset,
    assembled: dict[str, Any],
) -> float | None:
    """Write a model with its config, weights, predictions, evaluation, card and record.

    The record is written last: without it the folder is not a run.

    Args:
        folder: Where it is written.
        candidate: The model.
        predictions: Its predictions on all validation images, as the evaluator keeps them.
        evaluator: That of the validation images.
        dataset: The validation images.
        assembled: What the record says of how it was made.

    Returns:
        The main metric on all validation images.
    """
    member = candidate.member
    project = member.loaded.project
    folder.best.parent.mkdir(parents=True, exist_ok=True)
    iterations = int((member.record.get("best") or {}).get("iteration", 0))
    checkpoint.save(folder.best, {"model": dict(candidate.state), "iteration": iterations})
    files.write_text(folder.project, project.to_yaml())
    files.write_text(folder.config, candidate.cfg.dump())
    digest = evaluator.save(predictions, folder.path)
    outcome = evaluator.evaluate(predictions, Scoring(split="val"))
    value = evaluator.quick(predictions).value
    sha256 = files.sha256_file(folder.best)
    bound = {
        "run": str(folder.path.resolve()),
        "data": None,
        "data_sha256": dataset.content_hash(),
        "weights": str(folder.best.resolve()),
        "weights_sha256": sha256,
        "config_sha256": files.sha256_file(folder.config),
        "predictions_sha256": digest,
    }
    outcome.write(folder.path, bound=bound, times=None)
    evaluator.draw(
        folder.contact_sheet,
        predictions,
        title=project.name,
        subtitle=f"validation images, {candidate.name}, {outcome.headline}",
    )
    best = {
        "iteration": iterations,
        "sha256": sha256,
        "predictions_sha256": digest,
        "val_sha256": bound["data_sha256"],
        task_of(project).main_metric: value,
    }
    folder.update_record(_record(candidate, best) | {"assembled": assembled})
    write_run_card(folder, project, candidate.cfg, divisible_by_px=_divisible_by_px(candidate))
    return value


def _record(candidate: Candidate, best: dict[str, Any]) -> dict[str, Any]:
    """The record of the first run, with what is another for the assembled model."""
    kept = {key: value for key, value in candidate.member.record.items() if key not in ("resumed", "ended")}
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    size = {"short_side_px": candidate.cfg.INPUT.MIN_SIZE_TEST, "max_side_px": candidate.cfg.INPUT.MAX_SIZE_TEST}
    return kept | {
        "command": sys.argv,
        "versions": versions(),
        "input": kept["input"] | size,
        "best": best,
        "finished": {"iterations": candidate.member.cfg.SOLVER.MAX_ITER, "time": now},
    }


def _divisible_by_px(candidate: Candidate) -> int:
    cpu = candidate.cfg.clone()
    cpu.defrost()
    cpu.MODEL.DEVICE = "cpu"
    with random_init_off():
        model, _ = build_model(cpu)
    return divisibility(model)
