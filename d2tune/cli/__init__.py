"""The command ``d2tune``: parse, call one function, print."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from d2tune.cli import (
    annotate,
    assemble,
    baseline,
    check,
    compare,
    convert,
    dashboard,
    data,
    doctor,
    evaluate,
    export,
    handover,
    info,
    kfold,
    label_loop,
    merge,
    new,
    outline,
    package,
    predict,
    preview,
    report,
    runs,
    sample,
    serve,
    setup,
    split,
    sweep,
    track,
    train,
)
from d2tune.errors import D2TuneError
from d2tune.files import cache_folder
from d2tune.logs import guarded_streams, set_up_terminal
from d2tune.text import printable

_COMMANDS = (
    setup,
    doctor,
    new,
    sample,
    data,
    annotate,
    outline,
    convert,
    check,
    split,
    preview,
    baseline,
    train,
    kfold,
    sweep,
    runs,
    evaluate,
    compare,
    assemble,
    report,
    package,
    info,
    export,
    predict,
    merge,
    track,
    serve,
    handover,
    label_loop,
    dashboard,
)


def main(arguments: Sequence[str] | None = None, *, in_own_process: bool = False) -> int:
    """Run a command.

    Args:
        arguments: Words after ``d2tune``; None takes the process's own.
        in_own_process: Whether the process ends with the command, which may then change how it uses memory.

    Returns:
        The exit status: 0, or 1 after an error that was printed as one line.
    """
    with guarded_streams():
        try:
            options = _parse(arguments)
        except D2TuneError as error:
            return _failed(error.one_line())
        return _run(options, in_own_process=in_own_process)


def command(arguments: Sequence[str] | None = None) -> int:
    """`main`, for a process that ends with it: memory is not searched for garbage once more when Python exits."""
    try:
        return main(arguments, in_own_process=True)
    finally:
        gc.freeze()


def _run(options: argparse.Namespace, *, in_own_process: bool) -> int:
    from d2tune.hardware import keep_freed_memory, yield_idle_cores

    yield_idle_cores()
    if in_own_process and options.runs_network:
        keep_freed_memory()
    set_up_terminal(debug=options.debug)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except D2TuneError as error:
        if options.debug:
            raise
        return _failed(error.one_line())
    except OSError as error:
        if options.debug:
            raise
        return _failed(_system_error(error))
    except UnicodeEncodeError as error:
        if options.debug:
            raise
        text = error.object[error.start : error.end]
        return _failed(
            f"the encoding of file names, {sys.getfilesystemencoding()}, lacks {text!a}. Set PYTHONUTF8=1, or a "
            "locale such as LC_ALL=C.UTF-8."
        )
    except KeyboardInterrupt as stop:
        print(printable(str(stop)) or "interrupted", file=sys.stderr)
        return 130


def _failed(line: str) -> int:
    print(f"error: {printable(line)}", file=sys.stderr)
    return 1


def _system_error(error: OSError) -> str:
    """The file, what the system says of it, and what to do where it is in the cache."""
    line = f"{error.filename or 'the system'}: {error.strerror or error}"
    cache = cache_folder().absolute()
    place = None if error.filename is None else Path(os.fsdecode(error.filename)).absolute()
    if place is not None and (place.is_relative_to(cache) or cache.is_relative_to(place)):
        line += f". The cache is in {cache}; name another folder in the environment variable D2TUNE_CACHE."
    return line


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    repeated: str = getattr(options, "repeated", "")
    if rest and (not repeated or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        # argparse gives a list of words once; more of them may also follow a later option
        setattr(options, repeated, [*(getattr(options, repeated, None) or []), *rest])
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="d2tune", description="Fine-tune Detectron2 on your own polygons.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and every log line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    return parser
