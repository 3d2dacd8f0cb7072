"""The folder of a project's data: the folder that the project names, or the one with its rendered sample."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from d2tune.errors import DataError
from d2tune.project import Project

logger = logging.getLogger(__name__)


def sample_folder(project: Project) -> Path:
    """The folder that the project's sample is rendered to, beside the project's data folder."""
    root = project.data.root
    return root.with_name(f"{root.name}-sample")


def locate_data(project: Project, *, sample: bool = True, render: bool = False) -> tuple[Project, bool]:
    """The project with the folder that its data are in.

    A project with ``data.sample`` whose ``data.root`` is missing reads its sample, which has a folder of its own.

    Args:
        project: The project, whose ``data`` section has the data folder and the sample.
        sample: Whether the sample may replace missing data.
        render: Whether to render the sample if it is missing as well.

    Returns:
        The project with the existing folder as ``data.root``, and whether it is a rendered sample.

    Raises:
        DataError: The data are missing and no sample replaces them.
    """
    data = project.data
    if data.root.exists():
        return project, False
    kind = _fitting_sample(project) if sample else None
    folder = sample_folder(project)
    exists = folder.is_dir()
    if kind is None or not (render or exists):
        raise DataError("the data folder is missing", file=data.root, hint=_hint(project, renders=kind is not None))
    get = _public_data(project)
    logger.warning(
        "%s is missing%s; %s the %s sample in %s instead%s. Metrics on rendered images do not apply to photos.",
        data.root,
        f" ({get})" if get else "",
        "using" if exists else "rendering",
        kind,
        folder,
        "" if exists else f" ({data.sample_images} images)",
    )
    if not exists:
        _render(kind, folder, images=data.sample_images)
    return project.model_copy(update={"data": data.model_copy(update={"root": folder})}), True


def _fitting_sample(project: Project) -> str | None:
    """The project's sample; None if the project has no sample or its classes differ from those of the sample."""
    from d2tune.samples import class_names

    kind, background = project.data.sample, project.data.background
    names = set(project.class_names) - {background}
    return kind if kind and (not names or names == set(class_names(kind)) - {background}) else None


def _render(kind: str, folder: Path, *, images: int) -> None:
    """Render to a temporary folder first, so that a sample folder is never incomplete."""
    from d2tune.samples import render_sample

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        rendered = render_sample(kind, Path(scratch) / folder.name, images=images, seed=0).folder
        try:
            rendered.rename(folder)
        except OSError:
            # another process may have rendered the same sample in the meantime
            if not folder.is_dir():
                raise


def _public_data(project: Project) -> str | None:
    is_shipped = project.name == "balloon" and project.data.sample is not None
    return "`d2tune data PROJECT.yaml` fetches the public photos" if is_shipped else None


def _hint(project: Project, *, renders: bool) -> str:
    get = _public_data(project)
    if get:
        return f"{get}."
    if renders:
        return "Put your annotated images there; `d2tune train` renders the project's sample."
    return "Put your annotated images there, or correct data.root in the project."
