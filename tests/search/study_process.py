"""A process that takes trials of a study: ``python -m tests.search.study_process FOLDER TRIALS SECONDS [FOLDS]``.

A trial takes some seconds and writes a line ``PID number begins`` and one when it ends. Its metric is highest at 3;
with folds each fold has an offset of its own, the same in all trials.
"""

import os
import sys
import time
from pathlib import Path

from d2tune.search.space import Parameter, Space
from d2tune.search.study import SearchStudy

SPACE = Space(Path("space.yaml"), (Parameter(key="x", kind="uniform", low=0, high=10),))
ABOUT = {"project": "tiny", "folds": None, "data_sha256": "ab", "settings": {"train.seed": 0}}
OFFSETS = (0.0, 5.0, -5.0, 2.0, -2.0)


def metric(x: float) -> float:
    return 50 - (x - 3) ** 2


def main(folder: Path, most: int, seconds: float, folds: int) -> None:
    study = SearchStudy(folder, SPACE, ABOUT, seed=0)
    while True:
        with study.next_trial(most) as trial:
            if trial is None:
                return
            note(folder, f"{trial.number} {'begins' if trial.is_new else 'goes on'} {trial.settings['x']!r}")
            time.sleep(seconds)
            value = metric(trial.settings["x"])
            if any(trial.report(fold, value + OFFSETS[fold]) for fold in range(folds) if fold + 1 < folds):
                trial.prune()
            else:
                if folds:
                    trial.report(folds - 1, value + OFFSETS[folds - 1])
                trial.finish(value)
            note(folder, f"{trial.number} ends")


def note(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as stream:
        stream.write(f"{os.getpid()} {line}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int((*sys.argv, "0")[4]))
