"""The process of a check: ``python -m d2tune.export.check JOB``, where ``JOB`` is a JSON file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.errors import D2TuneError
from d2tune.export.check.images import check_images
from d2tune.export.check.measure import measure
from d2tune.export.load import load_exported
from d2tune.export.reference import padded_reference, reference_model
from d2tune.packages.read import read_package
from d2tune.text import reason_of


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Measure an export.

    Args:
        job: ``source``, a package of safetensors; ``exported``, the package that was made of it; ``run``, the run
            folder or None; ``images``, images or annotations of a person, or None.

    Returns:
        ``measured``, the fields of `measure.Measured`, or ``error``, a line.
    """
    try:
        reference = reference_model(read_package(job["source"]))
        exported = read_package(job["exported"])
        run_folder, chosen = (None if job[key] is None else Path(job[key]) for key in ("run", "images"))
        images = check_images(reference, reference.cfg, run=run_folder, chosen=chosen)
        candidate, sizes = load_exported(exported), exported.manifest.weights.sizes
        compared = padded_reference(replace(reference, cfg=candidate.cfg), sizes) if sizes else None
        return {"measured": asdict(measure(reference, candidate, images, compared=compared))}
    except D2TuneError as error:
        return {"error": error.one_line()}
    except Exception as error:  # what runtimes raise has no common base class
        return {"error": f"the exported model cannot be run: {type(error).__name__}: {reason_of(error)}"}


def main(path: str) -> int:
    """Run a job and write its result beside it, as ``result.json``."""
    job = Path(path)
    result = run(json.loads(job.read_bytes()))
    files.write_text(job.with_name("result.json"), json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
