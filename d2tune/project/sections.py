"""The base of all sections of a project file, and small sections of ``train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from d2tune.project.values import Number, Whole


class Section(BaseModel):
    """A part of a project file; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Sampling(Section):
    """How often the images of the training split are used.

    Attributes:
        kind: ``uniform``: equally often; ``repeat_factor``: those with rare classes more often, by the root of how rare
            they are; ``class_balanced``: each class about as often as the most frequent one.
        threshold: The share of the images below which a class is rare for ``repeat_factor``.
    """

    kind: Literal["uniform", "repeat_factor", "class_balanced"] = "uniform"
    threshold: Annotated[Number, Field(gt=0, le=1)] = 0.3


class Fold(Section):
    """A fold of cross-validation: all annotated images are divided into equal splits, one of which is validated on.

    Attributes:
        of: Number of folds.
        number: The fold that is validated on, from 0; the others are trained on.
    """

    of: Whole = Field(ge=2)
    number: Whole = Field(ge=0)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Fold:
        if self.number >= self.of:
            raise ValueError(f"the number of a fold must be from 0 to {self.of - 1}; found {self.number}")
        return self


class EarlyStopping(Section):
    """When a training ends before its last iteration.

    Attributes:
        patience: Evaluations in a row without a gain after which training ends; 0 trains to the last iteration.
        min_gain: What the metric must rise by, or the loss must fall by, to count as a gain; metrics are in points.
        metric: ``main``, the metric by which the best weights are chosen, or ``loss``, the one on the validation split.
    """

    patience: Whole = Field(default=0, ge=0)
    min_gain: Number = Field(default=0.0, ge=0)
    metric: Literal["main", "loss"] = "main"
