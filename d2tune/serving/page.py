"""The page for judging predictions, with the models of a server."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2tune.acceptance.objects import Prediction
from d2tune.acceptance.predictions import CocoFile, Predictions
from d2tune.acceptance.session import Acceptance, AcceptanceSettings
from d2tune.errors import D2TuneError, MachineError, ProjectError
from d2tune.serving.images import preparing
from d2tune.serving.limits import check_header
from d2tune.serving.models import named
from d2tune.serving.problems import ApiError
from d2tune.serving.service import Service
from d2tune.serving.settings import PageOptions
from d2tune.text import printable


def open_page(service: Service, options: PageOptions) -> Acceptance:
    """The data of the page; close it when the server ends.

    Raises:
        DataError: The folder has no images, or the database, the annotations or the predictions cannot be read.
        ProjectError: The number of models does not fit.
    """
    models: list[Predictions] = [ServedPredictions(service, name) for name in service.models]
    for source in options.predictions:
        name, path = named(source)
        file = CocoFile(path, name=name, names=options.truth, images=options.images)
        if file.name in [model.name for model in models]:
            hint = f"Name it: `--predictions NAME={path}`."
            raise ProjectError("two models have the same name", place=str(path), found=file.name, hint=hint)
        models.append(file)
    title = {"title": printable(options.title.strip())} if options.title and options.title.strip() else {}
    settings = AcceptanceSettings(
        **title,
        database=options.judgments,
        images=options.images,
        truth=options.truth,
        is_blind=options.is_blind,
        max_upload_bytes=service.settings.limits.body_bytes,
        max_pixels=service.settings.limits.pixels,
        check=lambda content: check_header(content, service.settings.limits),
        reserving=service.budget.reserving,
    )
    return Acceptance(settings, models)


class ServedPredictions:
    """A served model as the page asks for it; see `Predictions`.

    Args:
        service: The server.
        name: Name of the model.
    """

    def __init__(self, service: Service, name: str) -> None:
        self.name = name
        self._service = service
        self._model = service.models[name]
        self._worker = service.workers[name]

    @property
    def sha256(self) -> str:
        """A hash of all that decides the predictions, so that judgments are about them; it waits for the model."""
        details = self._details()
        decisive = [details[key] for key in ("weights_sha256", "thresholds", "input")]
        limits = self._service.settings.limits
        text = json.dumps([*decisive, limits.instances, limits.several_frames], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes in the order of their ids."""
        return self._model.description.class_names

    @property
    def lowest_score(self) -> float:
        """The lowest threshold of the classes, below which the model gives no objects."""
        return float(min(self._details()["thresholds"].values(), default=0.0))

    @property
    def starting_score(self) -> float:
        """The same: at first the page shows all that the model gives."""
        return self.lowest_score

    @property
    def background(self) -> str | None:
        """The class of a label map that has no objects; None for none."""
        return self._model.background

    @property
    def facts(self) -> Mapping[str, str]:
        """What the report says of the model."""
        details = self._details()
        given = {
            "Project": details["project"],
            "Preset": details["preset"],
            "Trained": details["trained"],
            "SHA-256 of the weights": details["weights_sha256"],
            "SHA-256 of the training split": details["data_sha256"]["train"],
            "SHA-256 of the validation split": details["data_sha256"]["val"],
        }
        return {name: str(value) for name, value in given.items() if value}

    def predict(self, image: Path) -> Prediction:
        """The prediction on an image file.

        Raises:
            D2TuneError: The model is not ready, too many images wait, or the image cannot be read.
        """
        self._worker.wait_until_ready()
        limits, deadline = self._service.settings.limits, time.monotonic() + self._service.settings.deadline_s
        try:
            result: Prediction = self._worker.predict_here(preparing(image.read_bytes(), limits), deadline=deadline)
        except ApiError as error:
            raise D2TuneError(error.message) from None
        except OSError as error:
            raise D2TuneError(f"the image cannot be read: {error.strerror or error}") from None
        return result

    def _details(self) -> dict[str, Any]:
        self._worker.wait_until_ready()
        try:
            return self._worker.ready.details
        except ApiError as error:
            raise MachineError(error.message) from None
