"""The page with every command, from the parser of ``d2tune`` itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from d2tune.cli import build_parser

_USAGE_WIDTH = 100
_INTRODUCTION = """\
# Commands

All commands of `d2tune`, as `d2tune COMMAND --help` lists them. A user's mistake is one line and exit status 1;
`--debug` before or after the command shows the traceback and every log line. Status 2 is a command line that cannot be
read, 130 an interruption.
"""


def command_reference() -> str:
    """The page: a table of all commands, then each with its usage and its arguments."""
    rows = [f"| [`d2tune {name}`](#d2tune-{name}) | {help_text} |" for name, help_text, _ in commands()]
    table = ["| command | what it does |", "|---|---|", *rows, ""]
    return "\n".join([_INTRODUCTION, *table, *(_command(name, parser) for name, _, parser in commands())])


def commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """The name, the help and the parser of each command; those of commands in commands have both names."""
    yield from _subcommands(build_parser(), "")


def _subcommands(parser: argparse.ArgumentParser, before: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                name, inner = f"{before}{choice.dest}", action.choices[choice.dest]
                yield name, _cell(str(choice.help)), inner
                yield from _subcommands(inner, f"{name} ")


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## d2tune {name}", "", _text(parser.description or ""), "", "```text", _usage(parser), "```", ""]
    for title, actions in _groups(parser):
        if title:
            lines += [f"**{title}**", ""]
        lines += ["| argument | what it does |", "|---|---|"]
        lines += [f"| {_name(action)} | {_meaning(parser, action)} |" for action in actions]
        lines.append("")
    return "\n".join(lines)


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """The arguments by group; those of no group have an empty title and come first."""
    positional, options, *titled = parser._action_groups
    groups = {"": [*positional._group_actions, *options._group_actions]}
    groups |= {_text(f"{str(group.title)[0].upper()}{str(group.title)[1:]}"): group._group_actions for group in titled}
    for title, actions in groups.items():
        if shown := [action for action in actions if _is_shown(action)]:
            yield title, shown


def _is_shown(action: argparse.Action) -> bool:
    hidden = action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction)
    return not hidden and not isinstance(action, argparse._HelpAction)


def _name(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{option} {value}`" if value else f"`{option}`" for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    choices = None if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
    metavar = action.metavar if isinstance(action.metavar, str) else None
    value = metavar or choices or (action.dest.upper() if action.option_strings else action.dest)
    return {"*": f"[{value} ...]", "+": f"{value} ...", "?": f"[{value}]"}.get(str(action.nargs), value).replace(
        "|", "\\|"
    )


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return _cell(parser._get_formatter()._expand_help(action)) if action.help else ""


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=_USAGE_WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    return formatter.format_help().strip()


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """A help text as Markdown shows it: angle brackets and asterisks stand for themselves."""
    pieces = " ".join(text.split()).split("`")
    for index in range(0, len(pieces), 2):
        for letter in "*_<":
            pieces[index] = pieces[index].replace(letter, f"\\{letter}" if letter != "<" else "&lt;")
    return "`".join(pieces)
