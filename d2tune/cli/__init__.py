"""The command ``d2tune``: parse, call one function, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from d2tune.cli import (
    annotate,
    check,
    compare,
    convert,
    data,
    doctor,
    evaluate,
    new,
    predict,
    sample,
    setup,
    split,
    train,
)
from d2tune.errors import D2TuneError, printable

_COMMANDS = (setup, doctor, new, sample, data, annotate, convert, check, split, train, evaluate, compare, predict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words after ``d2tune``; None takes the process's own.

    Returns:
        The exit status: 0, or 1 after an error that was printed as one line.
    """
    options = _parse(arguments)
    from d2tune.hardware import yield_idle_cores
    from d2tune.logs import set_up_terminal

    yield_idle_cores()
    set_up_terminal(debug=options.debug)
    try:
        return int(options.run(options))
    except D2TuneError as error:
        if options.debug:
            raise
        print(f"error: {error.one_line()}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader of a pipe, such as `head`, has closed it; without this Python complains once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if options.debug:
            raise
        print(printable(f"error: {error.filename or 'the system'}: {error.strerror or error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (options.command_name != "train" or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        # argparse gives a list of words once; overrides may also follow a later option
        options.words = [*options.words, *rest]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="d2tune", description="Fine-tune Detectron2 on your own polygons.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and every log line")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add(commands)
    return parser
