"""What each process of a training does that was started by itself, by ``torchrun`` or on another machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d2tune.engine.assembly import Extensions
from d2tune.engine.budget import Budget
from d2tune.engine.plan import TrainingPlan, device_of, make_plan
from d2tune.engine.process import seeded_model, train_model
from d2tune.engine.ranks import Member, agree, check_alike, from_first, local_first
from d2tune.engine.record import check_resumable
from d2tune.engine.result import TrainResult
from d2tune.engine.run_start import new_run_of, run_to_resume
from d2tune.errors import RunError
from d2tune.modeling.weights import StateDict
from d2tune.project import LoadedProject, flatten
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.run_lock import locked
from d2tune.versions import versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a training was asked for; see `launch.train`."""

    output_dir: str | Path | None
    resume: bool
    sample: bool
    num_gpus: int | None
    extensions: Extensions


def train_as_member(loaded: LoadedProject, member: Member, asked: Asked) -> TrainResult:
    """Train in this process together with the others, which it has joined; the first one owns the run folder.

    Each process reads the data itself, so that they may lie in another place on each machine. The run folder is one
    that all machines see.

    Raises:
        D2TuneError: What this process has found and the user must fix first.
        SystemExit: Another process says why training ends, or a signal stopped it.
    """
    budget = Budget(time.perf_counter())
    with ExitStack() as held:
        path = from_first(lambda: _folder_to_resume(loaded, member, asked))
        resumed = None if path is None else RunFolder(Path(path))
        if resumed is not None:
            from_first(lambda: held.enter_context(_held(resumed)))
            agree(lambda: _check_seen(resumed, member))

        def plan_here() -> tuple[TrainingPlan, StateDict | None]:
            gpus = 0 if device_of(loaded.project, asked.num_gpus) == "cpu" else 1
            plan, state = make_plan(
                loaded, num_gpus=gpus, sample=asked.sample, resumed=resumed, budget=budget, processes=member.world
            )
            return (plan if resumed is None else check_resumable(resumed, plan)), state

        plan, state = local_first(member, plan_here)
        check_alike(_facts_of(plan))
        model, report = agree(partial(seeded_model, plan, state, device=plan.cfg.MODEL.DEVICE))
        del state

        def begin() -> str:
            folder = resumed or held.enter_context(new_run_of(plan, asked.output_dir))
            folder.update_record({"launch": {"processes": member.world, "id": member.launch}})
            return str(folder.path)

        folder = RunFolder(Path(from_first(begin)))
        return train_model(plan, folder, model, report, resume=resumed is not None, extensions=asked.extensions)


def _folder_to_resume(loaded: LoadedProject, member: Member, asked: Asked) -> str | None:
    """The run to go on with; None for a new one.

    Where ``torchrun`` starts the processes again, it is the run that they trained before.
    """
    if member.restarts:
        earlier = _launched_by(member.launch, loaded.project.name, asked.output_dir)
        if earlier is not None and earlier.last.is_file():
            return str(earlier.path)
        if earlier is not None:  # it had not come to a checkpoint
            with locked(earlier.path):
                shutil.rmtree(earlier.path)
    return str(run_to_resume(loaded.project, asked.output_dir).path) if asked.resume else None


def _launched_by(launch: str, project: str, output_dir: str | Path | None) -> RunFolder | None:
    """The run that a command began before its processes were started again."""
    runs = Path("runs") / project
    folders = [Path(output_dir)] if output_dir is not None else sorted(runs.iterdir()) if runs.is_dir() else []
    for folder in map(RunFolder, reversed(folders)):
        if folder.record.is_file() and folder.read_record().get("launch", {}).get("id") == launch:
            return folder
    return None


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Hold the lock of a run that is resumed."""
    ensure_writable(folder.path)
    with locked(folder.path):
        folder.remove_leftovers()
        yield


def _check_seen(folder: RunFolder, member: Member) -> None:
    if not folder.last.is_file():
        raise RunError(
            f"process {member.rank} does not see the run folder",
            file=folder.path,
            expected="checkpoints/last.pth",
            hint="A run is resumed on several machines where its folder is on a disk that all of them see.",
        )


def _facts_of(plan: TrainingPlan) -> dict[str, Any]:
    """What must be alike in all processes, the data first."""
    weights = plan.chosen.file
    settings = {f"the setting {key}": value for key, value in flatten(plan.cfg).items()}
    return {
        "the classes": list(plan.splits.train.class_names),
        "the training images": f"{len(plan.splits.train.images)} images",
        "the content of the training data": plan.train_sha256,
        "the validation images": f"{len(plan.splits.val.images)} images",
        "the content of the validation data": plan.val_sha256,
        "the pretrained weights": None if weights is None else weights.sha256,
        "the precision": plan.precision,
        **settings,
        **{f"the version of {name}": version for name, version in versions().items()},
    }
