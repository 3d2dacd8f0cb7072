"""Models for others: packages, exports, servers and what is handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d2tune.api.arguments import check_paths, run_folder_of
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.export.export import ExportResult
    from d2tune.handover.handover import HandoverResult
    from d2tune.packages.write import PackageResult
    from d2tune.serving.settings import PageOptions, ServingSettings


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

    check_paths(out=out, weights=weights)
    chosen = None if thresholds is None else str(thresholds)
    if runtime is not None:
        return export(run, out, format=runtime, weights=weights, thresholds=chosen, force=force)
    return write.write_package(run_folder_of(run), out, weights=weights, thresholds=chosen, force=force)


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

    return description.info(run_folder_of(model))


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

    check_paths(out=out, weights=weights, calibrate=calibrate, images=images)
    return exporting.export(
        run_folder_of(model),
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


def handover(
    model: str | Path,
    out: str | Path,
    *,
    weights: str = "best",
    thresholds: str | float | None = None,
    acceptance: str | Path | None = None,
    wheel: str | Path | None = None,
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
        wheel: The wheel of this d2tune to add.
        runtime: ``onnx`` adds the model for devices without torch; None adds none.
        force: Whether an unchanged handover in ``out`` is replaced.

    Raises:
        D2TuneError: The model or the report cannot be used, a file names this machine, or the folder cannot be written.
    """
    from d2tune.handover import handover as handing_over

    check_paths(out=out, weights=weights, acceptance=acceptance, wheel=wheel)
    return handing_over.make_handover(
        run_folder_of(model),
        out,
        weights=weights,
        thresholds=None if thresholds is None else str(thresholds),
        acceptance=acceptance,
        wheel=wheel,
        runtime=runtime,
        force=force,
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

    check_paths(weights=weights)
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
    check_paths(keys=keys)
    return add_key(Path(keys), client)
