"""Whether one set of predictions is better than another on the same images, by how much and how surely."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.formats.coco import to_coco
from d2tune.errors import DataError, RunError
from d2tune.evaluation.evaluate import dataset_of, kinds_of, read_results
from d2tune.evaluation.evaluator import evaluator_of
from d2tune.evaluation.map_metrics import MAIN_METRIC, MapTask
from d2tune.metrics.bootstrap import Comparison, Weights, paired_comparisons
from d2tune.metrics.coco.resampling import resample
from d2tune.metrics.coco.results import KIND_NAMES, KINDS, InstanceResult, Kind
from d2tune.metrics.coco.scorer import score_coco
from d2tune.metrics.coco.summary import REPLICATES, replicates_for
from d2tune.metrics.panoptic import PanopticScorer
from d2tune.metrics.semantic import SemanticScorer
from d2tune.modeling.config import read_config
from d2tune.project import load_project
from d2tune.report.tables import format_table

_AGAIN = "Evaluate the run again, d2tune eval RUN, and compare once more."
_SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Two sets of predictions side by side.

    Attributes:
        a: What A is.
        b: What B is.
        images: How many images both were run on.
        metrics: The comparison of each metric, such as ``segm AP``.
        verdict: The figure that counts, in words.
    """

    a: str
    b: str
    images: int
    metrics: dict[str, Comparison]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return {
            "schema": 1,
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "verdict": self.verdict,
            "figures": {name: asdict(one) for name, one in self.metrics.items()},
        }

    def table(self) -> str:
        """A row for each figure."""
        rows = [
            [
                _in_words(name),
                _number(one.value_a),
                _number(one.value_b),
                _number(one.difference, signed=True),
                "-" if one.interval.low is None else f"{one.interval.low:+.1f} to {one.interval.high:+.1f}",
                "-" if one.probability_b_better is None else f"{100 * one.probability_b_better:.0f} %",
            ]
            for name, one in self.metrics.items()
            if one.value_a is not None or one.value_b is not None
        ]
        return format_table(rows, header=["figure", "A", "B", "B - A", "95 % interval", "B better in"])


def _in_words(name: str) -> str:
    """``mask AP`` for ``segm AP``, and ``mIoU`` for ``semantic mIoU``."""
    kind, figure = name.split()
    known = {str(one): word for one, word in KIND_NAMES.items()}
    return f"{known[kind]} {figure}" if kind in known else figure


