"""The functions behind the commands, which only parse arguments, call a function and print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from d2tune import project as projects
from d2tune.errors import ProjectError, check_path, check_range
from d2tune.project import LoadedProject

if TYPE_CHECKING:
    from d2tune.annotations.convert import ConvertResult
    from d2tune.annotations.splitting.splits import Split
    from d2tune.engine.assembly import HookSource
    from d2tune.engine.result import TrainResult
    from d2tune.evaluation.comparison import RunComparison
    from d2tune.evaluation.summaries import EvaluationResult
    from d2tune.export.export import ExportResult
    from d2tune.handover.handover import HandoverResult
    from d2tune.inference.predictors.base import Predictor
    from d2tune.loggers import Logger
    from d2tune.metrics.coco.results import Kind
    from d2tune.packages.write import PackageResult
    from d2tune.runs.predict import PredictionResult
    from d2tune.serving.settings import PageOptions, ServingSettings
    from d2tune.video.predict import VideoFormat
    from d2tune.video.result import VideoResult


MOST_TOLERANCE_PX = 1000.0
"""The largest distance that outlines may be simplified by."""


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

    Raises:
        D2TuneError: The project, its data, the weights, the machine or the output folder cannot be used.
    """
    from d2tune.engine import launch

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
    )


def evaluate(
    run: str | Path,
    *,
    data: str | Path | None = None,
    image_root: str | Path | None = None,
    weights: str = "best",
    out: str | Path | None = None,
    metrics: Sequence[Kind] = ("bbox", "segm", "boundary"),
    batch_size: int | None = None,
    crowds: Literal["crowds", "objects"] | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> EvaluationResult:
    """Evaluate a run on its validation split or on other data; see ``runs.evaluate``.

    Args:
        run: A run folder, or a project file for its latest run.
        data: Folder or file of annotations, or a list of images; None takes the validation split of the project.
        image_root: Folder of the images, where they are not beside the annotations.
        weights: ``best``, ``final`` or a checkpoint file.
        out: The output folder; None is ``evaluation`` in the run folder.
        metrics: For instance runs, the kinds of metrics.
        batch_size: Images per forward pass; None is 8 on CUDA and up to 4 on the CPU.
        crowds: Whether objects marked as crowds are read as ``crowds`` or as ``objects``; None is as in training.
        window_px: Height and width in pixels of the overlapping windows in which images are predicted, or ``auto``;
            None predicts on whole images, or as the config of the model says.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.

    Raises:
        D2TuneError: The run, the weights or the data cannot be used.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.runs import evaluate as evaluation

    _check_paths(data=data, out=out, weights=weights)
    if batch_size is not None:
        check_range(batch_size, place="--batch-size", least=1)
    return evaluation.evaluate(
        _run_folder(run),
        data=data,
        image_root=image_root,
        weights=weights,
        out=out,
        kinds=metrics,
        batch_size=batch_size,
        crowds=crowds,
        window_px=window_px,
        overlap=overlap,
        object_px=object_px,
    )


def evaluate_files(
    predictions: str | Path,
    ground_truth: str | Path,
    *,
    out: str | Path = "evaluation",
    metrics: Sequence[Kind] | None = None,
    labels: str | Path | None = None,
    crowds: Literal["crowds", "objects"] = "crowds",
) -> EvaluationResult:
    """Evaluate any model's predictions from files; see ``evaluation.from_files.evaluate``."""
    from d2tune.evaluation.from_files import evaluate as evaluation

    _check_paths(predictions=predictions, ground_truth=ground_truth, out=out, labels=labels)
    return evaluation.evaluate_files(predictions, ground_truth, out=out, kinds=metrics, labels=labels, crowds=crowds)


def compare(
    a: str | Path, b: str | Path, *, ground_truth: str | Path | None = None, out: str | Path | None = None
) -> RunComparison:
    """Compare B with A on the same images: differences with intervals and significance; see ``runs.compare``."""
    from d2tune.runs import compare as comparison

    _check_paths(a=a, b=b, ground_truth=ground_truth, out=out)
    return comparison.compare(a, b, ground_truth=ground_truth, out=out)


def predict(
    run: str | Path,
    source: str | Path | Sequence[str | Path] | None = None,
    *,
    out: str | Path | None = None,
    weights: str = "best",
    min_score: float | None = None,
    to: str = "auto",
    tolerance_px: float = 1.0,
    min_area_px2: float | None = None,
    force: bool = False,
    most_uncertain: int | None = None,
    mm_per_px: float | None = None,
    shard: str | None = None,
    ray: str | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> PredictionResult:
    """Predict on images and write the predictions; see ``runs.predict``.

    Args:
        run: A run folder, a package, an exported model, or a project file for its latest run.
        source: Images, folders, patterns such as ``photos/**/*.jpg``, and lists (text files with a path a line); one or
            several. None takes the images of the validation split of the project.
        out: The output folder, or a CSV file; None is ``predictions`` in the run folder, or ``predictions_<package>``
            in the working folder.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of written instances, from 0 to 1; None takes the thresholds of the model, which are
            0.5 for a run.
        to: ``auto`` for the usual format of the task, ``labelme`` for files to correct, ``coco``, ``coco_panoptic``,
            ``label_maps``, ``rle``, ``yolo-seg``, ``measurements``, ``masks``, ``cutouts``, ``overlays``, or ``csv``
            for a competition; several with commas between them.
        tolerance_px: Largest distance of outlines in Labelme files from the outlines of the masks.
        min_area_px2: Smallest area of a region in Labelme files; None is 25.
        force: Whether Labelme files and a CSV that an earlier prediction wrote, if they were not changed, are replaced.
        most_uncertain: For ``labelme``, how many images to write: those that the model is most unsure of.
        mm_per_px: For ``measurements``, the millimeters that a pixel stands for; None measures in pixels alone.
        shard: ``2/8`` predicts on the second of eight shards of the images, which `merge` joins; None predicts on all.
        ray: Address of a Ray cluster that predicts: ``auto``, ``local``, or such as ``ray://host:10001``.
        window_px: Height and width in pixels of the overlapping windows in which images are predicted, or ``auto``;
            None predicts on whole images, or as the config of the model says.
        overlap: Share of a window that the next window covers as well; None is 0.2.
        object_px: Size of the largest objects that are to be whole in a window; None is not known.

    Raises:
        D2TuneError: The run or the images cannot be used, or the output cannot be written.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.runs import predict as prediction
        from d2tune.runs.load import default_folder

    _check_paths(out=out, weights=weights)
    if isinstance(source, str):
        check_path(source, place="source")
    if min_score is not None:
        check_range(min_score, place="--min-score", least=0, most=1)
    check_range(tolerance_px, place="--tolerance-px", least=0, most=MOST_TOLERANCE_PX)
    folder = _run_folder(run)
    return prediction.predict(
        folder,
        source,
        out=out or default_folder(folder, "predictions"),
        weights=weights,
        min_score=min_score,
        to=to,
        tolerance_px=tolerance_px,
        min_area_px2=min_area_px2,
        force=force,
        most_uncertain=most_uncertain,
        mm_per_px=mm_per_px,
        shard=shard,
        ray=ray,
        window_px=window_px,
        overlap=overlap,
        object_px=object_px,
    )


def merge(folders: Sequence[str | Path], *, out: str | Path, force: bool = False) -> PredictionResult:
    """Join the shards of a prediction into what one process would have written; see ``runs.prediction.merge``."""
    from d2tune.runs.prediction import merge as merging

    _check_paths(out=out)
    for folder in folders:
        _check_paths(folder=folder)
    return merging.merge(folders, out=out, force=force)


def predict_video(
    run: str | Path,
    source: str | Path,
    *,
    out: str | Path | None = None,
    weights: str = "best",
    min_score: float | None = None,
    video: VideoFormat = "mp4",
    realtime: bool = False,
    mm_per_px: float | None = None,
    lost_s: float = 1.0,
    batch_size: int | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> VideoResult:
    """Predict on a video, and follow its objects; see ``runs.predict_video``.

    Args:
        run: A run folder, a package, an exported model, or a project file for its latest run.
        source: A file, the number of a camera, or an address of a stream.
        out: The output folder; None is a folder with the name of the video in ``predictions`` in the run folder, or in
            ``predictions_<package>`` in the working folder.
        weights: ``best``, ``final`` or a checkpoint file.
        min_score: Score from which an object begins a track, from 0 to 1; None takes the thresholds of the model.
        video: Format of the drawn video: ``mp4`` (MPEG-4 Part 2), ``webm`` (VP8, slower, for browsers) or ``none``.
        realtime: Whether the newest frame is taken and those that came meanwhile are dropped.
        mm_per_px: Millimeters that a pixel stands for; None measures in pixels alone.
        lost_s: Seconds that a track waits for its object.
        batch_size: Frames in a forward pass; None chooses by their size and the device.
        window_px: See `predict`.
        overlap: See `predict`.
        object_px: See `predict`.

    Raises:
        D2TuneError: The run or the video cannot be used, or the output cannot be written.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.runs import predict_video as prediction
        from d2tune.video.predict import VideoOptions

    _check_paths(source=source, out=out, weights=weights)
    if min_score is not None:
        check_range(min_score, place="--min-score", least=0, most=1)
    options = VideoOptions(video=video, realtime=realtime, mm_per_px=mm_per_px, lost_s=lost_s, batch_size=batch_size)
    return prediction.predict(
        _run_folder(run),
        source,
        out=out,
        weights=weights,
        min_score=min_score,
        options=options,
        window_px=window_px,
        overlap=overlap,
        object_px=object_px,
    )


def package(
    run: str | Path,
    out: str | Path,
    *,
    weights: str = "best",
    thresholds: str | float | None = None,
    runtime: str | None = None,
    force: bool = False,
) -> PackageResult | ExportResult:
    """Make a package of a run: a folder with all that predicting needs; see ``packages.write``.

    Args:
        run: A run folder, or a project file for its latest run.
        out: The folder of the package; it appears whole or not at all.
        weights: ``best``, ``final`` or a checkpoint file.
        thresholds: Lowest scores of instances: ``best-f1``, a number for all classes, or a file with a number by class.
            None takes the best-F1 threshold of classes with enough objects in the evaluation, and 0.5 for others.
        runtime: ``onnx`` exports the network as well, see `export`, with a script that runs it without torch; None
            keeps the weights for d2tune.
        force: Whether an unchanged package in ``out`` is replaced.

    Raises:
        D2TuneError: The run or the weights cannot be used, or the folder cannot be written.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.packages import write

    _check_paths(out=out, weights=weights)
    chosen = None if thresholds is None else str(thresholds)
    if runtime is not None:
        return export(run, out, format=runtime, weights=weights, thresholds=chosen, force=force)
    return write.write_package(_run_folder(run), out, weights=weights, thresholds=chosen, force=force)


def handover(
    model: str | Path,
    out: str | Path,
    *,
    weights: str = "best",
    thresholds: str | float | None = None,
    acceptance: str | Path | None = None,
    runtime: str | None = None,
    force: bool = False,
) -> HandoverResult:
    """Make a folder with everything that somebody needs who takes a model over; see ``handover.handover``.

    Args:
        model: A run folder, a package, an exported model, or a project file for its latest run.
        out: The folder of the handover; it appears whole or not at all.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        thresholds: Of a run, see `package`.
        acceptance: An acceptance report to add, a file or a folder.
        runtime: ``onnx`` adds the model for devices without torch; None adds none.
        force: Whether an unchanged handover in ``out`` is replaced.

    Raises:
        D2TuneError: The model or the report cannot be used, a file names this machine, or the folder cannot be written.
    """
    from d2tune.handover import handover as handing_over

    _check_paths(out=out, weights=weights, acceptance=acceptance)
    return handing_over.make_handover(
        _run_folder(model),
        out,
        weights=weights,
        thresholds=None if thresholds is None else str(thresholds),
        acceptance=acceptance,
        runtime=runtime,
        force=force,
    )


def info(model: str | Path) -> list[str]:
    """What a run or a package is, in lines; all files of a package are checked. See ``runs.info``.

    Args:
        model: A run folder, a package, an exported model, or a project file for its latest run.

    Raises:
        D2TuneError: It is none of these, or a file of a package is missing or was changed.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.runs import info as description

    return description.info(_run_folder(model))


def export(
    model: str | Path,
    out: str | Path,
    *,
    format: str,
    precision: str | None = None,
    weights: str = "best",
    thresholds: str | float | None = None,
    size: str | None = None,
    calibrate: str | Path | None = None,
    images: str | Path | None = None,
    allow_drift: bool = False,
    force: bool = False,
    say: Callable[[str], None] | None = None,
) -> ExportResult:
    """Export a model and check the export, which is not kept if it drifts; see ``export.export``.

    Args:
        model: A run folder, a package, or a project file for its latest run.
        out: The folder of the exported model, which `predict`, `evaluate` and `load_predictor` take as a model.
        format: ``onnx``, ``torchscript`` or ``openvino``.
        precision: Type of the weights: ``float32``, ``float16`` or ``int8``; None is float32.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        thresholds: Of a run, see `package`.
        size: For OpenVINO, ``HEIGHTxWIDTH`` that images are resized to fit in; None is that of the model.
        calibrate: For int8, a folder of photos to measure the ranges of values on.
        images: Images or annotations to check with; None takes the validation split of a run, if its data are there.
        allow_drift: Whether an export that is out of bounds is kept.
        force: Whether an unchanged package in ``out`` is replaced.
        say: Called with a line for each step, and with the table of the check of an export that is refused.

    Raises:
        D2TuneError: The model, the options or the images cannot be used, a library is missing, or the export drifts.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.export import export as exporting

    _check_paths(out=out, weights=weights, calibrate=calibrate, images=images)
    return exporting.export(
        _run_folder(model),
        out,
        format=format,
        precision=precision,
        weights=weights,
        thresholds=None if thresholds is None else str(thresholds),
        size=size,
        calibrate=calibrate,
        images=images,
        allow_drift=allow_drift,
        force=force,
        say=say,
    )


def load_predictor(
    run: str | Path,
    *,
    weights: str = "best",
    min_score: float | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
) -> Predictor[Any, Any]:
    """The predictor of a finished run, for images in memory.

    ``predictor(image)`` returns `Detections`, a `LabelMap` or a `PanopticMap`, depending on the task of the run, and
    ``predictor.batch(images)`` a list of them; see `inference.results`. Images are files, or arrays ``(H, W, 3)`` uint8
    in RGB.

    Args:
        run: A run folder, a package, an exported model, or a project file for its latest run.
        weights: Of a run: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of instances, from 0 to 1; None takes the thresholds of the model, which are 0.5 for a
            run. With 0 all instances that the model gives are kept.
        window_px: See `predict`.
        overlap: See `predict`.
        object_px: See `predict`.

    Raises:
        ProjectError: A number is outside of its range, or predictions of the run have no scores or no windows.
        RunError: The run or the weights do not exist.
        PackageError: The package was written by a later version, or a file is missing or was changed.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.runs import load

        return load.load_predictor(
            _run_folder(run),
            weights=weights,
            min_score=min_score,
            window_px=window_px,
            overlap=overlap,
            object_px=object_px,
        )


def serve(
    models: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    weights: str = "best",
    min_score: float | None = None,
    window_px: int | Literal["auto"] | None = None,
    overlap: float | None = None,
    object_px: int | None = None,
    settings: ServingSettings | None = None,
    page: PageOptions | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C; see ``serving.serve`` and docs/serving.md.

    Args:
        models: Run folders, packages, exported models, or project files for their latest run; each may have a name
            before it: ``NAME=PATH``.
        host: The address to listen at; ``0.0.0.0`` is all of the machine.
        port: The port; 0 takes a free one.
        weights: Of runs: ``best``, ``final`` or a checkpoint file.
        min_score: Lowest score of instances, from 0 to 1; None takes the thresholds of each model.
        window_px: Height and width in pixels of the overlapping windows in which images are predicted, or ``auto``;
            None predicts on whole images, or as the config of the model says.
        overlap: See `predict`.
        object_px: See `predict`.
        settings: The limits, the queue and the keys; None are the defaults.
        page: What the page for judging predictions at ``/`` shows; None serves the API alone.
        say: Called with the address when the models are ready.

    Raises:
        D2TuneError: A model or the keys cannot be used, or the port is in use.
    """
    from d2tune.modeling.light_imports import light_imports

    _check_paths(weights=weights)
    with light_imports():
        from d2tune.serving import serve as serving

    serving.serve(
        models,
        host=host,
        port=port,
        weights=weights,
        min_score=min_score,
        window_px=window_px,
        overlap=overlap,
        object_px=object_px,
        settings=settings,
        page=page,
        say=say,
    )


def new_serving_key(client: str, keys: str | Path | None) -> str:
    """Make a key for a client of a server; see ``serving.keys.add_key``.

    Args:
        client: Name of the client.
        keys: The file of keys, which is created if it does not exist.

    Returns:
        The key, which is stored nowhere.

    Raises:
        ProjectError: No file is named, or it cannot be read or written, or has this client already.
    """
    from d2tune.serving.keys import add_key

    if keys is None:
        raise ProjectError("--new-key needs a file of keys", hint="Add --keys FILE.")
    _check_paths(keys=keys)
    return add_key(Path(keys), client)


def convert(source: str | Path, **options: Any) -> list[ConvertResult]:
    """Convert annotations; see ``annotations.convert.convert`` for the options.

    Of a project file the training and validation splits are converted; see ``data.convert_project.convert_project``.
    """
    from d2tune.annotations.convert import convert as convert_one
    from d2tune.data.convert_project import convert_project

    _check_paths(source=source, out=options.get("out"))
    check_range(options.get("tolerance_px", 1.0), place="--tolerance-px", least=0, most=MOST_TOLERANCE_PX)
    check_range(options.get("min_area_px2") or 0.0, place="--min-area", least=0)
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        return convert_project(path, **options)
    return [convert_one(path, **options)]


def split(source: str | Path, *, out: str | Path | None = None, **options: Any) -> tuple[Split, Path]:
    """Divide annotated images into splits and write lists of their names; see ``annotations.divide.divide``."""
    from d2tune.annotations.divide import divide

    _check_paths(source=source, out=out)
    return divide(source, out=out, **options)


def _run_folder(run: str | Path) -> Path:
    """A run folder as given, or the latest run of a project file."""
    from d2tune.runs.latest import run_folder

    _check_paths(run=run)
    return run_folder(run)


def _check_paths(**paths: str | Path | None) -> None:
    for place, path in paths.items():
        check_path(path, place=place)
