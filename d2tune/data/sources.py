"""The options for reading a project's annotations and images; imports neither torch nor Detectron2."""

from __future__ import annotations

from pathlib import Path

from d2tune.annotations.model.options import LabelImageOptions, RasterOptions, ReadOptions
from d2tune.annotations.splitting.lists import is_list, refuse_shared
from d2tune.project import Project


def refuse_shared_names(project: Project) -> None:
    """Check that the lists of the two splits have no image in common.

    Raises:
        DataError: An image is in both lists; the error has the first.
    """
    data = project.data
    if isinstance(data.val, str) and is_list(data.train) and is_list(data.val):
        refuse_shared(data.root / data.train, data.root / data.val)


def split_source(
    project: Project, name: str, labels: tuple[str, ...] | None, *, restore_dir: Path | None = None
) -> tuple[Path, ReadOptions]:
    """The file or folder of a split's annotations, and the options for reading it.

    Args:
        project: The project, whose ``data`` section has the paths and options.
        name: The value of ``data.train`` or ``data.val``, or an absolute path.
        labels: Class names; None takes those that occur.
        restore_dir: Folder for images that exist only inside the annotations.
    """
    data, images, label_folder = project.data, project.data.images_of(name), project.data.labels_of(name)
    source = data.annotations if is_list(name) else name
    if label_folder is not None:
        source, images = label_folder, images or source
    foreground = None if labels is None else tuple(name for name in labels if name != data.background)
    options = ReadOptions(
        labels=labels,
        background=data.background,
        stuff=project.stuff,
        image_root=None if images is None else data.root / images,
        data_root=data.root,
        follow_links=data.follow_links,
        class_name=data.class_name,
        only_class=foreground[0] if foreground and len(foreground) == 1 else None,
        class_attribute=data.class_attribute,
        rename=data.rename,
        skip_bad=data.skip_bad,
        no_predictions=data.predictions == "drop",
        unknown_shapes=data.unknown_shapes,
        crowds=data.crowds,
        restore_dir=restore_dir,
        image_list=data.root / name if is_list(name) else None,
        preset=data.csv_preset,
        include_unlabeled=data.format == "rle",
        image_checks="decoded",
        color_map=None if data.color_map is None else data.root / data.color_map,
        shared_labels=isinstance(data.labels, str),
        label_images=_label_image_options(project),
    )
    return data.root / source, options


def raster_options(project: Project) -> RasterOptions | None:
    """The options for reading a project's rasters; None if its images are photos."""
    if project.data.format != "label_images":
        return None
    keys = project.data.label_images
    return RasterOptions(stack=keys.stack, channels=keys.channels, nodata=keys.nodata)


def _label_image_options(project: Project) -> LabelImageOptions | None:
    raster = raster_options(project)
    if raster is None:
        return None
    keys = project.data.label_images
    labels = keys.labels if project.data.labels is None else "."
    return LabelImageOptions(images=keys.images, labels=labels, values=keys.values, raster=raster)
