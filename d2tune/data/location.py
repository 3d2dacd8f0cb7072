"""Where a project's data are: in the folder that it names, or in that of its rendered sample."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from d2tune.errors import DataError
from d2tune.project import Project

logger = logging.getLogger(__name__)


def sample_folder(project: Project) -> Path:
    """Where the project's sample is rendered: beside the folder of its own data."""
    root = project.data.root
    return root.with_name(f"{root.name}-sample")


def locate_data(project: Project, *, sample: bool = True, render: bool = False) -> tuple[Project, bool]:
    """Find the data of a project.

    A project with ``data.sample`` whose ``data.root`` is missing reads its sample, which has a folder of its own.

    Args:
        project: Its ``data`` section says where the data are.
        sample: Whether the sample may take the place of missing data.
        render: Whether the sample is rendered if it is missing too.

    Returns:
        The project with the folder that its data are in as ``data.root``, and whether that is a rendered sample.

    Raises:
        DataError: The data are missing and no sample takes their place.
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
        "%s is missing%s; %s the %s sample in %s instead%s. Its scores say nothing about photos.",
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
    """The sample that the project names, None where it names none or has other classes than the sample."""
    from d2tune.samples import class_names

    kind, background = project.data.sample, project.data.background
    names = set(project.class_names) - {background}
    return kind if kind and (not names or names == set(class_names(kind)) - {background}) else None


def _render(kind: str, folder: Path, *, images: int) -> None:
    """Render into a temporary folder first, so that a sample folder is never incomplete."""
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
    return f"`make data PROJECT={project.name}` fetches the public photos" if is_shipped else None


def _hint(project: Project, *, renders: bool) -> str:
    get = _public_data(project)
    if get:
        return f"{get}."
    if renders:
        return "Put your annotated images there; `d2tune train` renders the project's sample."
    return "Put your annotated images there, or correct data.root in the project."
