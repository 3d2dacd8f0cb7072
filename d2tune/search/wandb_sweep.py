"""The space of a search as a sweep file of Weights & Biases, whose agents run ``d2tune train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.errors import ProjectError
from d2tune.project import LoadedProject
from d2tune.search.space import Parameter, Space

KIND = "sweep"
"""How a sweep file is noted in the record of the outputs of its folder."""


def write_wandb_sweep(
    path: Path, space: Space, loaded: LoadedProject, *, words: Sequence[str], trials: int, force: bool = False
) -> Path:
    """Write a sweep file of Weights & Biases.

    Args:
        path: The YAML file.
        space: What is varied.
        loaded: The project.
        words: Overrides of the project, the same in each run.
        trials: After how many runs the sweep ends.
        force: Whether an earlier sweep file is replaced.

    Raises:
        ProjectError: A value cannot be written so that W&B passes it on as it is.
        DataError: The file exists.
    """
    place = loaded.project.traits.main_metrics[0]
    content = {
        "name": f"{loaded.project.name}-{space.file.stem}",
        "method": "bayes",
        "metric": {"name": place.scalar, "goal": "maximize"},
        "run_cap": trials,
        "parameters": {one.key: _parameter(space, one) for one in space.parameters},
        "command": ["d2tune", "train", str(loaded.file.resolve()), *words, "${args_no_hyphens}", "--wandb"],
    }
    refuse_existing([path], force=force, kind=KIND)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return write_output(path, text.encode(), kind=KIND)


def _parameter(space: Space, one: Parameter) -> dict[str, Any]:
    if one.kind == "choice":
        # agents write str(value) of Python, which is YAML for all but null and texts with special letters in lists
        bad = next((value for value in one.choices if not _is_passed_on(value)), one)
        if bad is not one:
            raise ProjectError(
                "W&B's agents do not pass this value on as it is", file=space.file, place=one.key, found=repr(bad)
            )
        return {"values": list(one.choices)}
    if one.kind == "integer":
        low, high = int(one.low), int(one.high)
        if one.step > 1:
            return {"values": list(range(low, high + 1, one.step))}
        return {"distribution": "int_uniform", "min": low, "max": high}
    distribution = "log_uniform_values" if one.kind == "log_uniform" else "uniform"
    return {"distribution": distribution, "min": one.low, "max": one.high}


def _is_passed_on(value: Any) -> bool:
    """Whether Python's text of a value reads as the same value in YAML."""
    try:
        return bool(yaml.safe_load(str(value)) == value)
    except yaml.YAMLError:
        return False
