"""Reading a project file: YAML, profile, overrides, and every key checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from d2tune.errors import ProjectError
from d2tune.project.expected import without_empty
from d2tune.project.explain import explained, refuse_unknown
from d2tune.project.names import safe_name
from d2tune.project.overrides import LENGTHS, flatten, merge, numbers, set_dotted
from d2tune.project.profiles import choose_profile, take_profiles
from d2tune.project.schema import Project
from d2tune.project.sections import Fold
from d2tune.project.yaml_files import read_yaml
from d2tune.text import nearest

OWN_KEYS = {
    "SOLVER.MAX_ITER": "train.iterations",
    "SOLVER.IMS_PER_BATCH": "train.batch_size",
    "TEST.EVAL_PERIOD": "train.eval_every",
    "DATALOADER.NUM_WORKERS": "train.workers",
    "SEED": "train.seed",
}
"""Detectron2's keys that a project has keys of its own for."""


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A project as read, with where it came from and which profile was merged.

    Attributes:
        project: The typed project, its relative paths made absolute.
        file: The project file.
        profile: The profile merged into it, or None.
    """

    project: Project
    file: Path
    profile: str | None

    def with_root(self, root: Path) -> LoadedProject:
        """The same project with its data in another folder."""
        data = self.project.data.model_copy(update={"root": root})
        return replace(self, project=self.project.model_copy(update={"data": data}))

    def with_fold(self, number: int, *, of: int) -> LoadedProject:
        """The same project on one of so many folds of its data.

        Args:
            number: The fold that is validated on, from 0.
            of: Number of folds.
        """
        data = self.project.data.model_copy(update={"fold": Fold(of=of, number=number)})
        return replace(self, project=self.project.model_copy(update={"data": data}))

    def with_tracking_group(self, group: str) -> LoadedProject:
        """The same project with a group of runs in its logger, unless it names one."""
        named = self.project.tracking_group or group[:100]
        return replace(self, project=self.project.model_copy(update={"tracking_group": named}))

    def with_train(self, values: Mapping[str, Any]) -> LoadedProject:
        """The same project with other values of keys of ``train``."""
        train = self.project.train.model_copy(update=values)
        return replace(self, project=self.project.model_copy(update={"train": train}))

    def with_detectron2(self, raw: Mapping[str, Any]) -> LoadedProject:
        """The same project with raw Detectron2 keys merged into its ``detectron2`` section."""
        merged = self.project.detectron2 | dict(raw)
        return replace(self, project=self.project.model_copy(update={"detectron2": merged}))


def load_project(
    path: str | Path,
    *,
    profile: str | None = None,
    hardware: Literal["gpu", "cpu"] = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> LoadedProject:
    """Read a project file, merge the profile for the hardware, and check every key.

    Args:
        path: A ``projects/*.yaml``.
        profile: Name of a profile to merge; None takes the one named as ``hardware``, where the file has it.
        hardware: What the machine has.
        overrides: Dotted project keys and their values, ``{"train.iterations": 500}``, merged last. Another
            ``data.root`` has no sample, unless ``data.sample`` is among them too.

    Raises:
        ProjectError: The file is missing or is not valid YAML, or a key or value in it is invalid.
    """
    file = Path(path)
    raw = _read_mapping(file)
    profiles = take_profiles(raw, file)
    for name, section in profiles.items():
        refuse_unknown(section, Project, file, f"profiles.{name}")
    profiles = {
        name: _with_own_keys(without_empty(section, Project, is_profile=True), file, f"profiles.{name}.")
        for name, section in profiles.items()
    }
    chosen = choose_profile(profiles, profile, hardware, file)
    merged = _with_own_keys(without_empty(raw, Project), file)
    merged = merge(merged, profiles[chosen]) if chosen else merged
    _refuse_two_lengths(overrides or {}, file)
    for key, value in _without_sample(overrides or {}).items():
        first, _, raw_key = key.partition(".")
        if first == "detectron2" and raw_key in OWN_KEYS:
            set_dotted(merged, OWN_KEYS[raw_key], value)
        elif first == "detectron2" and raw_key and isinstance(merged.setdefault(first, {}), dict):
            merged[first] |= flatten({raw_key: value})
        else:
            set_dotted(merged, key, value)
    merged.setdefault("name", safe_name(file.stem))
    refuse_unknown(merged, Project, file, "")
    merged = without_empty(merged, Project)
    try:
        project = Project.model_validate(merged)
    except ValidationError as error:
        raise explained(error, merged, file) from None
    return LoadedProject(_absolute(project, file.resolve().parent), file, chosen)


def _with_own_keys(raw: dict[str, Any], file: Path, place: str = "") -> dict[str, Any]:
    """A file or profile with raw Detectron2 keys dotted, and those that a project has keys of its own for as these.

    Other values follow from the own keys, and profiles replace keys one by one. Of both in one section the raw key
    counts, because the project of a run has all keys, also those that are not set.

    Raises:
        ProjectError: A key is there twice, or the iterations are, and another length of the training too.
    """
    raw = _dotted_detectron2(raw, file, place)
    section, train = raw.get("detectron2"), raw.get("train")
    if not isinstance(section, dict):
        return raw
    rivals = [key for key in ("epochs", "budget") if isinstance(train, dict) and train.get(key) is not None]
    for raw_key in [key for key in OWN_KEYS if key in section]:
        if rivals and OWN_KEYS[raw_key] == "train.iterations":
            message = f"{raw_key} and train.{rivals[0]} are both set; keep one of them"
            raise ProjectError(message, file=file, place=f"{place}detectron2")
        set_dotted(raw, OWN_KEYS[raw_key], section.pop(raw_key))
    return raw


def _refuse_two_lengths(overrides: Mapping[str, Any], file: Path) -> None:
    """Refuse overrides that say twice how long a training is; one of them replaces what the file says.

    Raises:
        ProjectError: They do.
    """
    lengths = [key for key in LENGTHS if overrides.get(f"train.{key}") is not None]
    if len(lengths) > 1:
        raise ProjectError(f"{lengths[0]} and {lengths[1]} are both set; keep one of them", file=file, place="train")


def _without_sample(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides, and no sample for a folder that a person named: a mistyped one must not be replaced."""
    return ({"data.sample": None} if "data.root" in overrides else {}) | dict(overrides)


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        raw = read_yaml(file)
    except FileNotFoundError:
        folder = file.parent if file.parent.is_dir() else Path()
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml"))
        like = nearest(file.name, names)
        raise ProjectError(
            "no such project file", file=file, hint=f"Did you mean {folder / like}?" if like else None
        ) from None
    if not isinstance(raw, dict):
        kind = "an empty file" if raw is None else type(raw).__name__
        raise ProjectError("is not a project", file=file, found=kind, expected="keys such as task, data and classes")
    return raw


def _dotted_detectron2(raw: dict[str, Any], file: Path, place: str = "") -> dict[str, Any]:
    """The section with its raw Detectron2 keys dotted, so that profiles replace them one by one."""
    section = raw.get("detectron2")
    if not isinstance(section, dict):
        return raw
    try:
        return raw | {"detectron2": numbers(flatten(section))}
    except ValueError as error:
        raise ProjectError(str(error), file=file, place=f"{place}detectron2") from None


def _absolute(project: Project, folder: Path) -> Project:
    root = project.data.root.expanduser()
    data = project.data.model_copy(update={"root": (folder / root).resolve()})
    weights = project.weights
    if weights not in ("auto", "scratch") and "://" not in weights:
        weights = str((folder / Path(weights).expanduser()).resolve())
    return project.model_copy(update={"data": data, "weights": weights})
