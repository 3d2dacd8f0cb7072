"""Making the final model: candidates in stages, the best of which is proven on images that did not choose it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.assembling.candidates import (
    SIZE_FACTORS,
    Candidate,
    Network,
    can_be_averaged,
    can_be_fused,
    fused,
    has_sizes,
    mean_of,
    single,
)
from d2tune.assembling.members import Member, read_members, validation_split
from d2tune.assembling.norms import with_measured_norms
from d2tune.assembling.result import NAME, AssemblyResult, Row
from d2tune.assembling.scores import Scored, Scoring, halves_of
from d2tune.assembling.swa import LEAST_ITERATIONS, averaged_weights, default_iterations
from d2tune.assembling.write import write_model
from d2tune.engine.plan import make_plan
from d2tune.errors import RunError, check_range
from d2tune.metrics.bootstrap import Comparison
from d2tune.run_folder import RunFolder, ensure_writable
from d2tune.run_lock import locked

_VERSION = 1


def assemble(
    runs: Sequence[str | Path], *, out: str | Path | None = None, swa_iterations: int | None = None
) -> AssemblyResult:
    """Make the final model of one or several finished runs of the same data.

    The candidates come in stages, each of which begins with the best of the stage before: the runs themselves,
    the stochastic weight average of the best one and the mean of all; larger images; mirrored images, a second size,
    and all runs together. All are scored on one half of the validation images; the best is compared with the best
    run on the other half, and becomes the model if it is better there at 95 %.

    Args:
        runs: Run folders.
        out: The output folder, a run folder if there is a model; None is ``runs/<project>/assembled_<time>``. The
            same call goes on with one that was ended.
        swa_iterations: Iterations that the best run is trained on for its stochastic weight average; 0 does not, None
            is a quarter of those that it had.

    Raises:
        D2TuneError: The runs do not fit together, there are too few validation images, or the folder cannot be used.
        SystemExit: The training of the average was stopped by a signal.
    """
    if swa_iterations is not None and swa_iterations != 0:
        check_range(swa_iterations, place="--swa", least=LEAST_ITERATIONS)
    members = read_members([Path(run) for run in runs])
    project = members[0].loaded.project
    scoring = Scoring(halves_of(validation_split(members), project), project)
    folder = Path(out) if out else Path("runs") / project.name / f"assembled_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    about = {
        "schema": _VERSION,
        "members": [{"run": str(one.folder.path.resolve()), "sha256": one.weights_sha256} for one in members],
        "swa_iterations": swa_iterations,
    }
    _check_free(folder, about)
    ensure_writable(folder)
    with locked(folder):
        files.write_json(folder / NAME, about | {"command": sys.argv, "written": None})
        stages = _Stages(members, scoring, folder, swa_iterations)
        chosen = stages.run()
        return _proven(RunFolder(folder), stages, chosen, about)


def _check_free(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse a folder with anything but an assembly of the same runs that was ended.

    Raises:
        RunError: It has.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    begun: Any = None
    with contextlib.suppress(OSError, ValueError):
        begun = json.loads((folder / NAME).read_bytes())
    hint = "Set another folder with --out."
    if not isinstance(begun, dict) or "members" not in begun:
        raise RunError("the output folder is not empty", file=folder, hint=hint)
    if begun.get("written") is not None:
        raise RunError("the folder has a finished assembly", file=folder, hint=hint)
    if any(begun.get(key) != value for key, value in about.items()):
        raise RunError("the folder has an assembly of other runs or options", file=folder, hint=hint)


class _Stages:
    """The candidates, one stage after the other.

    Args:
        members: The runs.
        scoring: Scores them.
        folder: The output folder.
        swa_iterations: See `assemble`.
    """

    def __init__(self, members: Sequence[Member], scoring: Scoring, folder: Path, swa_iterations: int | None) -> None:
        self._members = members
        self._folder = folder
        self._swa_iterations = swa_iterations
        self.metric_name = members[0].loaded.project.traits.main_metrics[0].title
        self.scoring = scoring
        self.scored: list[Scored] = []
        self.best_member: Scored

    def _score(self, candidate: Candidate) -> Scored:
        scored = self.scoring.score(candidate)
        self.scored.append(scored)
        value = "not defined" if scored.choosing is None else f"{scored.choosing:.1f}"
        print(f"  {candidate.name}: {value}", flush=True)
        return scored

    def _best(self) -> Scored:
        return max(self.scored, key=lambda scored: scored.rank)

    def run(self) -> Scored:
        """Score all candidates; returns the best."""
        runs = [Network(one.name, one, one.cfg, one.state) for one in self._members]
        self.best_member = max([self._score(single(network)) for network in runs], key=lambda scored: scored.rank)
        best = runs[[scored.candidate.name for scored in self.scored].index(self.best_member.candidate.name)]
        networks = {network.name: network for network in [*runs, *self._averages(best)]}
        for name in list(networks)[len(runs) :]:
            self._score(single(networks[name]))
        network = networks[self._best().candidate.weights[0]]
        factor = 1.0
        if has_sizes(network.cfg):
            factor = self._larger(network)
        self._views(network, runs, factor)
        return self._best()

    def _averages(self, best: Network) -> list[Network]:
        """The averages of weights: along a run, and of all runs."""
        made = []
        member = best.member
        iterations = default_iterations(member) if self._swa_iterations is None else self._swa_iterations
        if iterations:
            print(f"  training {member.name} on for {iterations} iterations, to average its weights", flush=True)
            state = averaged_weights(member, self._folder / "swa", iterations=iterations)
            made.append(Network(f"{member.name}, weights averaged", member, member.cfg, state))
        if len(self._members) > 1 and can_be_averaged(self._members):
            first = self._members[0]
            plan, _ = make_plan(first.loaded, num_gpus=None, sample=False, resumed=first.folder)
            state = with_measured_norms(plan, mean_of([one.state for one in self._members]), first.folder)
            made.append(Network(f"mean of the weights of {len(self._members)} runs", first, first.cfg, state))
        return made

    def _larger(self, network: Network) -> float:
        """The best size of images, in multiples of that of the network."""
        same = next(one for one in self.scored if one.candidate.weights == (network.name,))
        sizes = {1.0: same} | {factor: self._score(single(network, factor=factor)) for factor in SIZE_FACTORS}
        return max(sizes, key=lambda factor: sizes[factor].rank)

    def _views(self, network: Network, runs: Sequence[Network], factor: float) -> None:
        """Predictions of several views and runs, fused."""
        if not all(can_be_fused(one.cfg) for one in runs):
            return
        self._score(fused([network], factor=factor, flips=True))
        if has_sizes(network.cfg):
            self._score(fused([network], factor=factor, scales=True))
            self._score(fused([network], factor=factor, flips=True, scales=True))
        if len(runs) > 1:
            self._score(fused(runs, factor=factor))
            self._score(fused(runs, factor=factor, flips=True))


def _proven(folder: RunFolder, stages: _Stages, chosen: Scored, about: Mapping[str, Any]) -> AssemblyResult:
    """Compare the chosen candidate with the best run on the other images, and write it where it is better."""
    scoring, best = stages.scoring, stages.best_member
    proof: Comparison | None = None
    if chosen is not best and chosen.rank > best.rank:
        compared = scoring.compare(best, chosen, scoring.halves.proving)
        proof = compared.metrics[compared.main]
    is_better = proof is not None and proof.better == "B"
    result = AssemblyResult(
        folder=folder.path,
        metric=stages.metric_name,
        rows=tuple(
            Row(
                name=one.candidate.name,
                passes=one.candidate.passes,
                choosing=one.choosing,
                proving=one.proving,
            )
            for one in stages.scored
        ),
        images=(len(scoring.halves.choosing), len(scoring.halves.proving)),
        best_member=best.candidate.name,
        chosen=chosen.candidate.name if proof is not None else best.candidate.name,
        proof=proof,
        is_written=is_better,
    )
    content = {**about, "command": sys.argv, **result.to_json()}
    if is_better:
        write_model(folder, chosen, scoring, assembled=content)
    files.write_json(folder.path / NAME, content)
    return result
