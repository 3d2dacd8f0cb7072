"""The methods that carry masks through a video, each a `PropagationMethod`."""

from __future__ import annotations

from d2tune.errors import ProjectError
from d2tune.propagation.methods.base import PropagationMethod

METHODS = ("fine-tuning", "flow", "siammask")


def method_named(name: str, *, weights: str | None = None) -> PropagationMethod:
    """A method by its name.

    Args:
        name: One of `METHODS`.
        weights: See ``api.track``.

    Raises:
        ProjectError: The name is unknown.
        WeightsError: The weights cannot be used.
    """
    if name == "fine-tuning":
        from d2tune.propagation.methods.fine_tuning import FineTuning

        return FineTuning(weights)
    if name == "flow":
        from d2tune.propagation.methods.flow import Flow

        return Flow()
    if name == "siammask":
        from d2tune.propagation.methods.siammask import SiamMaskTracking

        return SiamMaskTracking(weights)
    raise ProjectError("is not a method", place="--method", found=name, expected=", ".join(METHODS))
