"""What can be chosen where two models are compared: models and sample images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from d2tune.errors import DataError
from d2tune.inference.listing import find_images
from d2tune.model_comparison.compare import read_image
from d2tune.modeling.published.catalog import published_names, published_network
from d2tune.modeling.published.loading import has_published
from d2tune.modeling.published.presets import coco_presets, published_metrics
from d2tune.runs.overview import find_runs
from d2tune.samples.render import PHOTO_KINDS, render_image

_PORTRAIT = "portrait"
_MOST_RUNS = 50


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that can be chosen.

    Attributes:
        label: What the list says.
        source: What `open_model` takes.
    """

    label: str
    source: str


def model_choices(
    given: Sequence[str] = (), *, runs: Path | None = None, weights_folder: str | Path | None = None
) -> list[ModelChoice]:
    """The models to choose from: those given, runs, and published networks.

    Args:
        given: Sources of models that come first.
        runs: A folder with run folders, such as ``runs``; its latest runs with weights are listed.
        weights_folder: A folder with files of published networks.

    Raises:
        WeightsError: The folder of weights does not exist.
    """
    choices = [ModelChoice(source, source) for source in given]
    if runs is not None and runs.is_dir():
        folders = [path for path in find_runs(runs) if (path / "checkpoints" / "model_best.pth").is_file()]
        folders.sort(key=lambda path: path.name, reverse=True)
        choices += [ModelChoice(str(path), str(path)) for path in folders[:_MOST_RUNS]]
    for name in published_names():
        network = published_network(name)
        is_here = has_published(network, folder=weights_folder)
        if is_here or network.url is not None:
            metrics = f", published mIoU {network.metrics['mIoU']:.1f}" if network.metrics else ""
            choices.append(ModelChoice(f"{name}{metrics}{'' if is_here else ' (is downloaded once)'}", name))
    choices += [
        ModelChoice(f"{name}, published {published_metrics(name)} (is downloaded once)", name)
        for name in coco_presets()
    ]
    return list({choice.source: choice for choice in choices}.values())


def image_choices(folder: str | Path | None = None) -> dict[str, str | Path]:
    """Images to try, by what the list says: those of a folder, then samples; see `chosen_image`.

    Args:
        folder: A folder of images; None for none.

    Raises:
        DataError: The folder does not exist or has no images.
    """
    images: dict[str, str | Path] = {}
    if folder is not None:
        root, paths = find_images(Path(folder))
        images = {path.relative_to(root).as_posix(): path for path in paths}
    return {**images, **{f"sample: {name}": name for name in (_PORTRAIT, *PHOTO_KINDS)}}


def chosen_image(choice: str | Path) -> NDArray[np.uint8]:
    """The image of a choice, ``(H, W, 3)`` uint8 in RGB.

    Args:
        choice: A file, or the name of a sample: ``portrait`` is the photo of a person that matplotlib has, the others
            are rendered.

    Raises:
        DataError: There is no such sample, or the file cannot be read.
    """
    if isinstance(choice, Path):
        return read_image(choice)
    if choice == _PORTRAIT:
        return read_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    if choice not in PHOTO_KINDS:
        raise DataError("there is no such sample", found=choice, expected=", ".join((_PORTRAIT, *PHOTO_KINDS)))
    image: NDArray[np.uint8] = render_image(choice, 0).image_rgb
    return image
