"""Classify land cover from 68 dates of NDVI, learning on half of a checkerboard and scoring on the other half.

``python benchmarks/landcover.py`` writes the series as one raster of 68 channels, cuts its labels into blocks of
``--block`` px, trains ``benchmarks/projects/landcover_cpu.yaml`` on every second block, and prints the pixel accuracy
on the others beside that of naming the training blocks' most frequent class everywhere. ``--seed`` chooses which half
is trained on. The weights of the last iteration are taken; settings were chosen with these held-out blocks in view.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from real_trainings import parser_for, report, train, work_folder

IGNORE_LABEL = 255
VALUES = {1: "cultivated land", 2: "forest", 3: "grassland", 4: "shrubland", 8: "artificial surface"}
"""Those of eo-learn's land cover that occur here; 0 means no data."""


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--block", type=int, default=10, help="side of the blocks in pixels (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="which half of the blocks is trained on (default: 0)")
    options = parser.parse_args()
    with work_folder(options.work) as work:
        source = options.shared / "data" / "landcover_timeseries"
        majority = prepare(source, work / "data", block_px=options.block, seed=options.seed)
        run = train("landcover_cpu.yaml", work, options.overrides)
    accuracy = run.metric("pACC")
    results = {
        "block_px": options.block,
        "seed": options.seed,
        "pixel_accuracy": round(accuracy, 2),
        "majority_class": round(majority, 2),
        "above_majority": round(accuracy - majority, 2),
        "minutes": round(run.minutes, 2),
    }
    report(results, options.out)


def prepare(source: Path, target: Path, *, block_px: int, seed: int) -> float:
    """Write the raster and the labels of both halves; returns the majority class' accuracy on the other half, in %."""
    series = np.load(source / "data" / "NDVI.npy")[..., 0].transpose(1, 2, 0)
    labels = np.load(source / "mask_timeless" / "LULC.npy")[..., 0]
    known = np.isin(labels, list(VALUES))
    row, column = np.indices(labels.shape) // block_px
    first = int(np.random.default_rng(seed).integers(2))
    training = (row + column + first) % 2 == 1
    (target / "images").mkdir(parents=True)
    np.save(target / "images" / "patch.npy", series.astype(np.float32))
    for split, where in (("train", training), ("val", ~training)):
        (target / split / "labels").mkdir(parents=True)
        shown = np.where(where & known, labels, IGNORE_LABEL).astype(np.uint8)
        Image.fromarray(shown).save(target / split / "labels" / "patch.png")
    most = np.bincount(labels[training & known]).argmax()
    return 100 * float(np.mean(labels[~training & known] == most))


if __name__ == "__main__":
    main()
