"""How far the sizes that ``train.budget`` chooses are from the best of a grid, on few photos and many.

On subsets of the training photos and on all of them, ``budget`` leaves everything to d2tune, and the other recipes set
an image size, with iterations that take the processor seconds that the steps of ``budget`` took: what it needs beside
them for its measurements and an evaluation is not compared, it is in ``rest_s``. See ``budgeted.py`` for what is the
same in all trainings. ``--work`` keeps the journal: the same command again goes on where it was ended, and more
subsets, sizes or seeds can be added to what is there, and another choice be compared with the same grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from budgeted import (
    BUDGET,
    DATA,
    Bench,
    Job,
    Recipe,
    about_run,
    commit_of,
    mean,
    parser_of,
    run_all,
    shown,
)

TARGET = 3.0
"""Points of mask AP that the choice may be below the best of the grid."""


def main() -> None:
    """Train what is missing, and print the table."""
    options = _options()
    results = run_all(options, _jobs, _results)
    print(_text(results["table"], [f"{size} px" for size in options.sizes]))


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--subsets", nargs="+", type=int, default=[10, 20, 40, 0], metavar="N", help="photos; 0 is all")
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 320, 384, 480, 640], metavar="PX")
    parser.add_argument("--grid", metavar="COMMIT", help="that trains the grid (default: the same as --today)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="of trainings and subsets")
    return parser.parse_args()


def _jobs(options: argparse.Namespace, bench: Bench) -> list[Job]:
    """The trainings, those of one subset after each other, so that rows are whole early."""
    own = Recipe(BUDGET, options.today, sets_budget=True)
    commit = options.today if options.grid is None else commit_of(options.grid)
    grid = [Recipe(f"{size} px", commit, {"train.image_size": size}) for size in options.sizes]
    subsets = [size or None for size in options.subsets]
    jobs: list[Job] = []
    for seed in options.seeds:
        for data in options.data:
            for split in bench.subsets(data, subsets, seed=seed):
                chosen = Job(own, split, seed, options.budget_s)
                jobs += [chosen, *(Job(recipe, split, seed, options.budget_s, like=chosen) for recipe in grid)]
    return jobs


def _results(options: argparse.Namespace, bench: Bench, jobs: Sequence[Job]) -> dict[str, Any]:
    """The table of what is finished, and its rows."""
    rows = bench.finished(jobs)
    places = list(dict.fromkeys((row["data"], row["split"]) for row in rows))
    return {
        **about_run(options),
        "seeds": options.seeds,
        "target": TARGET,
        "table": [_row([row for row in rows if (row["data"], row["split"]) == place]) for place in places],
        "trainings": rows,
    }


def _row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean mask AP of each recipe on one subset, and how far the choice is below the best."""
    names = list(dict.fromkeys(row["recipe"] for row in rows))
    scores = {name: mean([row["segm"]["AP"] for row in rows if row["recipe"] == name]) for name in names}
    grid = [score for name, score in scores.items() if name != BUDGET and score is not None]
    own = scores.get(BUDGET)
    chosen = [(row["image_size"], row["iterations"]) for row in rows if row["recipe"] == BUDGET]
    return {
        "data": rows[0]["data"],
        "split": rows[0]["split"],
        "chosen": chosen,
        "mask_ap": scores,
        "below_the_best": None if own is None or not grid else round(max(grid) - own, 2),
    }


def _text(table: Sequence[dict[str, Any]], sizes: Sequence[str]) -> str:
    lines = [
        f"| photos | chosen | budget | {' | '.join(sizes)} | below the best |",
        "|---|---|" + "---:|" * (len(sizes) + 2),
    ]
    for row in table:
        chosen = ", ".join(f"{size} px, {count} iterations" for size, count in row["chosen"]) or "-"
        values = [shown(row["mask_ap"].get(name)) for name in (BUDGET, *sizes)]
        lines.append(
            f"| {row['data']}, {row['split']} | {chosen} | {' | '.join(values)} | {shown(row['below_the_best'])} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
