"""Projects, their data and their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2tune import project as projects
from d2tune.api.arguments import MOST_TOLERANCE_PX, check_paths
from d2tune.errors import check_path, check_range
from d2tune.project import LoadedProject

if TYPE_CHECKING:
    from d2tune.annotations.convert import ConvertResult
    from d2tune.annotations.splitting.splits import Split
    from d2tune.engine.assembly import HookSource
    from d2tune.engine.preview import PreviewResult
    from d2tune.engine.result import TrainResult
    from d2tune.loggers import Logger


def load_project(
    path: str | Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    wandb: bool = False,
    num_gpus: int | None = None,
) -> LoadedProject:
    """Read a project file with the profile of this machine's hardware.

    Args:
        path: A ``projects/*.yaml``.
        profile: Name of the profile; None takes the profile of the hardware.
        overrides: ``key=value`` strings with project keys such as ``train.iterations=500`` and raw Detectron2
            keys such as ``SOLVER.BASE_LR=0.001``, which replace values of the project's ``detectron2`` section.
            A file in ``weights=`` is relative to the working folder.
        wandb: Whether to set ``tracking`` to ``wandb``.
        num_gpus: Number of GPUs; 0 takes the profile of the CPU.

    Raises:
        ProjectError: The file or an override is invalid.
    """
    import torch

    check_path(path, place="project file")
    has_gpu = num_gpus != 0 and torch.cuda.is_available()
    return projects.load_overridden(path, profile=profile, words=overrides, wandb=wandb, has_gpu=has_gpu)


def train(
    project: str | Path | LoadedProject,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    output_dir: str | Path | None = None,
    resume: bool = False,
    num_gpus: int | None = None,
    sample: bool = True,
    wandb: bool = False,
    hooks: HookSource = (),
    loggers: Sequence[Logger] = (),
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "",
) -> TrainResult:
    """Fine-tune a project, evaluate the best weights and draw their predictions.

    Args:
        project: A project file, or the result of ``load_project``, which then has ``profile``, ``overrides`` and
            ``wandb``.
        profile: See ``load_project``.
        overrides: See ``load_project``.
        output_dir: The run folder; None is ``runs/<project>/<time>``.
        resume: Whether to resume the run in ``output_dir``, or the latest run of the project.
        num_gpus: Number of GPUs; None takes one GPU if the machine has any, 0 the CPU.
        sample: Whether to render the project's sample if its data are missing.
        wandb: See ``load_project``.
        hooks: Further hooks of the training loop: Detectron2's ``HookBase`` objects, or a function that returns them
            for a trainer. Besides Detectron2's own events they may have ``after_backward``. In each event they run
            after the evaluation, and before the checkpoint to resume from and the loggers, so that their
            ``state_dict`` and their values in Detectron2's ``EventStorage`` are saved and logged in the same
            iteration. With several GPUs each process has its own hooks, which must be picklable.
        loggers: Further ``d2tune.loggers.Logger`` objects, which get the values of ``metrics.jsonl``.
        num_machines: Machines that train together, on each of which this is called; ``torchrun`` needs no such numbers.
        machine_rank: Number of this machine, from 0.
        dist_url: Where the machines meet: ``tcp://HOST:PORT`` of machine 0.

    Raises:
        D2TuneError: The project, its data, the weights, the machine or the output folder cannot be used.
    """
    from d2tune.engine import launch
    from d2tune.engine.ranks import Machines

    loaded = project
    if not isinstance(loaded, LoadedProject):
        loaded = load_project(loaded, profile=profile, overrides=overrides, wandb=wandb, num_gpus=num_gpus)
    return launch.train(
        loaded,
        output_dir=output_dir,
        resume=resume,
        num_gpus=num_gpus,
        sample=sample,
        hooks=hooks,
        loggers=loggers,
        machines=Machines(count=num_machines, rank=machine_rank, url=dist_url),
    )


def preview(
    project: str | Path,
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    samples: int = 12,
    sample: bool = True,
    force: bool = False,
) -> PreviewResult:
    """Draw what a model sees in training: augmented images with their annotations; see ``engine.preview``.

    No weights are read.

    Args:
        project: A project file.
        profile: See ``load_project``.
        overrides: See ``load_project``.
        out: The PNG; None is ``<project>_preview.png`` in the working folder.
        samples: Images to draw, at most 64.
        sample: Whether to render the project's sample if its data are missing.
        force: Whether an earlier preview is replaced.

    Raises:
        D2TuneError: The project or its data cannot be used, or the file exists.
    """
    from d2tune.engine.plan import make_plan
    from d2tune.engine.preview import write_preview

    check_paths(project=project, out=out)
    words = [word for word in overrides if not word.startswith(("weights=", "weights_sha256="))]
    words += ["weights=scratch", "weights_sha256=null"]
    loaded = load_project(project, profile=profile, overrides=words, num_gpus=0)
    plan, _ = make_plan(loaded, num_gpus=0, sample=sample)
    return write_preview(plan, out=None if out is None else Path(out), samples=samples, force=force)


def convert(source: str | Path, **options: Any) -> list[ConvertResult]:
    """Convert annotations; see ``annotations.convert.convert`` for the options.

    Of a project file the training and validation splits are converted; see ``data.convert_project.convert_project``.
    """
    from d2tune.annotations.convert import convert as convert_one
    from d2tune.data.convert_project import convert_project

    check_paths(source=source, out=options.get("out"))
    check_range(options.get("tolerance_px", 1.0), place="--tolerance-px", least=0, most=MOST_TOLERANCE_PX)
    check_range(options.get("min_area_px2") or 0.0, place="--min-area", least=0)
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return convert_project(path, **options)
    return [convert_one(path, **options)]


def split(source: str | Path, *, out: str | Path | None = None, **options: Any) -> tuple[Split, Path]:
    """Divide annotated images into splits and write lists of their names; see ``annotations.divide.divide``."""
    from d2tune.annotations.divide import divide

    check_paths(source=source, out=out)
    return divide(source, out=out, **options)
