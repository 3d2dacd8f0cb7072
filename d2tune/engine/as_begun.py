"""What a project leaves to d2tune, as it was chosen when the run began that is resumed."""

from __future__ import annotations

from typing import Any

from d2tune.errors import RunError
from d2tune.project import LoadedProject, load_project
from d2tune.project.overrides import LENGTHS
from d2tune.project.values import time_text
from d2tune.run_folder import RunFolder


def as_begun(loaded: LoadedProject, resumed: RunFolder) -> LoadedProject:
    """A project with the batch size, and what fits into its budget, of the run that goes on with it.

    Args:
        loaded: The project.
        resumed: The run.

    Raises:
        RunError: The project has another budget than the run began with.
    """
    train, began = loaded.project.train, load_project(resumed.project).project.train
    values: dict[str, Any] = {}
    if train.batch_size == "auto":
        values["batch_size"] = began.images_per_step
    budget = resumed.read_record().get("budget")
    seconds = None if budget is None else float(budget["seconds"])
    if train.budget not in (None, seconds):
        raise RunError(
            "train.budget changed since this run began",
            file=resumed.path,
            found=time_text(train.budget or 0.0),
            expected="none" if seconds is None else time_text(seconds),
            hint=f"To train longer, set more iterations: train.iterations={2 * (began.iterations or 0)}."
            if began.iterations
            else "Set train.iterations or train.epochs.",
        )
    if budget is not None:
        has_length = train.iterations is not None or train.epochs is not None
        is_set = {key for key in train.model_fields_set if getattr(train, key) not in (None, "auto")}
        kept = [key for key in budget["values"] if not (has_length if key in LENGTHS else key in is_set)]
        values |= {key: getattr(began, key) for key in kept} | {"budget": None}
    return loaded.with_train(values)
