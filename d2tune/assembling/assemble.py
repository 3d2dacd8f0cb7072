"""Making the final model: candidates in stages, the best of which is proven on images that did not choose it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.assembling.by_folds import assemble_by_folds
from d2tune.assembling.candidates import (
    SIZE_FACTORS,
    Candidate,
    Network,
    averaged_name,
    can_be_averaged,
    can_be_fused,
    fused,
    has_sizes,
    mean_of,
    single,
)
from d2tune.assembling.members import Member, read_members, validation_split
from d2tune.assembling.norms import with_measured_norms
from d2tune.assembling.output import about_members, opened
from d2tune.assembling.result import NAME, AssemblyResult, HalvesResult, Row
from d2tune.assembling.scores import Scored, Scoring, halves_of
from d2tune.assembling.swa import LEAST_ITERATIONS, averaged_weights, default_iterations
from d2tune.assembling.write import write_model
from d2tune.engine.plan import make_plan
from d2tune.errors import ProjectError, check_range
from d2tune.metrics.bootstrap import Comparison
from d2tune.run_folder import RunFolder
from d2tune.text import counted


def assemble(
    runs: Sequence[str | Path],
    *,
    folds: str | Path | None = None,
    out: str | Path | None = None,
    swa_iterations: int | None = None,
) -> AssemblyResult:
    """Make the final model of one or several finished runs of the same data.

    The candidates come in stages, each of which begins with the best of the stage before: the runs themselves,
    the stochastic weight average of the best one and the mean of all; larger images; mirrored images, a second size,
    and all runs together. All are scored on one half of the validation images; the best is compared with the best
    run on the other half, and becomes the model if it is better there at 95 %.

    Args:
        runs: Run folders.
        folds: The folder of a finished ``d2tune kfold`` of the same project, whose runs choose and prove what is
            done with one run, see `assemble_by_folds`; None takes the halves.
        out: The output folder, a run folder if there is a model; None is ``runs/<project>/assembled_<time>``. The
            same call goes on with one that was ended.
        swa_iterations: Iterations that the best run is trained on for its stochastic weight average; 0 does not, None
            is a quarter of those that it had.

    Raises:
        D2TuneError: The runs or folds do not fit together, there are too few validation images, or the folder cannot be
            used.
        SystemExit: The training of the average was stopped by a signal.
    """
    if swa_iterations is not None and swa_iterations != 0:
        check_range(swa_iterations, place="--swa", least=LEAST_ITERATIONS)
    if folds is not None and len(runs) > 1:
        raise ProjectError(
            "folds show what is worth doing with one run",
            place="--folds",
            found=counted(len(runs), "run"),
            expected="1 run",
            hint="Leave --folds out to assemble several runs.",
        )
    members = read_members([Path(run) for run in runs])
    if folds is not None:
        return assemble_by_folds(members[0], Path(folds), out=out, swa_iterations=swa_iterations)
    project = members[0].loaded.project
    scoring = Scoring(halves_of(validation_split(members), project), project)
    about = about_members(members, swa_iterations)
    with opened(out, about, project=project.name) as folder:
        stages = _Stages(members, scoring, folder.path, swa_iterations)
        chosen = stages.run()
        return _proven(folder, stages, chosen, about)


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
            made.append(Network(averaged_name(member), member, member.cfg, state))
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
    result = HalvesResult(
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
        write_model(
            folder,
            chosen.candidate,
            chosen.predictions,
            evaluator=scoring.evaluator(chosen.candidate),
            dataset=scoring.halves.dataset,
            assembled=content,
        )
    files.write_json(folder.path / NAME, content)
    return result
