"""The images that a model predicts on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d2tune.data.splits import load_splits
from d2tune.inference.images import find_images, find_rasters
from d2tune.inference.sources import find_source_images
from d2tune.inference.writers.base import Images
from d2tune.modeling.loaded import LoadedModel, ModelDescription
from d2tune.runs.load import check_has_data


def source_images(
    sources: Sequence[str | Path], model: ModelDescription, *, skip: Path
) -> tuple[Images, tuple[str, ...]]:
    """The images of sources, and a line for each entry of a list that does not exist.

    Of a split of label images, the images are those in its folder of images.

    Args:
        sources: See `sources.find_source_images`.
        model: The model.
        skip: The output folder, which is skipped where it is inside a source.

    Raises:
        DataError: A source does not exist or has no images.
    """
    data, stacked = model.project.data, bool(model.record["input"].get("stacked"))

    def find(source: Path) -> tuple[Path, list[Path]]:
        if data.format != "label_images":
            return find_images(source, skip=skip)
        images, labels = source / data.label_images.images, source / data.label_images.labels
        folder = images if images.is_dir() and labels.is_dir() else source
        return find_rasters(folder, stacked=stacked, skip=skip)

    images = find_source_images(sources, find, stacked=stacked)
    return Images(images.root, images.paths), images.missing


def validation_images(loaded: LoadedModel) -> Images:
    """The images of the validation split, with the ids of its file of annotations."""
    check_has_data(loaded, hint="Name an image or a folder of images.")
    project = loaded.project
    if not project.class_names:
        project = project.model_copy(update={"classes": tuple(loaded.record["classes"])})
    dataset = load_splits(project, sample=False).val
    with_file = [image for image in dataset.images if image.path is not None]
    paths = [image.path for image in with_file if image.path is not None]
    root = dataset.image_root or project.data.root
    inside = all(path.is_relative_to(root) for path in paths)
    image_ids, category_ids = dataset.source_image_ids(), dataset.source_category_ids()
    return Images(
        root if inside else Path(paths[0].anchor),
        paths,
        image_ids=[image_ids[image.id] for image in with_file],
        category_ids={category.name: category_ids[category.id] for category in dataset.categories},
    )
