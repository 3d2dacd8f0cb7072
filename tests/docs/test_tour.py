"""The notebook of the tour is executed on a small sample, from polygons to the page of the report."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.blocks import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
NUMBERS = "images, iterations, image_size = 120, 280, 224"
QUICK = "images, iterations, image_size = 10, 2, 96"


def test_the_notebook_is_kept_without_output() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 8
    assert not [cell.source for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the kernel's own libraries
def test_the_tour_leads_from_polygons_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.source == NUMBERS]
    cell.source = QUICK
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    work = tmp_path / "work"
    work.mkdir()
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(work)}}).execute()
    printed = "\n".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    assert "the first is a polygon of class 'balloon'" in printed
    assert "On 2 validation images the model detects" in printed
    assert "model.safetensors" in printed
    assert "error:" not in printed
    report = (work / "report.html").read_text(encoding="utf-8")
    assert "balloon" in report and "<img" in report
