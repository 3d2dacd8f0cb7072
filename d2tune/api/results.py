"""What runs and other models are worth, and what they predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from d2tune.api.arguments import MOST_TOLERANCE_PX, check_paths, run_folder_of
from d2tune.errors import check_path, check_range

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from d2tune.assembling.result import AssemblyResult
    from d2tune.evaluation.comparison import RunComparison
    from d2tune.evaluation.summaries import EvaluationResult
    from d2tune.inference.predictors.base import Predictor
    from d2tune.metrics.coco.results import Kind
    from d2tune.model_comparison.compare import Comparison
    from d2tune.model_comparison.models import ComparedModel
    from d2tune.runs.predict import PredictionResult
    from d2tune.video.predict import VideoFormat
    from d2tune.video.result import VideoResult


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

    check_paths(data=data, out=out, weights=weights)
    if batch_size is not None:
        check_range(batch_size, place="--batch-size", least=1)
    return evaluation.evaluate(
        run_folder_of(run),
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

    check_paths(predictions=predictions, ground_truth=ground_truth, out=out, labels=labels)
    return evaluation.evaluate_files(predictions, ground_truth, out=out, kinds=metrics, labels=labels, crowds=crowds)


def compare(
    a: str | Path, b: str | Path, *, ground_truth: str | Path | None = None, out: str | Path | None = None
) -> RunComparison:
    """Compare B with A on the same images: differences with intervals and significance; see ``runs.compare``."""
    from d2tune.runs import compare as comparison

    check_paths(a=a, b=b, ground_truth=ground_truth, out=out)
    return comparison.compare(a, b, ground_truth=ground_truth, out=out)


def assemble(
    *runs: str | Path,
    folds: str | Path | None = None,
    out: str | Path | None = None,
    swa_iterations: int | None = None,
) -> AssemblyResult:
    """Make the final model of one or several finished runs of the same data; see ``assembling.assemble``.

    Args:
        runs: Run folders, or project files for their latest runs.
        folds: The folder of a finished ``d2tune kfold`` of the project of one run: its runs choose and prove on all
            images what is done with the run. None chooses on one half of the validation images and proves on the other.
        out: The output folder; None is ``runs/<project>/assembled_<time>``.
        swa_iterations: Iterations that the best run is trained on for the average of its weights; 0 does not, None is a
            quarter of those that it had.

    Raises:
        D2TuneError: The runs or folds do not fit together, there are too few images, or the folder cannot be used.
    """
    from d2tune.assembling import assemble as assembling

    check_paths(folds=folds, out=out)
    return assembling.assemble(
        [run_folder_of(run) for run in runs], folds=folds, out=out, swa_iterations=swa_iterations
    )


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
        min_area_px2: Smallest area of a region in Labelme files, None is 25; and of an object that is measured, cut
            out or numbered in a PNG, None writes all.
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

    check_paths(out=out, weights=weights)
    if isinstance(source, str):
        check_path(source, place="source")
    if min_score is not None:
        check_range(min_score, place="--min-score", least=0, most=1)
    check_range(tolerance_px, place="--tolerance-px", least=0, most=MOST_TOLERANCE_PX)
    folder = run_folder_of(run)
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

    check_paths(out=out)
    for folder in folders:
        check_paths(folder=folder)
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

    check_paths(source=source, out=out, weights=weights)
    if min_score is not None:
        check_range(min_score, place="--min-score", least=0, most=1)
    options = VideoOptions(video=video, realtime=realtime, mm_per_px=mm_per_px, lost_s=lost_s, batch_size=batch_size)
    return prediction.predict(
        run_folder_of(run),
        source,
        out=out,
        weights=weights,
        min_score=min_score,
        options=options,
        window_px=window_px,
        overlap=overlap,
        object_px=object_px,
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
            run_folder_of(run),
            weights=weights,
            min_score=min_score,
            window_px=window_px,
            overlap=overlap,
            object_px=object_px,
        )


def compare_models(
    a: str | Path | ComparedModel,
    b: str | Path | ComparedModel,
    image: str | Path | bytes | NDArray[np.uint8],
    *,
    weights_folder: str | Path | None = None,
) -> Comparison:
    """Compare what two models predict on an image, and what it takes; see ``model_comparison.compare``.

    Args:
        a: The first model: the name of a published network, such as ``fcn_resnet50``, or ``NAME=FILE``; a run folder, a
            package, an exported model, or a project file for its latest run.
        b: The second model.
        image: A photo: a file, the content of a file, or an array ``(H, W, 3)`` uint8 in RGB.
        weights_folder: A folder with files of published networks; without it they are downloaded once.

    Raises:
        D2TuneError: A model cannot be loaded or does not take photos, or the image cannot be read.
    """
    from d2tune.modeling.light_imports import light_imports

    with light_imports():
        from d2tune.model_comparison.compare import compare_models as compare_loaded

    return compare_loaded(a, b, image, weights_folder=weights_folder)
