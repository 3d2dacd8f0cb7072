"""Mask AP of recipes under the same budget of processor seconds, on folds of few photos, paired over folds and seeds.

``earlier`` is a commit with its own defaults, ``today`` this one with its own. Ingredients are added to them:
``"today + no EMA"``, ``"earlier + image size 384"``, ``"today + train.color=0.2 + wide jitter"``; without a beginning,
to ``today``. ``budget`` leaves sizes and length to ``train.budget``. See ``budgeted.py`` for what is the same in all
trainings. ``--work`` keeps the journal: the same command again goes on where it was ended, and more folds, seeds or
recipes can be added to what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import yaml
from budgeted import (
    BUDGET,
    DATA,
    METRICS,
    Bench,
    Job,
    Recipe,
    about_run,
    commit_of,
    mean,
    parser_of,
    run_all,
    shown,
    span,
)

_INGREDIENTS: dict[str, dict[str, Any]] = {
    "image size 320": {"train.image_size": 320},
    "image size 384": {"train.image_size": 384},
    "image size 448": {"train.image_size": 448},
    "image size 544": {"train.image_size": 544},
    "image size 800": {"train.image_size": 800},
    # trained at the sizes of today, evaluated at others
    "test size 480": {"train.image_size": 480, "train.scale_jitter": [0.8, 1.6]},
    "test size 800": {"train.image_size": 800, "train.scale_jitter": [0.48, 0.96]},
    # as in projects/balloon_cpu.yaml
    "544, jitter 0.36 to 0.9": {"train.image_size": 544, "train.scale_jitter": [0.36, 0.9]},
    "no jitter": {"train.scale_jitter": [1.0, 1.0]},
    "wide jitter": {"train.scale_jitter": [0.3, 1.2]},
    "large-scale jitter": {"train.large_scale_jitter": True},
    "patches": {"train.image_size": 1024, "train.patch_size": 512, "train.scale_jitter": [0.3, 1.1]},
    "crop": {"train.crop": 0.5},
    "copy-paste": {"train.copy_paste": 0.5},
    "no color": {"train.color": 0.0},
    "no EMA": {"SOLVER.EMA_DECAY": 0.0},
    "longer EMA": {"SOLVER.EMA_DECAY": 0.995},
    "frozen backbone": {"train.freeze": ["backbone.bottom_up"]},
    "learning rate x 0.5": {"train.learning_rate": 0.0002},
    "learning rate x 2": {"train.learning_rate": 0.0008},
    "constant learning rate": {"SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR"},
    "batch of 2": {"train.batch_size": 2},
    "batch of 8": {"train.batch_size": 8},
}


def main() -> None:
    """Train what is missing, and print the tables."""
    results = run_all(_options(), _jobs, _results)
    for name, table in results["tables"].items():
        print(f"\n{name}\n\n{_text(table)}")


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--folds", nargs="+", type=int, metavar="N", help="numbers of the folds (default: all)")
    parser.add_argument("--of", type=int, default=5, metavar="K", help="how many folds the photos are divided into")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["earlier", "today"],
        metavar="RECIPE",
        help=f"earlier or today, with budget, key=value or: {', '.join(_INGREDIENTS)} (default: earlier today)",
    )
    parser.add_argument("--earlier", default="0ff596b", metavar="COMMIT", help="(default: %(default)s)")
    options = parser.parse_args()
    options.folds = list(range(options.of)) if options.folds is None else options.folds
    return options


def _jobs(options: argparse.Namespace, bench: Bench) -> list[Job]:
    """The trainings, those of one fold and seed after each other, so that pairs are whole early."""
    recipes = [_recipe(name, options) for name in dict.fromkeys(options.recipes)]
    splits = {data: bench.folds(data, options.folds, of=options.of) for data in options.data}
    return [
        Job(recipe, split, seed, options.budget_s)
        for seed in options.seeds
        for data in options.data
        for split in splits[data]
        for recipe in recipes
    ]


def _recipe(text: str, options: argparse.Namespace) -> Recipe:
    """A recipe of its text, such as ``today + no EMA + train.image_size=448``."""
    first, *others = text.split(" + ")
    words = others if first in ("earlier", "today") else [first, *others]
    keys: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if word in _INGREDIENTS:
            keys |= _INGREDIENTS[word]
        elif equals:
            keys[key] = yaml.safe_load(value)
        elif word != BUDGET:
            raise SystemExit(f"no ingredient {word!r}; expected {BUDGET}, key=value, or of {', '.join(_INGREDIENTS)}")
    commit = commit_of(options.earlier) if first == "earlier" else options.today
    return Recipe(text, commit, keys, sets_budget=BUDGET in words)


def _results(options: argparse.Namespace, bench: Bench, jobs: Sequence[Job]) -> dict[str, Any]:
    """The tables of what is finished, and its rows."""
    rows = bench.finished(jobs)
    names = list(dict.fromkeys(job.recipe.name for job in jobs))
    references = [name for name in ("earlier", "today", f"today + {BUDGET}") if name in names] or names[:1]
    tables = {
        f"{data}, {base} as reference": table
        for data in options.data
        for base in references
        if (table := _table([row for row in rows if row["data"] == data], names, base))
    }
    return {
        **about_run(options),
        "folds": options.folds,
        "of": options.of,
        "seeds": options.seeds,
        "interval": "Student's t of the paired differences: over folds and seeds, and over the means of folds",
        "tables": tables,
        "trainings": rows,
    }


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str], base: str) -> list[dict[str, Any]]:
    """The mean of each recipe, and of its differences from another one on the same folds with the same seeds."""
    by_recipe = {name: {(row["split"], row["seed"]): row for row in rows if row["recipe"] == name} for name in names}
    return [
        {
            "recipe": name,
            "keys": next(iter(mine.values()))["keys"],
            "trainings": len(mine),
            "iterations": mean([row["iterations"] for row in mine.values()]),
            "training_s": mean([row["training_s"] for row in mine.values()]),
            "rest_s": mean([row["rest_s"] for row in mine.values()]),
            **{metric: mean([row["segm"][metric] for row in mine.values()]) for metric in METRICS},
            "difference": None if name == base else _difference(mine, by_recipe[base]),
        }
        for name, mine in by_recipe.items()
        if mine
    ]


def _difference(mine: dict[Any, dict[str, Any]], others: dict[Any, dict[str, Any]]) -> dict[str, Any] | None:
    """Of mask AP, with its intervals; None without pairs."""
    from d2tune.search.statistics import fold_mean

    gains = {place: mine[place]["segm"]["AP"] - others[place]["segm"]["AP"] for place in mine if place in others}
    if not gains:
        return None
    folds = {split: mean([gain for (one, _), gain in gains.items() if one == split]) for split, _ in gains}
    pairs, means = fold_mean(list(gains.values())), fold_mean([value for value in folds.values() if value is not None])
    return {
        "pairs": pairs.folds,
        "mean": pairs.mean,
        "interval": [pairs.low, pairs.high],
        "folds": means.folds,
        "interval over folds": [means.low, means.high],
    }


def _text(table: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| recipe | trainings | iterations | mask AP | AP50 | small | medium | large | difference "
        "| over folds and seeds | over folds | training, s | beside it, s |",
        "|---|" + "---:|" * 12,
    ]
    for row in table:
        values = [f"{row['trainings']}", shown(row["iterations"], 0)]
        values += [shown(row[name]) for name in ("AP", "AP50", "APs", "APm", "APl")]
        gain = row["difference"]
        values += ["", "", ""] if gain is None else [f"{gain['mean']:+.1f}", span(gain["interval"])]
        values += [] if gain is None else [span(gain["interval over folds"])]
        values += [shown(row["training_s"], 0), shown(row["rest_s"], 0)]
        lines.append(f"| {row['recipe']} | {' | '.join(values)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
