"""The final model of one run, chosen and proven by the folds of its project."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from d2tune import files
from d2tune.assembling.candidates import Candidate, Network, averaged_name
from d2tune.assembling.fold_scores import FoldScores
from d2tune.assembling.folds import Folds, read_folds
from d2tune.assembling.members import Member, validation_split
from d2tune.assembling.output import about_members, opened
from d2tune.assembling.result import NAME, FoldRow, FoldsResult
from d2tune.assembling.scores import predictions_of
from d2tune.assembling.swa import averaged_network, default_iterations
from d2tune.assembling.variants import PLAIN, Possible, Variant, choose, leave_one_out
from d2tune.assembling.write import write_model
from d2tune.run_folder import RunFolder
from d2tune.tasks import task_of


def assemble_by_folds(run: Member, folds: Path, *, out: str | Path | None, swa_iterations: int | None) -> FoldsResult:
    """Make the final model of one run by what the folds of its project show.

    Each candidate is made of the run of each fold, and scored on the validation images of that fold. For each fold the
    others choose a candidate, in stages; the predictions of these choices are compared with those of the runs as they
    are, over the images of all folds. Where they are better at 95 %, the candidate that all folds together choose is
    made of the run, and becomes the model.

    Args:
        run: The run.
        folds: The folder of a finished ``d2tune kfold`` of the same project.
        out: See `assembling.assemble`.
        swa_iterations: See `assembling.assemble`.

    Raises:
        D2TuneError: The folds are not those of the run, their images have changed, or the folder cannot be used.
        SystemExit: The training of an average was stopped by a signal.
    """
    read = read_folds(folds, run)
    dataset = validation_split([run])
    about = about_members([run], swa_iterations) | {
        "folds": {
            "folder": str(read.folder.resolve()),
            "runs": [{"run": str(one.path.resolve()), "sha256": one.weights_sha256} for one in read.runs],
        }
    }
    project = run.loaded.project
    with opened(out, about, project=project.name) as folder:
        iterations = default_iterations(run) if swa_iterations is None else swa_iterations
        chosen, result = _decided(run, read, folder, iterations)
        content = {**about, "command": sys.argv, **result.to_json()}
        if result.is_written:
            candidate = chosen.candidate([_network(run, folder, chosen, iterations)])
            evaluator = task_of(project).evaluator(dataset, candidate.cfg, project)
            predictions = predictions_of(candidate, evaluator, dataset, project)
            write_model(folder, candidate, predictions, evaluator=evaluator, dataset=dataset, assembled=content)
        files.write_json(folder.path / NAME, content)
        return result


def _decided(run: Member, folds: Folds, folder: RunFolder, iterations: int) -> tuple[Variant, FoldsResult]:
    """Choose and prove."""

    def shown(variant: Variant) -> Candidate:
        """The candidate without weights: its name and passes."""
        name = averaged_name(run) if variant.is_averaged else run.name
        return variant.candidate([Network(name, run, run.cfg, {})])

    scores = FoldScores(folds, folder.path / "folds", iterations=iterations, shown=lambda one: shown(one).name)
    possible = Possible.of([Network(run.name, run, run.cfg, {})], averages=iterations > 0)
    count = len(folds.runs)
    everything = range(count)
    chosen, tried = choose(lambda variant: scores.mean(variant, everything), possible)
    choices, tried_by_others = leave_one_out(scores.mean, count, possible)
    proof = scores.compare(PLAIN, choices) if chosen != PLAIN else None
    times = Counter(choices)
    result = FoldsResult(
        folder=folder.path,
        metric=run.loaded.project.traits.main_metrics[0].title,
        rows=tuple(
            FoldRow(
                name=shown(variant).name,
                passes=shown(variant).passes,
                value=scores.known_mean(variant),
                folds=tuple(scores.known(variant)),
                chosen=times[variant],
            )
            for variant in dict.fromkeys([*tried, *tried_by_others])
        ),
        images=folds.images,
        groups=int(folds.groups.max()) + 1,
        choices=tuple(shown(variant).name for variant in choices),
        best_member=run.name,
        chosen=shown(chosen).name,
        proof=proof,
        is_written=proof is not None and proof.better == "B",
    )
    return chosen, result


def _network(run: Member, folder: RunFolder, variant: Variant, iterations: int) -> Network:
    """The run with the weights that a variant takes."""
    if not variant.is_averaged:
        return Network(run.name, run, run.cfg, run.state)
    return averaged_network(run, folder.path / "swa", iterations=iterations)
