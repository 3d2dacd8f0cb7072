"""The size of W&B's files: images once against a table of predictions, and all files of a training.

``python benchmarks/wandb_files.py --run RUN`` logs the gallery of a finished run offline, twice as at two evaluations,
into a folder of its own. ``--project projects/demo.yaml`` trains that project with W&B, with ``--iterations`` of them,
in a folder of its own, and counts all that lies in ``wandb`` of the run folder. Bounds: a table of predictions at most
5 % of the images; a training of the demo below 20 MB and 200 files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def gallery_sizes(run: Path, folder: Path) -> dict[str, Any]:
    """The bytes of the images and of each table of predictions of a run."""
    from d2tune.data.image_reader import image_reader
    from d2tune.engine.galleries import MOST_IMAGES, Galleries
    from d2tune.loggers import wandb_file
    from d2tune.loggers.base import RunInfo
    from d2tune.loggers.wandb import Wandb
    from d2tune.modeling.config import read_config
    from d2tune.project import load_project
    from d2tune.run_folder import RunFolder
    from d2tune.runs.evaluated import read_evaluated

    source, evaluated = RunFolder(run), read_evaluated(run)
    project, cfg = load_project(source.project).project, read_config(source.config)
    galleries = Galleries(evaluated.dataset, evaluated.evaluator, image_reader(project, cfg), key="split")
    target = RunFolder(folder)
    target.update_record({"project": project.name})
    logger = Wandb()
    logger.start(RunInfo(project.name, target, {}, 0))
    times_s = []
    for iteration in range(2):
        began = time.perf_counter()
        gallery = galleries.of(evaluated.predictions(), most=MOST_IMAGES)
        made = time.perf_counter()
        logger.log_images({"predictions": gallery}, iteration=iteration)
        times_s.append((round(made - began, 3), round(time.perf_counter() - made, 3)))
    logger.finish()
    time.sleep(2)
    (path,) = wandb_file.files_of(folder)
    artifacts = wandb_file.read(path).artifacts
    images = next(one.size_bytes for one in artifacts if one.type == "dataset")
    tables = [one.size_bytes for one in artifacts if one.type == "predictions"]
    return {
        "images": len(gallery.all_images),
        "images_bytes": images,
        "tables_bytes": tables,
        "share": round(max(tables) / images, 4),
        "making_and_logging_s": times_s,
    }


def training_sizes(project: Path, iterations: int | None, folder: Path) -> dict[str, Any]:
    """The files and bytes of W&B of a training."""
    words = [] if iterations is None else [f"train.iterations={iterations}", f"train.eval_every={iterations // 2}"]
    command = [sys.executable, "-m", "d2tune", "train", str(project), "--wandb", "--output-dir", str(folder / "run")]
    environment = {**os.environ, "WANDB_MODE": "offline", "HOME": str(folder / "home")}
    subprocess.run([*command, *words], check=True, env=environment)
    files = [path for path in (folder / "run" / "wandb").rglob("*") if path.is_file() and not path.is_symlink()]
    elsewhere = [str(path) for path in (folder / "home").rglob("*wandb*")]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files), "in_the_home_folder": elsewhere}


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="finished run whose gallery is logged")
    parser.add_argument("--project", type=Path, help="project that is trained")
    parser.add_argument("--iterations", type=int, help="instead of the project's")
    options = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.run is not None:
            result["gallery"] = gallery_sizes(options.run, Path(folder) / "gallery")
        if options.project is not None:
            result["training"] = training_sizes(options.project, options.iterations, Path(folder))
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
