"""Scoring on the CPU starts quickly: it does not import torch."""

import subprocess
import sys

SCRIPT = """
import sys
from d2tune.metrics.analysis.analysis import analyze, size_ranges
from d2tune.metrics.coco.rows import read_coco
from d2tune.metrics.coco.scorer import score_set
from d2tune.metrics.coco.summary import metrics_of, with_intervals

row = {"image_id": 1, "category_id": 1, "segmentation": [[10, 10, 50, 10, 50, 50]], "bbox": [10, 10, 40, 40]}
truth = {
    "images": [{"id": 1, "height": 60, "width": 80}, {"id": 2, "height": 60, "width": 80}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [{**row, "id": 1}],
}
data = read_coco(truth, [{**row, "score": 0.5}], ("bbox", "segm", "boundary"))
result = score_set(data, area_ranges=size_ranges(data))
metrics = with_intervals(metrics_of(result), result)
analyze(data, result, metrics)
assert abs(metrics.segm["AP"].value - 100) < 1e-9 and abs(metrics.segm["AP"].high - 100) < 1e-9
print(*sorted(name for name in ("torch", "detectron2", "PIL") if name in sys.modules))
"""


def test_scoring_files_on_the_cpu_does_not_import_torch() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
