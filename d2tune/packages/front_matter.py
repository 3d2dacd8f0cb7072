"""The front matter of a card, as Hugging Face reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from d2tune.packages.measured import Described, kind_name
from d2tune.packages.weights_license import sources_of
from d2tune.text import printable

_MAIN = ("AP", "AP50", "AP75")
"""The metrics of instances that are listed; label maps have few metrics, and all are listed."""


def front_matter(model: Described) -> str:
    """YAML between two lines of dashes.

    The data sets are not on Hugging Face and are therefore described in the text alone; ``base_model`` is there for
    weights that are on Hugging Face.
    """
    sources = sources_of(model.training)
    known = next((one.identifier for one in sources if one.identifier), None)
    content: dict[str, Any] = {"license": known or "other"}
    if known is None:
        content |= {"license_name": "see-the-section-on-licenses", "license_link": "#licenses"}
    content |= {"library_name": "detectron2", "pipeline_tag": "image-segmentation"}
    base = next((one.base_model for one in sources if one.base_model), None)
    if base is not None:
        content["base_model"] = base
    content["tags"] = ["d2tune", "detectron2", f"{model.task}-segmentation", model.preset.replace("/", "-")]
    results = list(_results(model))
    if results:
        content["metrics"] = [one["type"] for one in results]
        content["model-index"] = [{"name": printable(model.project), "results": [_evaluated(model, results)]}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def _evaluated(model: Described, results: list[dict[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": f"{printable(model.project)}, validation split",
        "type": _slug(model.project),
        "split": "validation",
    }
    if model.metrics is not None:
        data["revision"] = model.metrics.data_sha256
    task = {"type": "image-segmentation", "name": f"{model.task} segmentation"}
    return {"task": task, "dataset": data, "metrics": results}


def _results(model: Described) -> Iterator[dict[str, Any]]:
    for kind, values in model.metrics.values.items() if model.metrics is not None else ():
        listed = [name for name in _MAIN if name in values] or list(values)
        for name in listed:
            one = values[name]
            if one.value is None:
                continue
            title = f"{kind_name(kind)} {name}"
            row: dict[str, Any] = {"type": _slug(title), "name": title, "value": round(one.value, 2)}
            if one.low is not None and one.high is not None:
                row["args"] = {"low": round(one.low, 2), "high": round(one.high, 2), "confidence": 0.95}
            yield row


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"
