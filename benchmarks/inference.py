"""Time the predictor against Detectron2's DefaultPredictor, with the same model and weights in one process.

``python benchmarks/inference.py MODEL --photos FOLDER`` runs both on decoded photos, alternating round after round, and
compares their masks. DefaultPredictor takes BGR arrays and gives bitmaps of whole images; d2tune takes RGB arrays and
gives run lengths, or bitmaps too where a row says so. ``--memory 1000`` instead measures the memory of the process
after 200 and after 1000 images of mixed sizes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from evaluation import machine
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.data.image_reader import image_reader
from d2tune.inference.predictors.instance import InstancePredictor
from d2tune.inference.results import Detections, rounded_score
from d2tune.modeling.build import build_model
from d2tune.modeling.device import choose_device, speed_up
from d2tune.modeling.loaded import LoadedModel
from d2tune.runs.load import load_model

Array = NDArray[np.uint8]
SAME_IOU = 0.99
FIRST_IMAGES = 200
"""Images after which memory is measured first."""
POOL, SHORTEST_PX, LONGEST_PX = 40, 160, 900
"""Number and sides of the images of mixed sizes that memory is measured with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a run folder or a package of an instance model")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs")
    parser.add_argument("--min-score", type=float, default=0.5, help="second lowest score, beside that of the config")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="number of photos (default: all)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: all cores)")
    parser.add_argument("--device", default=choose_device())
    parser.add_argument("--precision", default="float32", help="of d2tune; DefaultPredictor computes in float32")
    parser.add_argument("--memory", type=int, metavar="N", help="only measure the memory after N images")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    paths = sorted(options.photos.glob("*.jpg"))[: options.limit]
    photos = [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]
    loaded = load_model(options.model)
    about = {"device": options.device, "precision": options.precision, "threads": torch.get_num_threads()}
    measured = {"machine": machine(), "photos": len(photos)} | about
    if options.memory:
        predictor = our_predictor(loaded, options.device, options.precision, options.min_score)
        measured["memory"] = memory(predictor, photos, options.memory)
    else:
        measured |= compare(loaded, photos, options)
    print(json.dumps(measured, indent=2))
    if options.out:
        options.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def own_model(loaded: LoadedModel, device: str, precision: Any) -> Any:
    """The model of a run as d2tune runs it, in a precision of choice."""
    cfg = loaded.cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    model, _ = build_model(cfg)
    model.load_state_dict(loaded.model.state_dict())
    return speed_up(model, device=device, precision=precision).eval()


def our_predictor(
    loaded: LoadedModel, device: str, precision: str, min_score: float | None, model: Any = None
) -> InstancePredictor:
    names = loaded.class_names
    return InstancePredictor(
        own_model(loaded, device, precision) if model is None else model,
        loaded.cfg,
        class_names=names,
        reader=image_reader(loaded.project, loaded.cfg),
        is_model_own=True,
        min_scores=None if min_score is None else [min_score] * len(names),
    )


def default_predictor(loaded: LoadedModel, device: str, min_score: float | None) -> DefaultPredictor:
    """Detectron2's predictor with Detectron2's own classes; ``min_score`` replaces ``SCORE_THRESH_TEST``."""
    cfg: CfgNode = loaded.cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    cfg.MODEL.ROI_MASK_HEAD.NAME = cfg.MODEL.ROI_MASK_HEAD.NAME.removeprefix("NegativeSafe")
    if min_score is not None:
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = min_score
    predictor = DefaultPredictor(cfg)
    predictor.model.load_state_dict(loaded.model.state_dict())
    return predictor


