"""A model that is ready to predict, wherever it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Category
from d2tune.project import Project
from d2tune.run_folder import RunFolder

DEFAULT_THRESHOLD = 0.5
"""Lowest score of an instance of a class for which no other is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What is known of a model without loading it.

    Attributes:
        source: The run folder, the package or the exported model.
        project: Its project, with overrides and profile.
        record: Its record: classes, ids of the things, input, hashes of the data, name of the project.
    """

    source: Path
    project: Project
    record: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their ids."""
        return tuple(self.record["classes"])

    @property
    def things(self) -> frozenset[int]:
        """Ids of the things, counted from 1; all classes where the record names none."""
        given = self.record.get("thing_ids")
        return frozenset(range(1, len(self.class_names) + 1) if given is None else given)

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes in the order of their ids."""
        things = self.things
        return tuple(Category(number, name, number in things) for number, name in enumerate(self.class_names, start=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel(ModelDescription):
    """A model that is ready to predict, with everything that is known of it.

    Attributes:
        cfg: Detectron2's config.
        model: A module in evaluation mode on its device, or a callable with the inputs and outputs of a Detectron2
            model.
        thresholds: Lowest score of an instance by the name of its class.
        weights: The file of the weights.
        weights_sha256: Its hash.
        config_sha256: Hash of the file of the config.
        project_sha256: Hash of the file of the project.
        files: All files that were read; outputs may not go over them.
        run: The run folder; None for packages and exported models.
    """

    cfg: CfgNode
    model: Any
    thresholds: Mapping[str, float]
    weights: Path
    weights_sha256: str
    config_sha256: str
    project_sha256: str
    files: tuple[Path, ...]
    run: RunFolder | None = None

    def with_min_score(self, min_score: float | None) -> LoadedModel:
        """The same model with another threshold for all classes; None keeps those of the model."""
        if min_score is None:
            return self
        return replace(self, thresholds=dict.fromkeys(self.class_names, min_score))
