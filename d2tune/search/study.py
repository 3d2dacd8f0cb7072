"""The study of a search in a SQLite file, which several processes share and which outlives each of them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from d2tune.errors import MachineError, RunError
from d2tune.run_lock import holder_of, locked
from d2tune.search.settings import first_difference
from d2tune.search.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

NAME = "study.db"
"""The SQLite file of a study in its folder."""

VERSION = 1

_KEY = "d2tune"
_P_THRESHOLD = 0.2
"""Trials are pruned where folds that are all worse have a smaller probability, if both trials were equal: after three
folds 1/8, which Optuna's own threshold of 0.1 never reaches before the fourth."""

_WAIT_S, _LONGEST_WAIT_S = 0.05, 120.0

State = Literal["finished", "pruned", "failed", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """A trial of a study.

    Attributes:
        number: From 0.
        state: ``finished``; ``pruned``: ended after some folds, because its metrics were worse than those of the best
            trial in each; ``failed``: its settings or its training were refused; ``running``.
        settings: Values by key.
        value: The main metric, with folds the mean over those that were trained; None without any.
        folds: The main metric of each fold that was trained; empty without folds.
        reason: Why it failed; empty where it did not.
    """

    number: int
    state: State
    settings: dict[str, Any]
    value: float | None
    folds: tuple[float, ...] = ()
    reason: str = ""


class SearchStudy:
    """A study of Optuna that belongs to one project, its data and one space.

    Args:
        folder: The folder of the study, which exists.
        space: What is varied.
        about: What the study belongs to: ``project``, ``folds``, ``data_sha256`` and ``settings``.
        seed: Seed of the sampler; trial n has this seed plus n, so that a study that goes on is the same study.

    Raises:
        MachineError: Optuna is not installed.
        RunError: The file is not a study, or that of another project, other data, another space or other settings.
    """

    def __init__(self, folder: Path, space: Space, about: Mapping[str, Any], *, seed: int) -> None:
        _check_installed()
        self._folder, self._space, self._seed = folder, space, seed
        self._file = folder / NAME
        with self._locked():
            self._study = self._opened(dict(about) | {"schema": VERSION, "space": space.to_json()})

    def _opened(self, about: dict[str, Any]) -> Study:
        import optuna
        from sqlalchemy import URL
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = optuna.pruners.WilcoxonPruner(p_threshold=_P_THRESHOLD)
        try:
            address = URL.create("sqlite", database=str(self._file.resolve())).render_as_string()
            storage = optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": 60}})
            study = optuna.create_study(
                storage=storage, study_name="d2tune", direction="maximize", load_if_exists=True, pruner=pruner
            )
            then = study.user_attrs.get(_KEY)
            if then is None and study.get_trials(deepcopy=False):
                raise RunError("is not a study of d2tune", file=self._file, hint="Set another --output-dir.")
            if then is None:
                study.set_user_attr(_KEY, about)
        except (SQLAlchemyError, RuntimeError) as error:  # RuntimeError: a schema of another version of Optuna
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise RunError(
                f"is not a study that can be read: {reason}", file=self._file, hint="Set another --output-dir."
            ) from error
        if then is not None:
            self._check_same(then, json.loads(json.dumps(about)))
        return study

    def _check_same(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        other = "Set another folder with --output-dir for a study of its own."
        for key, what in (("schema", "version of d2tune"), ("project", "project"), ("folds", "number of folds")):
            if then.get(key) != now[key]:
                raise RunError(
                    f"the study is of another {what}",
                    file=self._file,
                    found=_words(now[key]),
                    expected=_words(then.get(key)),
                    hint=other,
                )
        for section, what in (("space", "the space"), ("settings", "the project")):
            was_now = [_as_in_file(one[section]) if section == "space" else one[section] for one in (then, now)]
            changed = first_difference(*was_now)
            if changed is not None:
                key, was, is_now = changed
                raise RunError(
                    f"{key} changed in {what} since the study began",
                    file=self._file,
                    found=is_now,
                    expected=was,
                    hint=other,
                )
        if then.get("data_sha256") != now["data_sha256"]:
            raise RunError("the data changed since the study began", file=self._file, hint=other)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the study, which is held for moments only.

        Raises:
            RunError: Another process held it for two minutes.
        """
        end_s = time.monotonic() + _LONGEST_WAIT_S
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self._folder))
                    break
                except RunError:
                    if time.monotonic() > end_s:
                        raise
                    time.sleep(_WAIT_S)
            yield

    @contextmanager
    def next_trial(self, most: int) -> Iterator[SearchTrial | None]:
        """A trial for this process alone: one whose process was ended, or a new one; None where all are done or run.

        Args:
            most: Trials of the study, over all processes and starts.
        """
        with ExitStack() as held:
            with self._locked():
                trial = self._left_behind(held) or self._new(held, most)
            yield trial

    def _left_behind(self, held: ExitStack) -> SearchTrial | None:
        import optuna

        for frozen in self._study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            lock = self._lock_folder(frozen.number)
            if holder_of(lock) is None:
                held.enter_context(locked(lock))
                return self._trial(optuna.Trial(self._study, frozen._trial_id), is_new=False)
        return None

    def _new(self, held: ExitStack, most: int) -> SearchTrial | None:
        import optuna

        number = len(self._study.get_trials(deepcopy=False))
        if number >= most:
            return None
        self._study.sampler = optuna.samplers.TPESampler(seed=self._seed + number)
        trial = self._study.ask()
        held.enter_context(locked(self._lock_folder(trial.number)))
        return self._trial(trial, is_new=True)

    def _trial(self, trial: Trial, *, is_new: bool) -> SearchTrial:
        settings = {one.key: one.suggest(trial) for one in self._space.parameters}
        return SearchTrial(self._study, trial, trial.number, settings, is_new)

    def _lock_folder(self, number: int) -> Path:
        folder = self._folder / ".trials" / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def writing(self) -> Iterator[list[TrialResult]]:
        """All trials, while no other process writes about them."""
        with self._locked():
            yield self.results()

    def results(self) -> list[TrialResult]:
        """All trials in the order of their numbers."""
        return [self._result(trial) for trial in self._study.get_trials(deepcopy=False)]

    def _result(self, trial: FrozenTrial) -> TrialResult:
        states: dict[str, State] = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        folds = tuple(value for _, value in sorted(trial.intermediate_values.items()))
        settings = {
            one.key: one.stored(trial.params[one.key]) for one in self._space.parameters if one.key in trial.params
        }
        state = states.get(trial.state.name, "running")
        value = sum(folds) / len(folds) if folds else trial.value if state == "finished" else None
        return TrialResult(
            number=trial.number,
            state=state,
            settings=settings,
            value=value,
            folds=folds,
            reason=str(trial.user_attrs.get("reason", "")),
        )


class SearchTrial:
    """A trial that this process runs.

    Attributes:
        number: From 0.
        settings: Values by key.
        is_new: Whether no process has begun with it before.
    """

    def __init__(self, study: Study, trial: Trial, number: int, settings: dict[str, Any], is_new: bool) -> None:
        self._study, self._trial = study, trial
        self.number, self.settings, self.is_new = number, settings, is_new

    def report(self, fold: int, value: float) -> bool:
        """Note the metric of a fold; returns whether the trial is worse than the best one and should end."""
        if fold not in self._study.get_trials(deepcopy=False)[self.number].intermediate_values:
            self._trial.report(value, fold)
        return self._trial.should_prune()

    def finish(self, value: float) -> None:
        """End it with its metric."""
        self._study.tell(self.number, value)

    def prune(self) -> None:
        """End it before its last fold."""
        from optuna.trial import TrialState

        self._study.tell(self.number, state=TrialState.PRUNED)

    def fail(self, reason: str) -> None:
        """End it without a metric."""
        from optuna.trial import TrialState

        self._trial.set_user_attr("reason", reason)
        self._study.tell(self.number, state=TrialState.FAIL)


def _check_installed() -> None:
    if find_spec("optuna") is None:
        raise MachineError("Optuna is not installed", hint="Install it with `pip install 'd2tune[sweep]'`.")


def _words(value: Any) -> str:
    return "none" if value is None else repr(value)


def _as_in_file(space: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a stored space as the file of a space has them."""
    written: dict[str, Any] = {}
    for key, one in space.items():
        is_choice, is_whole = one["kind"] == "choice", one["kind"] == "integer"
        ends = [int(end) if is_whole else end for end in (one["low"], one["high"])]
        written[key] = {one["kind"]: list(one["choices"]) if is_choice else ends}
        written[key] |= {"step": one["step"]} if is_whole and one["step"] != 1 else {}
    return written
