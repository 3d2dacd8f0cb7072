"""Time scoring against pycocotools and faster-coco-eval, and the loop against Detectron2's.

``python benchmarks/evaluation.py`` scores made-up sets with every contender in turn, round after round, in one process,
and checks that their scores agree. What each takes of memory beyond the set is measured in a process of its own.
Where there is a GPU, masks that lie on it as bitmaps are scored too; they are brought there outside of the clock.
``--run RUN`` also evaluates a run's model on its validation photos with d2tune's loop and with Detectron2's
``inference_on_dataset`` and ``COCOEvaluator``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import io
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_utils
from synthetic import synthetic_set

from d2tune.metrics.coco.results import InstanceResult, Kind
from d2tune.metrics.coco.rows import read_coco
from d2tune.metrics.coco.scorer import Detections, GroundTruth, InstanceScorer, score_coco, score_set

Scores = dict[str, float]
Timed = tuple[Scores, float, float]
"""Scores, seconds on the clock, and seconds of the processor."""
PEERS = ("pycocotools", "faster-coco-eval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[500, 5000])
    parser.add_argument("--masks", type=int, default=60, help="on each image (default: 60)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=["bbox", "segm"], choices=["bbox", "segm"])
    parser.add_argument("--device", help="also score masks that lie on it (default: cuda where there is a GPU)")
    parser.add_argument("--memory", nargs="*", default=["d2tune", *PEERS], help="whose to measure (default: all)")
    parser.add_argument("--run", type=Path, help="a run folder whose model goes through both loops")
    parser.add_argument("--data", type=Path, help="other photos with the run's classes (default: its validation split)")
    parser.add_argument("--repeat", type=int, default=1, help="how often the photos are gone through")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    device = options.device or ("cuda" if torch.cuda.is_available() else None)
    measured: dict[str, Any] = {"machine": machine(), "scoring": []}
    for images in options.images:
        data = synthetic_set(images, options.masks, seed=0)
        for kind in options.kinds:
            case = {"images": images, "masks": images * options.masks, "kind": kind}
            case |= compare_scoring(*data, kind, options.rounds, device, options.memory)
            measured["scoring"].append(case)
            print(scoring_row(case), flush=True)
        del data
    if options.run:
        measured["loop"] = compare_loops(options.run, options.data, options.rounds, options.repeat)
        print(json.dumps(measured["loop"], indent=2))
    if options.out:
        options.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model or platform.machine(), "cores": os.cpu_count(), "gpu": gpu, "torch": torch.__version__}


def compare_scoring(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    kind: Kind,
    rounds: int,
    device: str | None,
    memory_of: list[str],
) -> dict[str, Any]:
    """Seconds of each contender, medians over the rounds, ratios within them, and memory beyond the set."""
    contenders: dict[str, Callable[[], Timed]] = {
        "d2tune": lambda: timed(lambda: ours(truth, results, kind)),
        "pycocotools": lambda: timed(lambda: pycocotools(truth, results, kind)),
        "faster-coco-eval": lambda: timed(lambda: faster_coco_eval(truth, results, kind)),
    }
    memory_mb = {name: round(peak_growth_mb(contenders[name])) for name in memory_of}
    if "d2tune" in memory_of:
        data = read_coco(truth, results, (kind,))
        memory_mb["d2tune, once read"] = round(peak_growth_mb(lambda: score_set(data, kinds=(kind,))))
        del data
    if device is not None and kind != "bbox":
        contenders[f"d2tune, masks on {device}"] = lambda: masks_on(device, truth, results, kind)
    clock, scores = Clock(list(contenders)), {}
    for _ in range(rounds):
        for name, contender in contenders.items():
            scores[name], *spent = contender()
            clock.note(name, *spent)
    for name, own in scores.items():
        assert all(abs(own[key] - value) < 1e-9 for key, value in scores["pycocotools"].items()), name
    return {
        "rounds": rounds,
        "AP": round(scores["d2tune"]["AP"], 4),
        **clock.to_json(),
        "memory_mb": memory_mb,
    }


class Clock:
    """Seconds of each contender, round by round; on a machine that others use too, those of the processor say more."""

    def __init__(self, names: list[str]) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self.cpu_s: dict[str, list[float]] = {name: [] for name in names}

    def note(self, name: str, seconds: float, cpu_s: float) -> None:
        self.seconds[name].append(seconds)
        self.cpu_s[name].append(cpu_s)

    def to_json(self) -> dict[str, Any]:
        """Medians over the rounds, and how many times each peer takes what d2tune takes, within each round."""
        return {
            "seconds": {name: round(statistics.median(rows), 3) for name, rows in self.seconds.items()},
            "cpu_seconds": {name: round(statistics.median(rows), 3) for name, rows in self.cpu_s.items()},
            "times_faster": self._ratios(self.seconds),
            "times_less_cpu": self._ratios(self.cpu_s),
        }

    def _ratios(self, spent: dict[str, list[float]]) -> dict[str, dict[str, float]]:
        return {
            own: {
                peer: round(statistics.median(theirs / mine for theirs, mine in zip(spent[peer], rows, strict=True)), 2)
                for peer in spent
                if not peer.startswith("d2tune")
            }
            for own, rows in spent.items()
            if own.startswith("d2tune")
        }


def scoring_row(case: dict[str, Any]) -> str:
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in case["cpu_seconds"].items())
    faster = "; ".join(
        f"{own}: " + ", ".join(f"{value:.1f} times {peer}" for peer, value in peers.items())
        for own, peers in case["times_less_cpu"].items()
    )
    return (
        f"{case['images']} images, {case['masks']} masks, {case['kind']}: {seconds}; {faster}; MB {case['memory_mb']}"
    )


def timed(work: Callable[[], Scores]) -> Timed:
    started, started_cpu = time.perf_counter(), time.process_time()
    scores = work()
    return scores, time.perf_counter() - started, time.process_time() - started_cpu


def peak_growth_mb(work: Callable[[], Any]) -> float:
    """By how much the memory of a copy of this process grows while it works, at the most."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier work gave back would hide what this takes
        Path("/proc/self/clear_refs").write_text("5")
        before_mb = _resident_mb("VmRSS")
        work()
        os.write(writer, str(_resident_mb("VmHWM") - before_mb).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        growth_mb = float(answer.read())
    os.waitpid(child, 0)
    return growth_mb


def _resident_mb(field: str) -> float:
    """``VmRSS``, what is resident now, or ``VmHWM``, the most since the peak was set back."""
    line = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    return int(line[1]) / 1024


def ours(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> Scores:
    return scores_of(score_coco(truth, results, kinds=(kind,)), kind)


def scores_of(result: InstanceResult, kind: Kind) -> Scores:
    metrics = result.kinds[kind].metrics
    return {name: one.value if one.value is not None else -100.0 for name, one in metrics.items()}


def masks_on(device: str, truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> Timed:
    """Score masks that lie on a device as bitmaps; the clock runs from there on."""
    data = read_coco(truth, results, (kind,))
    scorer = InstanceScorer(data.categories, kinds=(kind,), device=device)
    spent = np.zeros(2)
    for image_id, truth_rows, rows in data.by_image():
        ours, theirs = (bitmaps([row["rle"] for row in side], device) for side in (rows, truth_rows))
        columns = [[row[name] for row in truth_rows] for name in ("category_id", "area", "iscrowd")]
        classes, scores = ([row[name] for row in rows] for name in ("category_id", "score"))
        started = np.array([time.perf_counter(), time.process_time()])
        scorer.add(image_id, GroundTruth(*columns, masks=theirs), Detections(classes, scores, masks=ours))
        spent += np.array([time.perf_counter(), time.process_time()]) - started
    values, *rest = timed(lambda: scores_of(scorer.result(), kind))
    return values, *(spent + rest).tolist()


def bitmaps(rles: list[dict[str, Any]], device: str) -> torch.Tensor:
    """``(N, H, W)`` bool on the device, there before this returns."""
    masks = np.ascontiguousarray(mask_utils.decode(rles).transpose(2, 0, 1)).astype(bool)
    on_device = torch.from_numpy(masks).to(device)
    if on_device.is_cuda:
        torch.cuda.synchronize()
    return on_device


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
    from d2tune.metrics.coco.accumulate import METRIC_NAMES

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
    return {name: 100 * float(value) for name, value in zip(METRIC_NAMES, evaluation.stats, strict=False)}


def compare_loops(run: Path, data: Path | None, rounds: int, repeat: int) -> dict[str, Any]:
    """The whole evaluation of a run's model on its validation photos, by d2tune's loop and by Detectron2's."""
    from dataclasses import replace

    from d2tune.data.catalog import register
    from d2tune.modeling.from_run import load_run
    from d2tune.runs.evaluate import dataset_of

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
    name = register(dataset, project="benchmark", split="val")
    contenders: dict[str, Callable[[], Scores]] = {
        "d2tune": lambda: our_loop(loaded.model, loaded.cfg, dataset),
        "Detectron2": lambda: their_loop(loaded.model, loaded.cfg, name),
        "Detectron2, model as it builds it": lambda: their_loop(plain_model(loaded), loaded.cfg, name),
    }
    clock, scores = Clock(list(contenders)), {}
    for _ in range(rounds):
        for one, contender in contenders.items():
            scores[one], *spent = timed(contender)
            clock.note(one, *spent)
    return {"images": len(dataset.images), "rounds": rounds, **clock.to_json(), "scores": scores}


def plain_model(loaded: Any) -> Any:
    """The run's model without d2tune's memory layout and autocast."""
    from d2tune.modeling import checkpoint
    from d2tune.modeling.build import build_model

    model, _ = build_model(loaded.cfg)
    checkpoint.load_weights(model, loaded.weights)
    return model.eval()


def our_loop(model: Any, cfg: Any, dataset: Any) -> Scores:
    from d2tune.annotations.formats.coco import to_coco
    from d2tune.data.image_reader import ImageReader
    from d2tune.evaluation.instance import InstanceEvaluator
    from d2tune.inference.predictors.instance import InstancePredictor
    from d2tune.metrics.coco.summary import metrics_of

    reader = ImageReader(len(cfg.MODEL.PIXEL_MEAN), cfg.INPUT.FORMAT)
    predictor = InstancePredictor(model, cfg, class_names=dataset.class_names, reader=reader)
    predictions = InstanceEvaluator(dataset).predict(predictor, show_progress=False)
    results = [row for rows in predictions for row in rows]
    metrics = metrics_of(score_coco(to_coco(dataset), results, kinds=("bbox", "segm")))
    return {"bbox AP": metrics.bbox["AP"].value or 0.0, "segm AP": metrics.segm["AP"].value or 0.0}


def their_loop(model: Any, cfg: Any, name: str) -> Scores:
    from detectron2.data import DatasetMapper, MetadataCatalog, build_detection_test_loader
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset

    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        mapper = DatasetMapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, name, mapper=mapper, num_workers=0)
        evaluator = COCOEvaluator(name, tasks=("bbox", "segm"), output_dir=out, use_fast_impl=False)
        scores = inference_on_dataset(model, loader, evaluator)
    vars(MetadataCatalog.get(name)).pop("json_file")  # the evaluator would look for it in the folder that is gone
    return {"bbox AP": float(scores["bbox"]["AP"]), "segm AP": float(scores["segm"]["AP"])}


if __name__ == "__main__":
    main()
