"""The images and classes that predictions in a folder are of, so that they are never scored on others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.annotations.model.dataset import Dataset
from d2tune.errors import RunError

NAME = "predicted_images.json"
"""File beside predictions with ``images`` and ``categories`` as in a COCO file; ``bytes`` is the size of an image."""


def write_predicted_images(folder: Path, dataset: Dataset) -> None:
    """Write the images and classes of the predictions in a folder, with the ids of the file that they are from."""
    image_ids, category_ids = dataset.source_image_ids(), dataset.source_category_ids()
    images = [
        {"id": image_ids[image.id], **row} for image, row in zip(dataset.images, _images_of(dataset), strict=True)
    ]
    categories = [{"id": category_ids[one.id], "name": one.name} for one in dataset.categories]
    files.write_json(folder / NAME, {"schema": 1, "images": images, "categories": categories}, indent=1)


def check_predicted_images(folder: Path, dataset: Dataset) -> bool:
    """Check that the predictions in a folder are of the images and classes of a dataset.

    Returns:
        True; False where an earlier version wrote the predictions, which then have the ids of the dataset.

    Raises:
        RunError: They are of other images or classes, or the file is damaged.
    """
    path = folder / NAME
    try:
        written = json.loads(path.read_bytes())
        images = [
            {"file_name": str(row["file_name"]), **{key: row[key] for key in ("width", "height", "bytes")}}
            for row in written["images"]
        ]
        classes = [row["name"] for row in written["categories"]]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"the images of the predictions cannot be read ({error!r})", file=path, hint=_AGAIN) from None
    now = _images_of(dataset)
    if images == now and classes == list(dataset.class_names):
        return True
    raise RunError(_difference(images, now), file=path, hint=_AGAIN)


_AGAIN = "Evaluate the run again with `d2tune eval`."


def _images_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [
        {
            "file_name": image.file_name,
            "width": image.width_px,
            "height": image.height_px,
            "bytes": image.path.stat().st_size if image.path is not None and image.path.is_file() else None,
        }
        for image in dataset.images
    ]


def _difference(written: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    before, after = ({row["file_name"]: row for row in rows} for rows in (written, now))
    for name, row in before.items():
        if name not in after:
            return f"the predictions are of other images: {name!r} is missing now"
        if after[name] != row:
            return f"the predictions are of other images: {name!r} has changed"
    added = next((name for name in after if name not in before), None)
    if added is not None:
        return f"the predictions are of other images: {added!r} was added"
    return "the predictions are of the same images in another order, or of other classes"
