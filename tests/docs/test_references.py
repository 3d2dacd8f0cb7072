"""The generated pages: of each command, key and function what the code says, and nothing missing."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

import d2tune
import d2tune.api
from d2tune.project.schema import Project
from tests.docs.blocks import ROOT
from tools.docs_site import commands, docstrings, keys, python_reference
from tools.docs_site.notebook import notebook_page


def test_each_command_has_a_section_with_all_its_options() -> None:
    page = commands.command_reference()
    sections = dict(re.findall(r"^## d2tune (\S+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert {"train", "eval", "predict", "serve", "label-loop"} < sections.keys()
    for option in ("--config FILE", "--resume", "--num-gpus N", "[PROJECT.yaml key=value ...]"):
        assert f"`{option}`" in sections["train"]
    assert "| `--video {mp4,webm,none}` | the drawn video" in sections["predict"]
    assert "(default: RUN/predictions; of a package predictions_NAME)" in re.sub(r"\\", "", sections["predict"])
    assert "--colour-map" not in page, "hidden options stay hidden"
    assert "--help" not in sections["train"]


def test_arguments_are_written_with_their_values_and_defaults() -> None:
    parser = argparse.ArgumentParser(prog="d2tune a", description="Do a | b.")
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="what <to> read")
    group = parser.add_argument_group("more of it")
    group.add_argument("--size", "-s", default=3, help="of *it* (default: %(default)s)")
    group.add_argument("--mode", choices=["x", "y"], help="x | y")
    group.add_argument("--hidden", help=argparse.SUPPRESS)
    section = commands._command("a", parser)
    assert "| `SOURCE ...` | what &lt;to> read |" in section
    assert "**More of it**" in section
    assert "| `--size SIZE`, `-s SIZE` | of \\*it\\* (default: 3) |" in section
    assert "| `--mode {x,y}` | x \\| y |" in section
    assert "| `--hidden" not in section


def test_each_key_of_the_schema_has_a_row_with_its_values_default_and_meaning() -> None:
    page = keys.key_reference()
    for place, section in keys.sections_of(Project):
        for name in section.model_fields:
            key = f"{place}.{name}" if place else name
            assert f"\n| `{key}` | " in page
    assert "| `train.image_size` | a whole number from 32 to 4096, or original | `640` | Short side in pixels" in page
    assert "| `data.root` | a path | required | Folder of the data" in page
    assert "| `name` | text | the file's name |" in page
    assert "| `classes` | a list of names | `[]` |" in page
    assert "| `train.scale_jitter` | a list of 2, each a number | `[0.6, 1.2]` |" in page
    assert "| `data.label_images` | [section](#datalabel_images) |" in page


def test_the_python_page_has_every_function_of_the_package() -> None:
    page = python_reference.python_reference(ROOT)
    functions = {name for name in [*d2tune.__all__, *d2tune.api.__all__] if name.islower()}
    assert functions <= set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert "d2tune.api.compare(\n    a: str | Path,\n    b: str | Path,\n    *,\n" in page
    assert "class d2tune.inference.results.Detections" in page
    assert "masks: NDArray[np.bool_]" in page
    assert "- `min_score`: " in page
    assert "``" not in re.sub("```", "", page)


def test_a_name_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d2tune" / "api").mkdir(parents=True)
    (tmp_path / "d2tune" / "api" / "__init__.py").touch()
    (tmp_path / "d2tune" / "a.py").write_text("def b(x, *y, z=1, **w): pass\n")
    monkeypatch.setattr(python_reference, "PUBLIC", (("A", "", (("d2tune.a", ("c",)),)),))
    with pytest.raises(ValueError, match=r"d2tune\.a has no c; it has b"):
        python_reference.python_reference(tmp_path)
    monkeypatch.setattr(python_reference, "PUBLIC", (("A", "", (("d2tune.a", ("b",)),)),))
    with pytest.raises(ValueError, match="b has no docstring"):
        python_reference.python_reference(tmp_path)


def test_signatures(tmp_path: Path) -> None:
    code = 'def b(x, /, y: int = 2, *z: str, key=None, **rest: int) -> str:\n    """Do it."""\n'
    (tmp_path / "d2tune").mkdir()
    (tmp_path / "d2tune" / "a.py").write_text(code)
    (node,) = python_reference._definitions(tmp_path, "d2tune.a")
    assert python_reference._signature(node) == "b(x, y: int = 2, *z: str, key=None, **rest: int) -> str"


def test_docstrings_are_divided_into_their_sections() -> None:
    parsed = docstrings.parse(
        """Read it.

        More ``of it``.

        Args:
            path: A file
                on two lines.
            *more: Others: two.

        Returns:
            The content,
            as text.

        Raises:
            ValueError: It is empty.
        """
    )
    assert parsed.text == "Read it.\n\nMore ``of it``."
    assert parsed.entries == {
        "Args": {"path": "A file on two lines.", "*more": "Others: two."},
        "Returns": {"": "The content, as text."},
        "Raises": {"ValueError": "It is empty."},
    }
    assert docstrings.first_paragraph("A ``b`` c.\n\nAttributes:\n    d: e") == "A `b` c."
    with pytest.raises(ValueError, match="belongs to no name"):
        docstrings.parse("A.\n\nArgs:\n    no colon here")


def test_a_notebook_is_a_page_with_its_text_code_and_output(tmp_path: Path) -> None:
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(
        '{"cells": [{"cell_type": "markdown", "source": ["# A"]}, {"cell_type": "code", "source": ["x = 1\\n", "x"], '
        '"outputs": [{"output_type": "execute_result", "data": {"text/plain": ["1"]}}]}, '
        '{"cell_type": "markdown", "source": "end"}]}'
    )
    expected = (
        "# A\n\nThis page is the notebook `docs/a.ipynb`.\n\n```python\nx = 1\nx\n```\n\n```text\n1\n```\n\nend\n"
    )
    assert notebook_page(notebook) == expected
