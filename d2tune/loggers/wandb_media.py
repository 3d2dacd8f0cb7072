"""Charts, and tables of images with masks, as W&B takes them: images once, then predictions that refer to them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2tune.loggers.exhibits import Chart, Gallery
from d2tune.report.labeled_image import LabeledImage

_MOST_ROWS = 10_000
TRUTH, PREDICTION = "ground truth", "prediction"


def chart(content: Chart) -> Any:
    """A chart of W&B with the numbers of ours; of too many points of curves every second, third, ... is kept."""
    import wandb

    step = -(-len(content.rows) // _MOST_ROWS)
    table = wandb.Table(columns=list(content.columns), data=[list(row) for row in content.rows[:: max(1, step)]])
    first, second, *third = content.columns
    if content.kind == "bars":
        return wandb.plot.bar(table, first, second, title=content.title)
    if content.kind == "curves":
        return wandb.plot_table(
            "wandb/area-under-curve/v0",
            table,
            {"class": first, "x": second, "y": third[0]},
            {"title": content.title, "x-axis-title": second, "y-axis-title": third[0]},
        )
    fields = {"Actual": first, "Predicted": second, "nPredictions": third[0]}
    return wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": content.title})


class Tables:
    """Makes the tables of a run.

    The images and their annotated masks are logged once, as the artifact ``PROJECT-validation``, which the run uses.
    The table of an evaluation has predicted masks, scores and references to them. W&B takes such references by the
    artifact's client id, which exists before a server has seen it, so they work offline too.

    Args:
        run: The run of W&B.
        project: The project's name.
    """

    def __init__(self, run: Any, *, project: str) -> None:
        self._run = run
        self._project = project
        self._key = ""
        self._images: dict[str, Any] = {}
        self._artifact: Any = None
        # W&B opens the files of images again where predictions refer to them
        self._folder = tempfile.TemporaryDirectory(prefix="d2tune-wandb-")

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    def predictions(self, name: str, gallery: Gallery) -> Any:
        """The table of a gallery, to be logged by its name."""
        import wandb

        if gallery.key != self._key:
            self._log_images(gallery)
        classes = _classes(gallery.names_by_label())
        table = wandb.Table(columns=["image", "score", "file", "annotated", "predicted"])
        artifact = wandb.Artifact(f"{self._run.id}-{name}", type="predictions")
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            for number, (image, prediction) in enumerate(gallery.rows):
                shown = self._images[image.name]
                self._refer(artifact, shown)
                mask = _file(Path(folder) / f"{number:04d}.png", prediction.predicted_png)
                masks = {TRUTH: shown._masks[TRUTH], PREDICTION: {"path": mask}}
                cell = wandb.Image(shown, masks=masks, classes=classes)
                table.add_data(cell, prediction.score, image.name, prediction.annotated, prediction.predicted)
            artifact.add(table, name)
            self._run.log_artifact(artifact)
        return table

    def _log_images(self, gallery: Gallery) -> None:
        """Log the images with their annotated masks, as an input of the run."""
        import wandb

        classes = _classes(gallery.names_by_label())
        table = wandb.Table(columns=["image", "file"])
        facts = {"data": self._run.config.get("record", {}).get("data", {}), "classes": list(gallery.class_names)}
        artifact = wandb.Artifact(f"{_plain(self._project)}-validation", type="dataset", metadata=facts)
        self._images = {}
        for number, image in enumerate(gallery.all_images):
            self._images[image.name] = _image(Path(self._folder.name), number, image, classes)
            table.add_data(self._images[image.name], image.name)
        artifact.add(table, "validation")
        self._use(artifact)
        self._key, self._artifact = gallery.key, artifact

    def _use(self, artifact: Any) -> None:
        """Log an artifact as an input of the run.

        `use_artifact` refuses all artifacts of offline runs, also new ones; what it does with a new one is this call.
        """
        if self._run.offline:
            self._run._log_artifact(artifact, aliases=["latest"], is_user_created=True, use_after_commit=True)
        else:
            self._run.use_artifact(artifact)

    def _refer(self, artifact: Any, shown: Any) -> None:
        """Put references to an image and its annotated mask into an artifact, instead of their files."""
        for medium in (shown, shown._masks[TRUTH]):
            name = self._artifact.get_added_local_path_name(medium._path)
            address = f"wandb-client-artifact://{self._artifact._client_id}/{name}"
            (entry,) = artifact.add_reference(address, name=name)
            artifact._added_local_paths[medium._path] = entry


def _image(folder: Path, number: int, image: LabeledImage, classes: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    pixels = _file(folder / f"{number:04d}.jpg", image.jpeg)
    mask = _file(folder / f"{number:04d}.png", image.truth_png)
    return wandb.Image(pixels, masks={TRUTH: {"path": mask}}, classes=list(classes))


def _file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def _plain(name: str) -> str:
    """A name with the characters that W&B takes in names of artifacts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _classes(names: Mapping[int, str]) -> list[dict[str, Any]]:
    return [{"id": label, "name": name} for label, name in names.items()]
