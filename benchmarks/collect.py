"""Collect the results of finished runs as JSON: ``python benchmarks/collect.py RUN [RUN ...]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def results_of(run: Path) -> dict[str, object]:
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    metrics = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["metrics"]
    return {
        "project": record["project"],
        "command": " ".join(record["command"]),
        "machine": record["machine"],
        "versions": record["versions"],
        "data": {key: value for key, value in record["data"].items() if key != "rendered_sample"},
        "weights_sha256": record["weights"]["sha256"],
        "seed": record["seed"],
        "training_s": record["durations"]["training_s"],
        "best_iteration": record["best"]["iteration"],
        "bbox": {name: metric["value"] for name, metric in metrics["bbox"].items()},
        "segm": {name: metric["value"] for name, metric in metrics["segm"].items()},
    }


if __name__ == "__main__":
    print(json.dumps([results_of(Path(run)) for run in sys.argv[1:]], indent=2))
