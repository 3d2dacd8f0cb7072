"""Time scoring against pycocotools and faster-coco-eval, and the loop against Detectron2's.

``python benchmarks/evaluation.py`` scores made-up sets with every contender in turn, round after round, in one process,
and checks that their figures agree. ``--run RUN`` also evaluates a run's model on its validation photos with d2tune's
loop and with Detectron2's ``inference_on_dataset`` and ``COCOEvaluator``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from synthetic import synthetic_set

from d2tune.evaluation.figures import Kind
from d2tune.evaluation.instances import score_coco

Scores = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[500, 5000])
    parser.add_argument("--masks", type=int, default=60, help="on each image (default: 60)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a run folder whose model goes through both loops")
    parser.add_argument("--data", type=Path, help="other photos with the run's classes (default: its validation part)")
    parser.add_argument("--repeat", type=int, default=1, help="how often the photos are gone through")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine(), "scoring": []}
    for images in options.images:
        for kind in ("bbox", "segm"):
            case = compare_scoring(images, options.masks, kind, options.rounds)
            figures["scoring"].append(case)
            print(scoring_row(case), flush=True)
    if options.run:
        figures["loop"] = compare_loops(options.run, options.data, options.rounds, options.repeat)
        print(json.dumps(figures["loop"], indent=2))
    figures["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model or platform.machine(), "cores": os.cpu_count(), "gpu": gpu, "torch": torch.__version__}


def compare_scoring(images: int, masks: int, kind: Kind, rounds: int) -> dict[str, Any]:
    """Seconds of each contender, medians over the rounds, and ratios within them."""
    truth, results = synthetic_set(images, masks, seed=0)
    contenders: dict[str, Callable[[], Scores]] = {
        "d2tune": lambda: ours(truth, results, kind, "auto"),
        "pycocotools": lambda: pycocotools(truth, results, kind),
        "faster-coco-eval": lambda: faster_coco_eval(truth, results, kind),
    }
    if torch.cuda.is_available():
        contenders["d2tune on CUDA"] = lambda: ours(truth, results, kind, "device")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    scores: dict[str, Scores] = {}
    for _ in range(rounds):
        for name, contender in contenders.items():
            started = time.perf_counter()
            scores[name] = contender()
            seconds[name].append(time.perf_counter() - started)
    for name, found in scores.items():
        assert all(abs(found[key] - value) < 1e-9 for key, value in scores["pycocotools"].items()), name
    own = seconds["d2tune"]
    return {
        "images": images,
        "masks": images * masks,
        "kind": kind,
        "rounds": rounds,
        "AP": round(scores["d2tune"]["AP"], 4),
        "seconds": {name: round(statistics.median(rows), 3) for name, rows in seconds.items()},
        "times_faster": {
            name: round(statistics.median(theirs / mine for theirs, mine in zip(rows, own, strict=True)), 2)
            for name, rows in seconds.items()
            if name != "d2tune"
        },
    }


def scoring_row(case: dict[str, Any]) -> str:
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in case["seconds"].items())
    faster = ", ".join(f"{value:.1f} times {name}'s speed" for name, value in case["times_faster"].items())
    return f"{case['images']} images, {case['masks']} masks, {case['kind']}: {seconds}; {faster}"


def ours(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind, backend: Any) -> Scores:
    metrics = score_coco(truth, results, kinds=(kind,), backend=backend).kinds[kind].metrics
    return {name: one.value if one.value is not None else -100.0 for name, one in metrics.items()}


def pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> Scores:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return official(COCO, COCOeval, truth, results, kind)


def faster_coco_eval(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> Scores:
    from faster_coco_eval import COCO, COCOeval_faster

    return official(COCO, COCOeval_faster, truth, results, kind)


def official(
    coco_class: Any, evaluation_class: Any, truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind
) -> Scores:
    """As Detectron2 does it: results are copied, and without their boxes where masks are scored."""
    from d2tune.evaluation.accumulate import NAMES

    rows = copy.deepcopy(results)
    if kind == "segm":
        for row in rows:
            row.pop("bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = evaluation_class(coco, coco.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * float(value) for name, value in zip(NAMES, evaluation.stats, strict=False)}


def compare_loops(run: Path, data: Path | None, rounds: int, repeat: int) -> dict[str, Any]:
    """The whole evaluation of a run's model on its validation photos, by d2tune's loop and by Detectron2's."""
    from dataclasses import replace

    from d2tune.data.catalog import register
    from d2tune.evaluation.evaluate import dataset_of
    from d2tune.modeling.from_run import load_run

    loaded = load_run(run)
    dataset = dataset_of(run, data)
    copies = [
        replace(image, id=image.id + number * len(dataset.images), file_name=f"{number}/{image.file_name}")
        for number in range(repeat)
        for image in dataset.images
    ]
    instances = [
        replace(one, id=one.id + number * len(dataset.instances), image_id=one.image_id + number * len(dataset.images))
        for number in range(repeat)
        for one in dataset.instances
    ]
    dataset = replace(dataset, images=tuple(copies), instances=tuple(instances), ledger=())
    name = register(dataset, project="benchmark", part="val")
    seconds: dict[str, list[float]] = {"d2tune": [], "Detectron2": []}
    scores: dict[str, Scores] = {}
    for _ in range(rounds):
        for contender in seconds:
            started = time.perf_counter()
            scores[contender] = (our_loop if contender == "d2tune" else their_loop)(loaded, dataset, name)
            seconds[contender].append(time.perf_counter() - started)
    pairs = zip(seconds["Detectron2"], seconds["d2tune"], strict=True)
    return {
        "images": len(dataset.images),
        "rounds": rounds,
        "seconds": {key: round(statistics.median(rows), 2) for key, rows in seconds.items()},
        "times_faster": round(statistics.median(theirs / mine for theirs, mine in pairs), 3),
        "scores": scores,
    }


def our_loop(loaded: Any, dataset: Any, name: str) -> Scores:
    from d2tune.evaluation.loop import predict_dataset
    from d2tune.evaluation.scores import score

    metrics = score(dataset, predict_dataset(loaded.model, dataset, loaded.cfg, show_progress=False))
    return {"bbox AP": metrics.bbox["AP"].value or 0.0, "segm AP": metrics.segm["AP"].value or 0.0}


def their_loop(loaded: Any, dataset: Any, name: str) -> Scores:
    from detectron2.data import DatasetMapper, MetadataCatalog, build_detection_test_loader
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset

    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        mapper = DatasetMapper(loaded.cfg, is_train=False)
        loader = build_detection_test_loader(loaded.cfg, name, mapper=mapper, num_workers=0)
        evaluator = COCOEvaluator(name, tasks=("bbox", "segm"), output_dir=out, use_fast_impl=False)
        found = inference_on_dataset(loaded.model, loader, evaluator)
    vars(MetadataCatalog.get(name)).pop("json_file")  # the evaluator would look for it in the folder that is gone
    return {"bbox AP": float(found["bbox"]["AP"]), "segm AP": float(found["segm"]["AP"])}


if __name__ == "__main__":
    main()
