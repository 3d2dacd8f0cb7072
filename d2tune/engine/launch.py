"""Training a project from its data to a run folder, in one process or in one for each GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from signal import Signals
from typing import Any

from detectron2.engine import launch
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from d2tune.engine.assembly import Extensions, HookSource
from d2tune.engine.batch_size import fitting_batch
from d2tune.engine.budget import Budget
from d2tune.engine.members import Asked, train_as_member
from d2tune.engine.plan import TrainingPlan, check_gpus, device_of, make_plan
from d2tune.engine.process import STOPPED, run_in_process, seeded_model, train_model
from d2tune.engine.ranks import Machines, Member, joined
from d2tune.engine.record import check_resumable
from d2tune.engine.result import TrainResult, read_result
from d2tune.engine.run_start import new_run_of, run_to_resume
from d2tune.errors import D2TuneError, ProjectError, RunError
from d2tune.loggers import Logger, chosen
from d2tune.logs import guarded_streams, set_up_terminal
from d2tune.modeling.weights import LoadReport
from d2tune.project import LoadedProject
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.run_lock import locked


def train(
    loaded: LoadedProject,
    *,
    output_dir: str | Path | None = None,
    resume: bool = False,
    num_gpus: int | None = None,
    sample: bool = True,
    hooks: HookSource = (),
    loggers: Sequence[Logger] = (),
    machines: Machines | None = None,
) -> TrainResult:
    """Train a project and evaluate it.

    A process that ``torchrun`` has started trains together with the others that it has started.

    Args:
        loaded: From ``load_project``.
        output_dir: The run folder; ``runs/<project>/<time>`` unless given.
        resume: Continue the latest run of the project, or the one in ``output_dir``.
        num_gpus: GPUs to train on; None takes one where there is one.
        sample: Render the project's sample where its data are missing.
        hooks: Further hooks, see ``assembly.build_trainer``.
        loggers: Further loggers.
        machines: The machines that train together without ``torchrun``; None is this one.

    Raises:
        D2TuneError: Something that the user must fix first; nothing has been written then.
    """
    extensions = Extensions(hooks, tuple(loggers))
    asked = Asked(output_dir=output_dir, resume=resume, sample=sample, num_gpus=num_gpus, extensions=extensions)
    began_s = time.perf_counter()
    member = _member(num_gpus, machines)
    check_gpus(num_gpus)
    chosen.check(loaded.project)
    if member is not None:
        with guarded_streams(), joined(member, device=device_of(loaded.project, num_gpus)):
            return train_as_member(loaded, member, asked)
    if machines is not None and machines.count > 1:
        _check_picklable(extensions)
        return _launch_machine(loaded, machines, num_gpus or 1, asked)
    with ExitStack() as held, guarded_streams():
        resumed = run_to_resume(loaded.project, output_dir) if resume else None
        if resumed is not None:
            ensure_writable(resumed.path)
            held.enter_context(locked(resumed.path))
            resumed.remove_leftovers()
        plan, state = make_plan(
            loaded,
            num_gpus=num_gpus,
            sample=sample,
            resumed=resumed,
            choose_batch=fitting_batch,
            budget=Budget(began_s),
        )
        if resumed is not None:
            plan = check_resumable(resumed, plan)
        several = plan.num_gpus > 1
        if several:
            _check_picklable(extensions)
        model, report = seeded_model(plan, state, device="cpu" if several else plan.cfg.MODEL.DEVICE)
        del state
        folder = resumed or held.enter_context(new_run_of(plan, output_dir))
        if not several:
            return train_model(plan, folder, model, report, resume=resume, extensions=extensions)
        del model
        _launch(plan, folder, report, resume, extensions)
        return read_result(folder)


def _member(num_gpus: int | None, machines: Machines | None) -> Member | None:
    """This process, where it trains together with others that are started by themselves.

    Raises:
        ProjectError: The machines contradict themselves or ``torchrun``.
    """
    member = Member.of_environment()
    if machines is not None:
        machines.check()
    if member is None:
        single = machines is not None and machines.count > 1 and (num_gpus or 0) <= 1
        return Member.of_machine(machines) if single and machines is not None else None
    if (machines is not None and machines.count > 1) or (num_gpus or 0) > 1:
        raise ProjectError(
            "torchrun says how many processes and machines there are",
            place="--num-machines" if (num_gpus or 0) <= 1 else "--num-gpus",
            hint="Remove the option, or start d2tune without torchrun.",
        )
    return member


def _check_picklable(extensions: Extensions) -> None:
    """Make sure that hooks and loggers can be sent to the processes of several GPUs.

    Raises:
        RunError: They cannot be pickled.
    """
    try:
        ForkingPickler.dumps(extensions)
    except Exception as error:
        raise RunError(
            f"the hooks or loggers cannot be pickled for the processes of several GPUs: {error}",
            hint="Use classes and functions of a module, and open files in before_train or start.",
        ) from error


def _launch(
    plan: TrainingPlan, folder: RunFolder, report: LoadReport | None, resume: bool, extensions: Extensions
) -> None:
    """Train in one process for each GPU.

    Raises:
        RunError: One of them failed.
        SystemExit: They were stopped by a signal.
    """
    with _named_end(folder.log):
        launch(run_in_process, plan.num_gpus, dist_url="auto", args=(plan, folder, report, resume, extensions))


def _launch_machine(loaded: LoadedProject, machines: Machines, num_gpus: int, asked: Asked) -> TrainResult:
    """Train in one process for each GPU of this machine, together with those of the others.

    Raises:
        RunError: One of them failed.
        SystemExit: They were stopped by a signal.
    """
    paths = get_context("spawn").SimpleQueue()
    with _named_end(None):
        spawn(_work_on_machine, nprocs=num_gpus, args=(loaded, machines, num_gpus, asked, paths))  # type: ignore[no-untyped-call]
    return read_result(RunFolder(paths.get()))


def _work_on_machine(
    local_rank: int, loaded: LoadedProject, machines: Machines, num_gpus: int, asked: Asked, paths: Any
) -> None:
    """What a process of a GPU does."""
    set_up_terminal()
    member = Member.of_machine(machines, processes=num_gpus, local_rank=local_rank)
    try:
        with guarded_streams(), joined(member, device=device_of(loaded.project, num_gpus)):
            result = train_as_member(loaded, member, asked)
    except D2TuneError as error:
        print(f"error: {error.one_line()}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    if local_rank == 0:
        paths.put(result.run)


@contextmanager
def _named_end(file: Path | None) -> Iterator[None]:
    """Say which of the processes that are started inside has failed."""
    try:
        yield
    except ProcessExitedException as error:
        if error.exit_code == STOPPED:
            raise SystemExit(STOPPED) from None
        reason = f"by {Signals(-error.exit_code).name}" if error.exit_code < 0 else f"with status {error.exit_code}"
        raise RunError(f"a training process was ended {reason}, that of GPU {error.error_index}", file=file) from error
    except ProcessRaisedException as error:
        reason = str(error).strip().splitlines()[-1]
        raise RunError(f"a training process failed: {reason}, that of GPU {error.error_index}", file=file) from error
