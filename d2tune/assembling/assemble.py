"""Making the final model: candidates in stages, the best of which is proven on images that did not choose it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2tune import files
from d2tune.assembling.by_folds import assemble_by_folds
from d2tune.assembling.candidates import Network, can_be_averaged, mean_of
from d2tune.assembling.members import Member, read_members, validation_split
from d2tune.assembling.norms import with_measured_norms
from d2tune.assembling.output import about_members, opened
from d2tune.assembling.result import NAME, AssemblyResult, HalvesResult, Row
from d2tune.assembling.scores import Scored, Scoring, halves_of
from d2tune.assembling.swa import LEAST_ITERATIONS, averaged_network
from d2tune.assembling.variants import Possible, Variant, choose
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

    The candidates come in stages, see `variants.choose`. All are scored on one half of the validation images; the best
    is compared with the best run on the other half, and becomes the model if it is better there at 95 %.

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
        candidates = _Candidates(members, scoring, folder.path, swa_iterations)
        chosen, _ = choose(candidates.score, candidates.possible)
        return _proven(folder, candidates, candidates.scored[chosen], about)


class _Candidates:
    """The candidates, each made and scored when it is asked for.

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
        self._runs = [Network(one.name, one, one.cfg, one.state) for one in members]
        self._averages: dict[tuple[int, ...], Network] = {}
        self.scoring = scoring
        self.scored: dict[Variant, Scored] = {}

    @property
    def possible(self) -> Possible:
        """What can be done with the runs."""
        return Possible.of(
            self._runs,
            averages=self._swa_iterations != 0,
            mean=len(self._members) > 1 and can_be_averaged(self._members),
        )

    @property
    def best_member(self) -> Scored:
        """The best of the runs, which were scored."""
        return max((self.scored[Variant((number,))] for number in range(len(self._runs))), key=lambda one: one.rank)

    def score(self, variant: Variant) -> float | None:
        """The main metric on the half that candidates are chosen on; None where it is not defined.

        Raises:
            DataError: An image cannot be read.
            SystemExit: The training of the average was stopped by a signal.
        """
        averaged = variant.is_averaged
        networks = [self._average(variant.runs)] if averaged else [self._runs[number] for number in variant.runs]
        scored = self.scored[variant] = self.scoring.score(variant.candidate(networks))
        value = "not defined" if scored.choosing is None else f"{scored.choosing:.1f}"
        print(f"  {scored.candidate.name}: {value}", flush=True)
        return scored.choosing

    def _average(self, runs: tuple[int, ...]) -> Network:
        """The average of the weights along a run, or that of several runs."""
        if runs not in self._averages:
            members = [self._members[number] for number in runs]
            if len(members) == 1:
                made = averaged_network(members[0], self._folder / "swa", iterations=self._swa_iterations)
            else:
                made = _mean_network(members)
            self._averages[runs] = made
        return self._averages[runs]


def _mean_network(members: Sequence[Member]) -> Network:
    """The mean of the weights of runs with the same network."""
    first = members[0]
    plan, _ = make_plan(first.loaded, num_gpus=None, sample=False, resumed=first.folder)
    state = with_measured_norms(plan, mean_of([one.state for one in members]), first.folder)
    return Network(f"mean of the weights of {len(members)} runs", first, first.cfg, state)


def _proven(folder: RunFolder, candidates: _Candidates, chosen: Scored, about: Mapping[str, Any]) -> AssemblyResult:
    """Compare the chosen candidate with the best run on the other images, and write it where it is better."""
    scoring, best = candidates.scoring, candidates.best_member
    proof: Comparison | None = None
    if chosen is not best and chosen.rank > best.rank:
        compared = scoring.compare(best, chosen, scoring.halves.proving)
        proof = compared.metrics[compared.main]
    is_better = proof is not None and proof.better == "B"
    result = HalvesResult(
        folder=folder.path,
        metric=best.candidate.member.loaded.project.traits.main_metrics[0].title,
        rows=tuple(
            Row(
                name=one.candidate.name,
                passes=one.candidate.passes,
                choosing=one.choosing,
                proving=one.proving,
            )
            for one in candidates.scored.values()
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
