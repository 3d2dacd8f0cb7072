"""Project files: what they may say, and how they are read."""

from d2tune.project.loading import OWN_KEYS, LoadedProject, load_project
from d2tune.project.overridden import load_overridden
from d2tune.project.overrides import flatten, parse_overrides
from d2tune.project.presets import preset_files, preset_names
from d2tune.project.schedule import Length, evaluation_period, evaluations, fitting_length, planned_length
from d2tune.project.schema import Data, LabelImages, Model, Project, Train

__all__ = [
    "OWN_KEYS",
    "Data",
    "LabelImages",
    "Length",
    "LoadedProject",
    "Model",
    "Project",
    "Train",
    "evaluation_period",
    "evaluations",
    "fitting_length",
    "flatten",
    "load_overridden",
    "load_project",
    "parse_overrides",
    "planned_length",
    "preset_files",
    "preset_names",
]
