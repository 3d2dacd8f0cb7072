"""The functions behind the commands, which only parse arguments, call a function and print."""

from d2tune.api.arguments import MOST_TOLERANCE_PX
from d2tune.api.classical import baseline, outline
from d2tune.api.delivery import export, handover, info, new_serving_key, package, serve
from d2tune.api.overview import dashboard, remove_runs, runs, write_report
from d2tune.api.results import (
    assemble,
    compare,
    compare_models,
    evaluate,
    evaluate_files,
    load_predictor,
    merge,
    predict,
    predict_video,
)
from d2tune.api.search import kfold, sweep, wandb_sweep
from d2tune.api.training import convert, load_project, preview, split, train
from d2tune.api.video import track

__all__ = [
    "MOST_TOLERANCE_PX",
    "assemble",
    "baseline",
    "compare",
    "compare_models",
    "convert",
    "dashboard",
    "evaluate",
    "evaluate_files",
    "export",
    "handover",
    "info",
    "kfold",
    "load_predictor",
    "load_project",
    "merge",
    "new_serving_key",
    "outline",
    "package",
    "predict",
    "predict_video",
    "preview",
    "remove_runs",
    "runs",
    "serve",
    "split",
    "sweep",
    "track",
    "train",
    "wandb_sweep",
    "write_report",
]
