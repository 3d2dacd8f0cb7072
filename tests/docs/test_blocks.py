"""Every block of the documentation is right: commands as their parsers see them, Python, YAML and JSON."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import d2tune
import d2tune.api
from d2tune.project import load_project
from tests.docs.blocks import Block, blocks, commands, inline_code, written_pages
from tests.docs.command_lines import d2tune_problem, problem
from tools.docs_site.commands import commands as all_commands
from tools.docs_site.pages import write_pages

LANGUAGES = {"bash", "python", "yaml", "json", "text"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """README.md and all pages of the site, those that are generated too."""
    folder = tmp_path_factory.mktemp("pages")
    return [written_pages()[0], *(folder / page for page in write_pages(folder))]


def all_blocks(pages: list[Path], *languages: str) -> list[Block]:
    return [block for page in pages for block in blocks(page, *languages)]


def test_every_block_says_its_language(pages: list[Path]) -> None:
    unknown = [str(block) for block in all_blocks(pages) if block.language not in LANGUAGES]
    assert not unknown


def test_every_command_of_a_block_is_parsed_by_its_parser(pages: list[Path]) -> None:
    known = [(block, command) for block in all_blocks(pages, "bash") for command in commands(block.text)]
    assert len(known) > 60
    wrong = [f"{block}: {command}: {reason}" for block, command in known if (reason := problem(command))]
    assert not wrong, "\n".join(wrong)


def test_every_command_in_a_text_exists_with_its_options(pages: list[Path]) -> None:
    options = {
        name: {option for action in parser._actions for option in action.option_strings}
        for name, _, parser in all_commands()
    }
    wrong = []
    for page in pages:
        if page.name == "changelog.md":
            continue  # it also names what is no longer there
        for code in inline_code(page):
            words = code.split()
            if code.startswith("d2tune ") and re.fullmatch("[a-z][a-z-]+", words[1]):
                given = {word.partition("=")[0] for word in words if word.startswith("--")}
                if words[1] not in options or given - options[words[1]] - {"--help", "--debug"}:
                    wrong.append(f"{page.name}: {code}")
    assert not wrong, "\n".join(wrong)


def calls(block: Block) -> Iterator[ast.Call]:
    """Calls of functions of ``d2tune`` in a block of Python, which must be valid."""
    code = "\n".join(line for line in block.text.splitlines() if not line.startswith("!"))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if owner in ("d2tune", "d2tune.api"):
                yield node


def test_python_is_valid_and_calls_functions_with_arguments_that_they_have(pages: list[Path]) -> None:
    checked, wrong = 0, []
    for block in all_blocks(pages, "python"):
        if block.page.parent.name == "reference":
            continue  # signatures
        for call in calls(block):
            assert isinstance(call.func, ast.Attribute)
            name, owner = call.func.attr, ast.unparse(call.func.value)
            module = d2tune if owner == "d2tune" else d2tune.api
            if name not in module.__all__:
                wrong.append(f"{block}: {owner} has no {name}")
                continue
            checked += 1
            parameters = inspect.signature(getattr(module, name)).parameters
            if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
                unknown = {keyword.arg for keyword in call.keywords} - set(parameters)
                wrong += [f"{block}: {name} has no argument {argument}" for argument in unknown]
    assert not wrong, "\n".join(wrong)
    assert checked > 10


def test_the_commands_of_the_notebook_are_parsed(pages: list[Path]) -> None:
    (tour,) = [page for page in pages if page.name == "tour.md"]
    lines = [line[1:] for block in blocks(tour, "python") for line in block.text.splitlines() if line.startswith("!")]
    assert len(lines) >= 3
    words = [shlex.split(line.format(images=24, result=SimpleNamespace(run="runs/a")))[1:] for line in lines]
    assert not [reason for command in words if (reason := d2tune_problem(command))]


def test_every_block_of_yaml_with_data_is_a_project_file(pages: list[Path], tmp_path: Path) -> None:
    checked = 0
    for block in all_blocks(pages, "yaml"):
        keys = yaml.safe_load(block.text)
        if "data" in keys:
            path = tmp_path / "mine.yaml"
            path.write_text(block.text, encoding="utf-8")
            assert load_project(path, hardware="cpu").project.name == "mine", str(block)
            checked += 1
    assert checked >= 8


def test_every_block_of_json_is_json(pages: list[Path]) -> None:
    checked = all_blocks(pages, "json")
    assert len(checked) >= 3
    for block in checked:
        json.loads(block.text)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("d2tune train projects/mine.yaml --epoch 3", "unrecognized arguments: --epoch"),
        ("d2tune trian projects/mine.yaml", "invalid choice"),
        ("d2tune predict", "required: MODEL"),
        ("d2tune eval RUN --metrics mask", "invalid choice"),
        ("python tools/train_net.py --config a.yaml --gpus 2", "unrecognized arguments: --gpus"),
        ("python benchmarks/nothing.py", "does not exist"),
        ("python benchmarks/serving.py MODEL --photos a", "has no --photos"),
        ("make trian", "no trian"),
        ("make train PROJEKT=mine", "no PROJEKT"),
        ("pip install 'd2tune[serv]'", "no extra serv"),
        ("OMP_NUM_THREADS=1 srun d2tune merge", "required"),
        ("docker build --file deploy/Dockerfile.gpu .", "deploy/Dockerfile.gpu does not exist"),
        ("wget https://example.org", "no test knows"),
    ],
)
def test_a_command_that_is_wrong_is_noticed(command: str, expected: str) -> None:
    assert expected in (problem(command) or "")


def test_blocks_are_read_with_their_lines_and_commands(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n1. b\n\n   ```bash\n   # c\n   d2tune a \\\n     b  # d\n   ```\n\n```json\n{}\n```\n`e f`\n")
    first, second = blocks(page)
    assert (first.line, first.language, list(commands(first.text))) == (6, "bash", ["d2tune a    b"])
    assert (second.line, second.text) == (12, "{}\n")
    assert list(inline_code(page)) == ["e f"]
