"""Loggers record a run's scalars and images: JSON lines, TensorBoard, Weights & Biases.

``Logger`` is the base class of them all and of your own; ``d2tune.train(project, loggers=[...])`` takes those.
"""

from d2tune.loggers.base import Logger, RunInfo

__all__ = ["Logger", "RunInfo"]
