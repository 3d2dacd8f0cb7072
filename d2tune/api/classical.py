"""What classical methods give without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d2tune.api.arguments import MOST_TOLERANCE_PX, check_paths
from d2tune.errors import check_range

if TYPE_CHECKING:
    from d2tune.baseline.result import BaselineResult
    from d2tune.scribbles.outline import OutlineResult


def baseline(
    project: str | Path, *, methods: Sequence[str] | None = None, out: str | Path | None = None
) -> BaselineResult:
    """Score classical methods, fitted on the training split, on the validation split of a project.

    Args:
        project: The project file of a semantic or an instance project.
        methods: Names of methods; None takes all.
        out: The output folder; None is ``baseline`` in the project's folder of runs, where ``d2tune report`` looks.

    Raises:
        D2TuneError: The project or its data cannot be used, or a library is missing.
    """
    from d2tune.modeling.light_imports import light_imports

    check_paths(project=project, out=out)
    with light_imports():
        from d2tune.baseline.score import score

    return score(Path(project), methods=methods, out=None if out is None else Path(out))


def outline(
    source: str | Path,
    *,
    out: str | Path | None = None,
    method: Literal["grabcut", "random-walker"] = "grabcut",
    background: str = "background",
    tolerance_px: float = 1.0,
    force: bool = False,
) -> OutlineResult:
    """Turn the scribbles and boxes of Labelme files into polygons to correct; see ``scribbles.outline``.

    Args:
        source: A folder of Labelme files, or a file.
        out: The output folder; None is one beside the source, whose name ends with ``_outlines``.
        method: ``grabcut``, or ``random-walker``, which needs the extra ``classical``.
        background: The label of scribbles beside the objects.
        tolerance_px: How far outlines may move where they are simplified.
        force: Whether files that an earlier call wrote, if they were not changed, are replaced.

    Raises:
        D2TuneError: A file is invalid or has scribbles of one class alone, or an output file exists.
    """
    from d2tune.classical.libraries import check_libraries
    from d2tune.scribbles.outline import outline as run

    check_paths(source=source, out=out)
    check_range(tolerance_px, place="--tolerance", least=0, most=MOST_TOLERANCE_PX)
    if method == "random-walker":
        check_libraries()
    return run(
        Path(source),
        out=None if out is None else Path(out),
        method=method,
        background=background,
        tolerance_px=tolerance_px,
        force=force,
    )
