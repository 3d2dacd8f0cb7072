"""Train a network on 24 of the 30 membrane images and score it on the other 6.

``python benchmarks/membrane.py`` draws the 6 with ``numpy.random.default_rng(--seed)``, trains
``benchmarks/projects/membrane_cpu.yaml``, a U-Net from scratch, or the project of ``--project`` on the rest, and prints
mIoU, the mean Dice of the membranes over the 6 images, and the minutes. The best checkpoint is chosen on the same 6
images.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from real_trainings import parser_for, report, train, work_folder

HELD_OUT = 6
MEMBRANE = 0
"""Of the labels, and place of the class in the project."""


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--project", default="membrane_cpu.yaml", help="of benchmarks/projects (default: the U-Net)")
    options = parser.parse_args()
    with work_folder(options.work) as work:
        held_out = split(options.shared / "data" / "membrane" / "train", work / "data", options.seed)
        run = train(options.project, work, options.overrides)
        dices = [dice(file, work / "data" / "val" / "label" / file.name) for file in predicted(run.folder, held_out)]
        results = {
            "held_out": held_out,
            "mIoU": round(run.metric("mIoU"), 2),
            "mean_dice_of_membranes": round(100 * float(np.mean(dices)), 2),
            "minutes": round(run.minutes, 2),
        }
    report(results, options.out)


def split(source: Path, target: Path, seed: int) -> list[str]:
    """Copy the pairs into ``train`` and ``val`` of ``target``; returns the names of those in ``val``."""
    names = sorted((path.name for path in (source / "image").glob("*.png")), key=lambda name: int(Path(name).stem))
    chosen = sorted(np.random.default_rng(seed).permutation(len(names))[:HELD_OUT].tolist())
    held_out = [names[place] for place in chosen]
    for name in names:
        for kind in ("image", "label"):
            folder = target / ("val" if name in held_out else "train") / kind
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / kind / name, folder / name)
    return held_out


def predicted(run: Path, names: list[str]) -> list[Path]:
    """The label maps that the run predicted."""
    files = {path.name: path for path in (run / "predicted_labels").rglob("*.png")}
    return [files[name] for name in names]


def dice(predicted: Path, truth: Path) -> float:
    """Dice of the membranes of one image (Dice 1945)."""
    ours, theirs = (np.asarray(Image.open(path)) == MEMBRANE for path in (predicted, truth))
    return float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))


if __name__ == "__main__":
    main()
