"""Whether a command line could run: the program, its options and the files of the project that it names."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence

from d2tune.cli import _parse
from d2tune.errors import D2TuneError
from tests.docs.blocks import ROOT

_MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
_TARGETS = set(re.findall(r"^([a-z-]+):", _MAKEFILE, re.MULTILINE))
_VARIABLES = set(re.findall(r"^([A-Z0-9]+) \?=", _MAKEFILE, re.MULTILINE))
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*")
_SCRIPTS = {"edge/runner.py": "d2tune/export/runner.py", "exported/runner.py": "d2tune/export/runner.py"}
"""Scripts that a command of d2tune writes, and their sources."""


def problem(command: str) -> str | None:
    """Why a command line cannot be right; None if it is."""
    words = shlex.split(command, comments=True)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    name, *rest = words
    if name not in _PROGRAMS:
        return f"no test knows the program {name}"
    return _PROGRAMS[name](rest)


def d2tune_problem(words: Sequence[str]) -> str | None:
    """What the real parser says of the words after ``d2tune``."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            _parse(list(words))
    except SystemExit as end:
        return errors.getvalue().strip().splitlines()[-1] if end.code else None
    except D2TuneError as error:
        return error.one_line()
    return None


def _make(words: Sequence[str]) -> str | None:
    names = {word.partition("=")[0] for word in words if "=" in word} - _VARIABLES
    targets = {word for word in words if "=" not in word} - _TARGETS
    return f"the Makefile has no {', '.join(sorted(names | targets))}" if names or targets else None


def _python(words: Sequence[str]) -> str | None:
    if words[0] == "-m":
        return None if words[1] in ("build", "tools.docs_site") else f"no test knows python -m {words[1]}"
    if words[0] == "tools/train_net.py":
        return d2tune_problem(["train", *words[1:]])
    source = ROOT / _SCRIPTS.get(words[0], words[0])
    if not source.is_file():
        return f"{words[0]} does not exist"
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    text = source.read_text(encoding="utf-8")
    missing = [option for option in options if f'"{option}"' not in text]
    return f"{words[0]} has no {', '.join(missing)}" if missing else None


def _pip(words: Sequence[str]) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    named = {extra for word in words for extra in re.findall(r"^(?:d2tune|\.)\[(\w+)\]$", word)}
    return f"there is no extra {', '.join(named - extras)}" if named - extras else None


def _files(words: Sequence[str]) -> str | None:
    """A program that is not of this project: the files of the project that it is given exist."""
    named = [word for word in words if word.startswith(("deploy/", "benchmarks/", "tools/"))]
    missing = [word for word in named if not (ROOT / word).exists()]
    return f"{missing[0]} does not exist" if missing else None


def _srun(words: Sequence[str]) -> str | None:
    return problem(shlex.join(words))


def _wandb(words: Sequence[str]) -> str | None:
    """What W&B's own command says of its subcommands and options."""
    from click import Context
    from wandb.cli.cli import cli

    command, context = cli, Context(cli)
    while words and hasattr(command, "get_command") and (inner := command.get_command(context, words[0])):
        command, words = inner, words[1:]
    if command is cli:
        return f"wandb has no {' '.join(words)}"
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    return f"wandb {command.name} has no {unknown[0]}" if unknown else None


_PROGRAMS: dict[str, Callable[[Sequence[str]], str | None]] = {
    "d2tune": d2tune_problem,
    "make": _make,
    "python": _python,
    "pip": _pip,
    "srun": _srun,
    "docker": _files,
    "kubectl": _files,
    "curl": _files,
    "wandb": _wandb,
}
