"""The notebooks of the exercises are executed with small numbers."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.blocks import ROOT
from tests.shared_files import SHARED

FOLDER = ROOT / "docs" / "exercises"
SKIN = SHARED / "data" / "skin" / "skin_nonskin.npz"


def executed(name: str, changes: dict[str, str], work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a notebook prints.

    Args:
        name: Its name.
        changes: Lines of its cells, and what stands there instead.
        work: The working folder.
        monkeypatch: Sets the environment of the kernel.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for line, other in changes.items():
        (cell,) = [cell for cell in notebook.cells if line in cell.source.splitlines()]
        cell.source = cell.source.replace(line, other)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(work / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(work / "matplotlib"))
    folder = work / "work"
    folder.mkdir()
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.text for output in outputs if output.get("name") == "stdout")


def test_the_notebooks_are_kept_without_output() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    assert names == ["baseline", "outlines", "self_organizing_map", "skin", "thresholds", "tissue"]
    for name in names:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


kernel = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the kernel's own libraries


@kernel
@pytest.mark.extended
def test_thresholds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = executed("thresholds", {}, tmp_path, monkeypatch)
    pairs = re.findall(r"Otsu +(\d+) +OpenCV +(\d+)", printed)
    assert len(pairs) == 8 and all(ours == theirs for ours, theirs in pairs)
    t, halfway = re.findall(r"threshold ([\d.]+), halfway ([\d.]+)", printed)[0]
    assert float(t) == pytest.approx(float(halfway), abs=1e-3)


@kernel
@pytest.mark.extended
def test_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = executed("self_organizing_map", {"side, step = 4, 2": "side, step = 4, 8"}, tmp_path, monkeypatch)
    ratios = [float(value) for value in re.findall(r"ratio ([\d.]+)", printed)]
    assert len(ratios) == 3 and max(ratios) <= 1.25


@kernel
@pytest.mark.extended
def test_outlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = executed("outlines", {}, tmp_path, monkeypatch)
    sizes = {name: int(count.replace(",", "")) for name, count in re.findall(r"(\S+) +([\d,]+) pixels", printed)}
    assert min(sizes.values()) > 10_000 and max(sizes.values()) < 200_000 and len(sizes) == 3


@kernel
@pytest.mark.extended
def test_skin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'table = "skin_nonskin.npz"  # bgr: (N, 3) uint8; skin: (N,) bool'
    printed = executed("skin", {line: f"table = {str(SKIN)!r}"}, tmp_path, monkeypatch)
    assert "51,444 different rows" in printed
    assert float(re.findall(r"IoU of skin ([\d.]+)", printed)[0]) >= 0.96


@kernel
@pytest.mark.extended
def test_tissue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = executed("tissue", {}, tmp_path, monkeypatch)
    scores = [float(value) for value in re.findall(r"Dice ([\d.]+)", printed)]
    assert len(scores) == 3 and min(scores) >= 0.92


@kernel
@pytest.mark.extended
def test_the_baseline_and_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"images, iterations, patch_size = 30, 240, 128": "images, iterations, patch_size = 6, 2, 64"}
    printed = executed("baseline", quick, tmp_path, monkeypatch)
    assert "The best classical method is" in printed
    assert "the network of runs/membranes" in printed
    assert "error:" not in printed
    assert "Without a network" in (tmp_path / "work" / "report.html").read_text(encoding="utf-8")
