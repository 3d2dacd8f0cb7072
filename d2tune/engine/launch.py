"""Training a project from its data to a run folder, in one process or in one for each GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from signal import Signals

from detectron2.engine import launch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from d2tune.engine.assembly import Extensions, HookSource
from d2tune.engine.batch_size import fitting_batch
from d2tune.engine.plan import TrainingPlan, check_gpus, make_plan
from d2tune.engine.process import STOPPED, run_in_process, seeded_model, train_model
from d2tune.engine.record import check_resumable, write_start
from d2tune.engine.result import TrainResult, read_result
from d2tune.errors import RunError
from d2tune.loggers import Logger, chosen
from d2tune.logs import guarded_streams
from d2tune.modeling.weights import LoadReport
from d2tune.project import LoadedProject, Project
from d2tune.run_folder import RunFolder, ensure_writable, latest_run, new_run
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
) -> TrainResult:
    """Train a project and evaluate it.

    Args:
        loaded: From ``load_project``.
        output_dir: The run folder; ``runs/<project>/<time>`` unless given.
        resume: Continue the latest run of the project, or the one in ``output_dir``.
        num_gpus: GPUs to train on; None takes one where there is one.
        sample: Render the project's sample where its data are missing.
        hooks: Further hooks, see ``assembly.build_trainer``.
        loggers: Further loggers.

    Raises:
        D2TuneError: Something that the user must fix first; nothing has been written then.
    """
    check_gpus(num_gpus)
    chosen.check(loaded.project)
    extensions = Extensions(hooks, tuple(loggers))
    with ExitStack() as held, guarded_streams():
        resumed = _run_to_resume(loaded.project, output_dir) if resume else None
        if resumed is not None:
            ensure_writable(resumed.path)
            held.enter_context(locked(resumed.path))
            resumed.remove_leftovers()
        plan, state = make_plan(loaded, num_gpus=num_gpus, sample=sample, resumed=resumed, choose_batch=fitting_batch)
        if resumed is not None:
            plan = check_resumable(resumed, plan)
        several = plan.num_gpus > 1
        if several:
            _check_picklable(extensions)
        model, report = seeded_model(plan, state, device="cpu" if several else plan.cfg.MODEL.DEVICE)
        del state
        folder = resumed or held.enter_context(_new_run(plan, output_dir))
        if not several:
            return train_model(plan, folder, model, report, resume=resume, extensions=extensions)
        del model
        _launch(plan, folder, report, resume, extensions)
        return read_result(folder)


@contextmanager
def _new_run(plan: TrainingPlan, output_dir: str | Path | None) -> Iterator[RunFolder]:
    with new_run(plan.project.name, output_dir=None if output_dir is None else Path(output_dir)) as folder:
        write_start(folder, plan)
        yield folder


def _run_to_resume(project: Project, output_dir: str | Path | None) -> RunFolder:
    if output_dir is None:
        folder = latest_run(project.name, having="checkpoints/last.pth")
        if folder is None:
            raise RunError("nothing to resume", file=Path("runs") / project.name, hint="Train without --resume first.")
        return folder
    folder = RunFolder(Path(output_dir))
    if not folder.last.is_file():
        raise RunError("nothing to resume", file=folder.path, expected="checkpoints/last.pth")
    return folder


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
    try:
        launch(run_in_process, plan.num_gpus, dist_url="auto", args=(plan, folder, report, resume, extensions))
    except ProcessExitedException as error:
        if error.exit_code == STOPPED:
            raise SystemExit(STOPPED) from None
        reason = f"by {Signals(-error.exit_code).name}" if error.exit_code < 0 else f"with status {error.exit_code}"
        raise RunError(f"a training process was ended {reason}", file=folder.log) from error
    except ProcessRaisedException as error:
        raise RunError(f"a training process failed: {str(error).strip().splitlines()[-1]}", file=folder.log) from error
