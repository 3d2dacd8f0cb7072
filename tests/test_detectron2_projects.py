"""Modules of Detectron2's projects without their packages' ``__init__``."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import detectron2.projects
import pytest

from d2tune.detectron2_projects import project_module
from d2tune.errors import MachineError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project named ``kites`` beside Detectron2's own, whose ``__init__`` counts how often it runs."""
    folder = tmp_path / "kites"
    folder.mkdir()
    (folder / "pieces.py").write_text("class Tail: ...\nLENGTH_PX = 9\n", encoding="utf-8")
    (folder / "wings.py").write_text("from detectron2.projects.kites import Tail\n", encoding="utf-8")
    (folder / "__init__.py").write_text(
        "import sys\nsys.kites += 1\nfrom .pieces import Tail\nfrom .wings import Tail as Again\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(detectron2.projects, "__path__", [*detectron2.projects.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "kites", 0, raising=False)
    yield folder
    for name in [name for name in sys.modules if name.startswith("detectron2.projects.kites")]:
        del sys.modules[name]
    if hasattr(detectron2.projects, "kites"):
        del detectron2.projects.kites


def test_a_module_is_imported_without_the_package_around_it(project: Path) -> None:
    pieces = project_module("kites.pieces")
    assert pieces.LENGTH_PX == 9 and sys.kites == 0
    assert project_module("kites.wings").Tail is pieces.Tail, "names of imported modules are those of the package"
    assert sys.kites == 0 and project_module("kites.pieces") is pieces


def test_the_package_runs_once_when_somebody_needs_it(project: Path) -> None:
    pieces = project_module("kites.pieces")
    import detectron2.projects.kites as kites

    assert sys.kites == 0
    assert kites.Again is pieces.Tail and sys.kites == 1
    assert importlib.import_module("detectron2.projects.kites") is detectron2.projects.kites is kites
    assert project_module("kites.pieces") is pieces
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = kites.nothing_of_this_name
    assert sys.kites == 1


def test_a_package_that_was_imported_before_is_left_as_it_is(project: Path) -> None:
    kites = importlib.import_module("detectron2.projects.kites")
    assert project_module("kites.pieces").Tail is kites.Tail
    assert sys.kites == 1 and not hasattr(kites, "LENGTH_PX")


def test_a_package_that_cannot_run_says_why_each_time(project: Path) -> None:
    (project / "__init__.py").write_text("import a_module_that_is_gone\n", encoding="utf-8")
    pieces = project_module("kites.pieces")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_gone"):
            from detectron2.projects.kites import Again  # noqa: F401
    assert project_module("kites.pieces") is pieces


def test_a_project_that_is_not_there_is_named() -> None:
    with pytest.raises(MachineError, match=r"does not have detectron2\.projects\.boats"):
        project_module("boats.config")