def compare(loaded: LoadedModel, photos: Sequence[Array], options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a photo for each contender, ratios, and the agreement of masks."""
    device, least = options.device, options.min_score
    rgb = [np.ascontiguousarray(photo[:, :, ::-1]) for photo in photos]
    model = own_model(loaded, device, options.precision)
    everything, cut = (our_predictor(loaded, device, "", score, model) for score in (None, least))
    detectron2, detectron2_cut = default_predictor(loaded, device, None), default_predictor(loaded, device, least)

    def with_bitmaps(predictor: InstancePredictor) -> list[NDArray[np.bool_]]:
        return [predictor(photo).masks for photo in rgb]

    contenders: dict[str, Callable[[], Any]] = {
        "DefaultPredictor": lambda: [detectron2(photo) for photo in photos],
        f"DefaultPredictor, SCORE_THRESH_TEST {least}": lambda: [detectron2_cut(photo) for photo in photos],
        "d2tune": lambda: [everything(photo) for photo in rgb],
        "d2tune, bitmaps": lambda: with_bitmaps(everything),
        "d2tune, together": lambda: everything.batch(rgb),
        f"d2tune, {least}": lambda: [cut(photo) for photo in rgb],
        f"d2tune, {least}, bitmaps": lambda: with_bitmaps(cut),
        f"d2tune, {least}, together": lambda: cut.batch(rgb),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(options.rounds + 1):
        names = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in names:
            seconds = timed(contenders[name], device)
            if number:
                spent[name].append(seconds)
    reference = [result["instances"].to("cpu") for result in contenders["DefaultPredictor"]()]
    return {
        "detections": sum(map(len, reference)),
        **table(spent, len(photos), list(contenders)[:2]),
        "masks": {"own threshold": agreement(reference, everything.batch(rgb), 0.0)}
        | {str(least): agreement(reference, cut.batch(rgb), least)},
    }


def timed(contender: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds on the clock, and seconds of the processor."""
    began, began_cpu = time.perf_counter(), time.process_time()
    results = contender()
    if device != "cpu":
        torch.cuda.synchronize()
    spent = time.perf_counter() - began, time.process_time() - began_cpu
    del results
    gc.collect()
    return spent


def table(spent: dict[str, list[tuple[float, float]]], photos: int, peers: list[str]) -> dict[str, Any]:
    """Medians of milliseconds a photo, and medians of ratios within the rounds, to each peer."""
    rows: dict[str, Any] = {}
    for name, own in spent.items():
        rows[name] = {"ms": round(statistics.median(clock for clock, _ in own) / photos * 1000, 1)}
        for at, kind in ((0, "times_faster"), (1, "times_less_cpu")):
            rows[name][kind] = {
                peer: round(statistics.median(a[at] / b[at] for a, b in zip(spent[peer], own, strict=True)), 2)
                for peer in peers
                if name not in peers
            }
    return {"speed": rows}


def agreement(reference: Sequence[Any], ours: Sequence[Detections], least: float) -> dict[str, Any]:
    """How many instances of DefaultPredictor with at least a score have the same mask in d2tune's results.

    Each instance is compared with that of its class whose mask overlaps most.
    """
    ious: list[float] = []
    score_differences: list[float] = []
    for theirs, own in zip(reference, ours, strict=True):
        kept = [index for index, score in enumerate(theirs.scores.tolist()) if rounded_score(score) >= least]
        rles = [rle.to_coco() for rle in own.rles or ()]
        for index in kept:
            bitmap = np.asfortranarray(theirs.pred_masks[index].numpy().astype(np.uint8))
            same = np.flatnonzero(own.class_ids == int(theirs.pred_classes[index]))
            overlaps = mask_utils.iou([mask_utils.encode(bitmap)], [rles[at] for at in same], [0] * len(same))
            best = int(np.argmax(overlaps)) if len(same) else -1
            ious.append(1.0 if not len(same) and not bitmap.any() else float(overlaps[0][best]) if len(same) else 0.0)
            if len(same):
                score_differences.append(abs(float(own.scores[same[best]]) - float(theirs.scores[index])))
    return {
        "instances": len(ious),
        "of d2tune": sum(map(len, ours)),
        f"with IoU of {SAME_IOU}": round(float(np.mean(np.array(ious) >= SAME_IOU)), 4),
        "lowest IoU": round(min(ious), 5),
        "largest difference of scores": round(max(score_differences), 7),
    }


def memory(predictor: InstancePredictor, photos: Sequence[Array], images: int) -> dict[str, Any]:
    """Memory of the process in MB after some and after all images, one result at a time."""
    generator = np.random.default_rng(0)
    pool = []
    for number in range(POOL):
        photo = photos[number % len(photos)]
        height_px, width_px = (int(side) for side in generator.integers(SHORTEST_PX, LONGEST_PX, 2))
        pool.append(np.ascontiguousarray(cv2.resize(photo, (width_px, height_px))[:, :, ::-1]))
    everything = [pool[number % POOL] for number in range(images)]
    after: dict[int, float] = {}
    began, instances = time.perf_counter(), 0
    for number, result in enumerate(predictor.stream(everything), start=1):
        instances += len(result)
        if number in (FIRST_IMAGES, images):
            after[number] = resident_mb()
    first, last = after[FIRST_IMAGES], after[images]
    return {
        "images": images,
        "instances": instances,
        "seconds": round(time.perf_counter() - began, 1),
        f"MB after {FIRST_IMAGES}": round(first, 1),
        f"MB after {images}": round(last, 1),
        "growth_mb": round(last - first, 1),
    }


def resident_mb() -> float:
    """Memory of this process in MB."""
    gc.collect()
    if platform.system() != "Linux":
        raise SystemExit("--memory reads /proc, which only Linux has")
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
