"""The models of a server, and further ones, for the page that compares two models on an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from d2tune.acceptance.two_models import TwoModels
from d2tune.errors import MachineError, ProjectError
from d2tune.model_comparison.models import ComparedModel, check_model, open_model
from d2tune.modeling.published.catalog import published_names
from d2tune.modeling.published.loading import weights_bytes
from d2tune.modeling.published.presets import coco_presets
from d2tune.serving.models import named
from d2tune.serving.problems import ApiError
from d2tune.serving.service import Service


def compared_models(service: Service, others: Sequence[str]) -> TwoModels | None:
    """The models of a server and others; None where there are fewer than two.

    Args:
        service: The server.
        others: Sources of further models, loaded when they are chosen first: see `open_model`; ``NAME=PATH`` names one.

    Raises:
        ProjectError: A source is not a model, or two models have the same name.
    """
    models: dict[str, Callable[[], ComparedModel]] = {name: partial(_served, service, name) for name in service.models}
    for text in others:
        name, source = _named(text)
        check_model(source)
        if name in models:
            hint = f"Name it: `--compare NAME={source}`."
            raise ProjectError("two models have the same name", place="--compare", found=name, hint=hint)
        models[name] = partial(_opened, name, source)
    return TwoModels(models, max_pixels=service.settings.limits.pixels) if len(models) > 1 else None


def _named(text: str) -> tuple[str, str]:
    """The name and the source of a model; a path is not shown to those who use the page."""
    name = text.partition("=")[0]
    if name in published_names() or text in coco_presets():
        return name, text
    given, path = named(text)
    return given or path.resolve().name, str(path)


def _opened(name: str, source: str) -> ComparedModel:
    return replace(open_model(source), name=name)


def _served(service: Service, name: str) -> ComparedModel:
    """A model that the server has loaded already."""
    worker = service.workers[name]
    worker.wait_until_ready()
    try:
        predictor = worker.ready.predictor
    except ApiError as error:
        raise MachineError(error.message) from None
    is_module = isinstance(predictor.model, nn.Module)
    return ComparedModel(
        name=name,
        predictor=predictor,
        background=service.models[name].background,
        weights_bytes=weights_bytes(predictor.model, Path()) if is_module else None,
    )
