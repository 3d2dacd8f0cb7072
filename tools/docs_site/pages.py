"""All pages of the site as Markdown in one folder: copies, notebooks, and pages generated from the code."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tools.docs_site.commands import command_reference
from tools.docs_site.drawings import DRAWINGS
from tools.docs_site.keys import key_reference
from tools.docs_site.notebook import notebook_page
from tools.docs_site.python_reference import python_reference

ROOT = Path(__file__).resolve().parents[2]

MOVED = {"../benchmarks/README.md": "benchmarks.md", "../CHANGELOG.md": "changelog.md", "../README.md": "index.md"}
"""Links out of ``docs`` to files that the site has as pages."""


def write_pages(out: Path) -> list[Path]:
    """Write the Markdown of all pages, and what they show.

    Args:
        out: A folder; what is in it is replaced.

    Returns:
        The pages, relative to the folder.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns(".*", "*.ipynb"))
    for page in out.rglob("*.md"):
        _write(page, _links_within(page.read_text(encoding="utf-8"), MOVED))
    for place, text in generated_pages().items():
        _write(out / place, text)
    return sorted(page.relative_to(out) for page in out.rglob("*.md"))


def generated_pages() -> dict[str, str]:
    """The pages and drawings that are not files in ``docs``, by their paths in the site."""
    pages = {
        "reference/commands.md": command_reference(),
        "reference/project_file.md": key_reference(),
        "reference/python.md": python_reference(ROOT),
        "decisions/index.md": _decisions(),
        "benchmarks.md": _moved("benchmarks/README.md"),
        "changelog.md": _moved("CHANGELOG.md"),
    }
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        pages[f"{path.stem}.md"] = notebook_page(path)
    return pages | {f"drawings/{name}.svg": draw() for name, draw in DRAWINGS.items()}


def _decisions() -> str:
    lines = ["# Decisions", "", "What was decided, why, and what was rejected.", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def _moved(file: str) -> str:
    """A page from outside ``docs``; its links to pages in ``docs`` go to those of the site."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return re.sub(
        r"\]\((?:\.\./)?docs/([^)]*?)(\.ipynb)?\)", lambda link: f"]({link[1]}{'.md' if link[2] else ''})", text
    )


def _links_within(text: str, moved: dict[str, str]) -> str:
    for link, page in moved.items():
        text = text.replace(f"]({link}", f"]({page}")
    return text


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
