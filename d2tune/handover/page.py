"""The pages of a handover: ``index.html``, and ``how_to_run.md`` with the commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from d2tune import files
from d2tune.handover.folder import entries
from d2tune.handover.licenses import Library
from d2tune.handover.reports import Report
from d2tune.packages.card import (
    class_rows,
    data_lines,
    input_lines,
    limit_lines,
    metric_rows,
    quality_line,
    training_lines,
)
from d2tune.packages.manifest import Manifest
from d2tune.packages.measured import kind_name
from d2tune.report.templates import filled
from d2tune.tasks import TASKS
from d2tune.text import printable
from d2tune.versions import own_version

INDEX, HOW = "index.html", "how_to_run.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a handover has.

    Attributes:
        manifest: The description of its model.
        reports: Its evaluations.
        acceptance: The files of the acceptance report.
        wheel: Name of the wheel of d2tune; None where it is not part of it.
        has_edge: Whether ``edge`` has an export for devices without torch.
        has_runner: Whether the model itself is such an export.
        libraries: The libraries that run the model.
        texts: Names of the texts of their licenses, by library.
        weights_license: The license of the weights.
        missing: What it could have and does not, in sentences.
    """

    manifest: Manifest
    reports: tuple[Report, ...]
    acceptance: tuple[str, ...]
    wheel: str | None
    has_edge: bool
    has_runner: bool
    libraries: tuple[Library, ...]
    texts: dict[str, list[str]]
    weights_license: str
    missing: tuple[str, ...]


def write_pages(folder: Path, contents: Contents) -> None:
    """Write both pages into the folder that has everything else."""
    ways = _ways(contents)
    how = {"ways": ways, "project": contents.manifest.project}
    text = filled("d2tune.handover", "how_to_run.md.jinja", how, finalize=_as_markdown, keep_trailing_newline=True)
    files.write_text(folder / HOW, text)
    context = _context(folder, contents, ways)
    files.write_text(folder / INDEX, filled("d2tune.handover", "index.html", context, finalize=_finalized))


def _ways(contents: Contents) -> list[dict[str, Any]]:
    """The ways to run the model: a title, a sentence, and commands."""
    version = own_version()
    image, kind = ("image.tif", "tiff") if contents.manifest.input.raster else ("photo.jpg", "jpeg")
    wheel = contents.wheel or f"d2tune-{version}-py3-none-any.whl"
    origin = (
        "Its wheel is in this folder."
        if contents.wheel
        else "Its wheel is not in this folder: ask those who made it, or run python -m build in a checkout of d2tune."
    )
    rows: list[dict[str, Any]] = [
        {
            "title": "With d2tune",
            "words": f"Python 3.11 or newer with d2tune {version}, about 6 GB with torch. {origin} The command "
            "d2tune setup downloads Detectron2.",
            "commands": (
                f"pip install {wheel}",
                "d2tune setup",
                "d2tune info model",
                f"d2tune predict model {image} --out predictions",
            ),
        },
        {
            "title": "As a server",
            "words": "An HTTP API on port 8000, described at http://127.0.0.1:8000/openapi.json, and a page for "
            "judging predictions at http://127.0.0.1:8000. The folder deploy in a checkout of d2tune has Dockerfiles, "
            "a compose file and Kubernetes manifests, which mount the folder model.",
            "commands": (
                f'pip install "{wheel}[serve]"',
                "d2tune setup",
                "d2tune serve model --host 127.0.0.1 --port 8000",
                f"curl --data-binary @{image} --header 'Content-Type: image/{kind}' http://127.0.0.1:8000/v1/predict",
            ),
        },
    ]
    folder = "edge" if contents.has_edge else "model"
    if contents.has_edge or contents.has_runner:
        rows.append(
            {
                "title": "On a device, without torch",
                "words": "Python 3.11 or newer with numpy, Pillow and onnxruntime, about 200 MB.",
                "commands": (
                    f"pip install -r {folder}/requirements.txt",
                    f"python {folder}/runner.py {image} --out predictions",
                ),
            }
        )
    return rows


def _context(folder: Path, contents: Contents, ways: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = contents.manifest
    task = TASKS[manifest.task]
    return {
        "manifest": manifest,
        "gives": task.gives,
        "has_scores": task.has_scores,
        "classes": list(class_rows(manifest)),
        "quality_line": quality_line(manifest),
        "input_lines": list(input_lines(manifest.input)),
        "training_lines": [*data_lines(manifest), *training_lines(manifest)],
        "limit_lines": list(limit_lines(manifest)),
        "kinds": list(map(kind_name, manifest.metrics.values)) if manifest.metrics else [],
        "metric_rows": list(metric_rows(manifest)),
        "reports": contents.reports,
        "acceptance": contents.acceptance,
        "missing": contents.missing,
        "has_edge": contents.has_edge,
        "ways": ways,
        "weights_license": contents.weights_license,
        "libraries": contents.libraries,
        "texts": contents.texts,
        "files": entries(folder),
        "version": own_version(),
        "link": lambda name: quote(name),
    }


def _finalized(value: Any) -> Any:
    """Text from files without control characters."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _as_markdown(value: Any) -> Any:
    """Text for Markdown, where HTML's escapes would show."""
    return Markup(printable(value)) if isinstance(value, str) else value