def _number(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else f"{value:+.1f}" if signed else f"{value:.1f}"


@dataclass(frozen=True, slots=True)
class _Side:
    """One set of predictions with the ground truth that it belongs to.

    Attributes:
        name: What the person called it.
        truth_sha256: Of the ground truth.
        truth: Of instances: a COCO instances dict.
        results: Of instances: COCO results.
        scorer: Of label images or segments: with all images added.
    """

    name: str
    truth_sha256: str
    truth: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    scorer: SemanticScorer | PanopticScorer | None = None


def compare(
    a: str | Path, b: str | Path, *, ground_truth: str | Path | None = None, out: str | Path | None = None
) -> RunComparison:
    """Compare two runs on the images that both were evaluated on, by a paired bootstrap over the images.

    Args:
        a: A run folder, the folder of an evaluation, or with ``ground_truth`` a file of COCO results.
        b: Likewise.
        ground_truth: A COCO instances file, where ``a`` and ``b`` are files of results.
        out: Folder for ``comparison.json``.

    Raises:
        RunError: A result is not that of the weights, the config and the data that are there now, or the two were
            evaluated on different data.
        DataError: A file cannot be read.
    """
    sides = [_file_side(Path(one), Path(ground_truth)) if ground_truth else _run_side(Path(one)) for one in (a, b)]
    if sides[0].truth_sha256 != sides[1].truth_sha256:
        raise RunError(
            "the two were evaluated on different data and cannot be compared",
            file=b,
            hint="Evaluate both on the same data: d2tune eval RUN --data DATA, then compare the folders it writes.",
        )
    if any(side.scorer is not None for side in sides):
        comparison = _compared_maps(*sides)
    else:
        comparison = _compared_instances(sides, ground_truth or a)
    if out is not None:
        files.write_json(Path(out) / "comparison.json", comparison.to_json())
    return comparison


def _compared_maps(a: _Side, b: _Side) -> RunComparison:
    if a.scorer is None or b.scorer is None or type(a.scorer) is not type(b.scorer):
        raise RunError("the two are runs of different tasks and cannot be compared", file=b.name)
    task: MapTask = "semantic" if isinstance(a.scorer, SemanticScorer) else "panoptic"
    found = paired_comparisons(a.scorer.resample, b.scorer.resample, a.scorer.images, replicates=REPLICATES)
    main = MAIN_METRIC[task]
    figures = {f"{task} {name}": one for name, one in found.items()}
    return RunComparison(a.name, b.name, a.scorer.images, figures, f"{main}: {found[main].verdict}")


def _compared_instances(sides: Sequence[_Side], place: str | Path) -> RunComparison:
    each = [kinds_of(side.truth, side.results, Path(side.name)) for side in sides]
    kinds: Sequence[Kind] = KINDS if all(found == KINDS for found in each) else ("bbox",)
    if not sides[0].truth.get("images"):
        raise DataError("there are no images to compare on", file=place)
    scored = [score_coco(side.truth, side.results, kinds=kinds) for side in sides]
    figures: dict[str, Comparison] = {}
    for kind in kinds:
        found = paired_comparisons(
            partial(_statistics, scored[0], kind),
            partial(_statistics, scored[1], kind),
            len(scored[0].image_ids),
            replicates=min(replicates_for(one) for one in scored),
        )
        figures |= {f"{kind} {name}": found[name] for name in _SHOWN}
    main = "segm AP" if "segm" in kinds else "bbox AP"
    verdict = f"{KIND_NAMES[main.split()[0]]} AP: {figures[main].verdict}"
    return RunComparison(sides[0].name, sides[1].name, len(scored[0].image_ids), figures, verdict)


def _statistics(result: InstanceResult, kind: Kind, weights: Weights) -> dict[str, Any]:
    drawn = resample(result.kinds[kind].records, weights).overall
    return {name: drawn[name] for name in _SHOWN}


def _file_side(predictions: Path, ground_truth: Path) -> _Side:
    truth, results = read_results(predictions, ground_truth)
    return _Side(str(predictions), files.sha256_file(ground_truth), truth, results)


def _run_side(folder: Path) -> _Side:
    """The predictions of a run or of an evaluation, if they are still those of its weights, config and data."""
    given = folder
    folder = _newest_evaluation(folder)
    evaluation = _read_evaluation(folder)
    # a run may have been moved since; an evaluation of it lies in its folder, unless --out said otherwise
    places = (given, folder.parent, Path(evaluation["run"]))
    run = next((place for place in places if (place / "record.json").is_file()), None)
    if run is None:
        raise RunError("the run of this evaluation is gone", file=evaluation["run"], hint="Put it back there.")
    config = run / "detectron2.yaml"
    _must_be(files.sha256_file(config), evaluation["config_sha256"], config, "config", folder)
    weights = Path(evaluation["weights"])
    moved = run / "checkpoints" / weights.name
    weights = moved if moved.is_file() else weights
    if not weights.is_file():
        raise RunError("the weights of this evaluation are gone", file=weights, hint=_AGAIN)
    _must_be(files.sha256_file(weights), evaluation["weights_sha256"], weights, "weights", folder)
    dataset = dataset_of(run, evaluation["data"])
    data_sha256 = dataset.content_hash()
    _must_be(data_sha256, evaluation["data_sha256"], evaluation["data"] or "the validation part", "data", folder)
    project = load_project(run / "project.yaml").project
    evaluator: Any = evaluator_of(dataset, read_config(config), project)
    try:
        digest = evaluator.digest(folder)
    except OSError as error:
        raise RunError("the predictions are gone", file=error.filename or folder, hint=_AGAIN) from None
    _must_be(digest, evaluation["predictions_sha256"], folder, "predictions", folder)
    found = evaluator.load(folder)
    if project.task == "instance":
        return _Side(str(given), data_sha256, to_coco(dataset), found)
    return _Side(str(given), data_sha256, scorer=evaluator.scorer(found))


def _newest_evaluation(folder: Path) -> Path:
    """Of a run folder, where its newest evaluation on the validation part lies: its own, or that of ``d2tune eval``."""
    if not (folder / "record.json").is_file():
        return folder
    there = [place for place in (folder, folder / "evaluation") if (place / "evaluation.json").is_file()]
    return max(there, key=lambda place: (place / "evaluation.json").stat().st_mtime, default=folder)


def _read_evaluation(folder: Path) -> dict[str, Any]:
    path = folder / "evaluation.json"
    try:
        evaluation = json.loads(path.read_bytes())
    except FileNotFoundError:
        hint = f"Evaluate it first: d2tune eval {folder}" if (folder / "record.json").is_file() else None
        expected = "a run folder or the folder of an evaluation"
        raise RunError("there is no evaluation", file=path, expected=expected, hint=hint) from None
    except (OSError, ValueError) as error:
        raise RunError(f"the evaluation cannot be read ({error})", file=path) from None
    if not isinstance(evaluation, dict) or "predictions_sha256" not in evaluation or "run" not in evaluation:
        raise RunError("the evaluation is not one of a run, or an earlier version's", file=path, hint=_AGAIN)
    return evaluation


def _must_be(found: str, expected: str, file: str | Path, what: str, folder: Path) -> None:
    if found != expected:
        raise RunError(
            f"the {what} changed since this result was made, so it is not current",
            file=file,
            found=f"SHA-256 {found[:12]}",
            expected=f"{expected[:12]}, as {folder / 'evaluation.json'} says",
            hint=_AGAIN,
        )
