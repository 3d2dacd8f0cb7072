"""``d2tune runs``: the runs that there are; ``d2tune runs rm`` removes old ones."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import TYPE_CHECKING

from d2tune.cli.shared import add_command, given, name
from d2tune.errors import ProjectError

if TYPE_CHECKING:
    from d2tune.cli.shared import Commands

_REMOVING, _LISTING = ("older_than", "yes"), ("sort", "reverse", "states", "data", "last", "watch")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "runs", run, "list runs with state, metric, data and size; runs rm removes old ones")
    parser.add_argument(
        "words",
        nargs="*",
        type=name,
        metavar="[rm] PROJECT",
        help="a project by name or file, or a folder with runs (default: all in runs); rm removes old runs",
    )
    parser.add_argument(
        "--sort", metavar="KEY", help="started, metric, time, size, project, or state (default: started, newest first)"
    )
    parser.add_argument("--reverse", action="store_true", help="reverse the order")
    parser.add_argument(
        "--state",
        dest="states",
        metavar="STATE,...",
        help="only runs in these states: running, finished, stopped, failed, damaged",
    )
    parser.add_argument("--data", metavar="HASH", help="only runs whose training or validation data have this hash")
    parser.add_argument("--last", type=int, metavar="N", help="only the first N runs of the order")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=2.0, metavar="SECONDS", help="list again and again (default: every 2 s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--older-than", metavar="AGE", help="for rm: runs that ended longer ago: 12h, 30d, 2w")
    parser.add_argument("--yes", action="store_true", help="for rm: remove them; without it nothing is changed")


def run(options: argparse.Namespace) -> int:
    """List or remove."""
    words = options.words if "words" in options else []
    removes = words[:1] == ["rm"]
    projects = words[1:] if removes else words
    if len(projects) > 1:
        hint = "Name one, or a folder that has the runs of all."
        raise ProjectError("one project can be named", found=" ".join(projects), hint=hint)
    for option in given(options, *(_LISTING if removes else _REMOVING)):
        way = "does not go with rm" if removes else "goes with rm"
        written = {"states": "state"}.get(option, option).replace("_", "-")
        raise ProjectError(
            f"--{written} {way}", hint="Remove it." if removes else "Use `d2tune runs rm --older-than AGE`."
        )
    return _remove(options, *projects) if removes else _list(options, *projects)


def _list(options: argparse.Namespace, project: str | None = None) -> int:
    from d2tune import api
    from d2tune.runs.overview_table import runs_table
    from d2tune.runs.watching import watch

    chosen = given(options, "sort", "reverse", "data", "last")
    if "states" in options:
        chosen["states"] = [state.strip() for state in options.states.split(",")]

    def text(width: int | None) -> str:
        runs = api.runs(project, **chosen)
        if "json" in options:
            return json.dumps([one.to_json() for one in runs], indent=None if "watch" in options else 2)
        return runs_table(runs, width=width)

    if "watch" in options:
        watch(text, every_s=options.watch)
    else:
        print(text(shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    return 0


def _remove(options: argparse.Namespace, project: str | None = None) -> int:
    from d2tune import api

    if "older_than" not in options:
        raise ProjectError("--older-than is missing", expected="an age such as 12h, 30d or 2w")
    removal = api.remove_runs(options.older_than, project, remove="yes" in options)
    print(json.dumps(removal.to_json(), indent=2) if "json" in options else removal.text)
    return 0
