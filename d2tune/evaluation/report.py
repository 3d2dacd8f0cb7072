"""The outcome of an evaluation: a table, a line, a sentence, a file."""

from __future__ import annotations

from pathlib import Path

from d2tune import files
from d2tune.evaluation.coco import CocoMetrics
from d2tune.report.tables import format_table

SCHEMA = 1


def metrics_table(metrics: CocoMetrics) -> str:
    """A row for each class and, with more than one class, one for all."""
    header = ["class", "instances", "found", "false", "box AP", "box AP50", "mask AP", "mask AP50", "mask AP75"]
    rows = [
        [
            row.name,
            str(row.instances),
            str(row.found),
            str(row.false),
            str(row.bbox["AP"]),
            str(row.bbox["AP50"]),
            str(row.segm["AP"]),
            str(row.segm["AP50"]),
            str(row.segm["AP75"]),
        ]
        for row in metrics.classes
    ]
    if len(rows) > 1:
        rows.append(
            [
                "all",
                str(sum(row.instances for row in metrics.classes)),
                str(sum(row.found for row in metrics.classes)),
                str(sum(row.false for row in metrics.classes)),
                str(metrics.bbox["AP"]),
                str(metrics.bbox["AP50"]),
                str(metrics.segm["AP"]),
                str(metrics.segm["AP50"]),
                str(metrics.segm["AP75"]),
            ]
        )
    return format_table(rows, header=header)


def short_line(metrics: CocoMetrics) -> str:
    """Box and mask AP, and mask AP by size, on one line."""
    segm = metrics.segm
    sizes = f"small {segm['APs']}, medium {segm['APm']}, large {segm['APl']}"
    return f"box AP {metrics.bbox['AP']}  mask AP {segm['AP']} (AP50 {segm['AP50']}; {sizes})"


def closing_sentence(
    metrics: CocoMetrics, *, best_iteration: int | None, pictures: Path | None, kind: str = "validation"
) -> str:
    """One sentence a person who knows no metric can use, with the figure for those who do."""
    instances = sum(row.instances for row in metrics.classes)
    found = sum(row.found for row in metrics.classes)
    false = sum(row.false for row in metrics.classes)
    what = metrics.classes[0].name if len(metrics.classes) == 1 else "object"
    what += "" if instances == 1 else "s"
    images = f"{metrics.images} {kind} image{'' if metrics.images == 1 else 's'}"
    if metrics.segm["AP"].value is None:
        sentence = f"No mask AP can be computed on the {images}: {metrics.segm['AP'].reason}"
    else:
        alarms = f"{false} false alarm{'' if false == 1 else 's'}"
        sentence = (
            f"On {images} the model finds {found} of {instances} {what} with {alarms} "
            f"(mask AP {metrics.segm['AP']}, box AP {metrics.bbox['AP']}"
        )
        sentence += f", best at iteration {best_iteration})" if best_iteration is not None else ")"
    return sentence + (f"; look at {pictures}." if pictures is not None else ".")


def write_evaluation(path: Path, metrics: CocoMetrics, *, data_sha256: str, weights_sha256: str, config: Path) -> None:
    """Write ``evaluation.json``, bound by hashes to the data, the weights and the config it is about."""
    hashes = {"data_sha256": data_sha256, "weights_sha256": weights_sha256, "config_sha256": files.sha256_file(config)}
    bound = {"schema": SCHEMA, **hashes}
    files.write_json(path, bound | metrics.to_json())
