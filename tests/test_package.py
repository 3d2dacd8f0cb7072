import subprocess
import sys

import pytest

import d2tune
from tests.system.commands import ROOT


def imported_by(code: str) -> set[str]:
    """Heavy modules that a fresh process has loaded after running ``code``."""
    heavy = "{'torch', 'detectron2', 'numpy', 'cv2', 'pydantic', 'matplotlib'}"
    script = f"import sys; {code}; print(*({heavy} & set(sys.modules)))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_it_imports_nothing_heavy() -> None:
    assert imported_by("import d2tune") == set()


@pytest.mark.parametrize(
    "module", ["d2tune.annotations.convert", "d2tune.project", "d2tune.report.sheets.contact_sheet"]
)
def test_rooms_that_need_neither_torch_nor_detectron2(module: str) -> None:
    assert not imported_by(f"import {module}") & {"torch", "detectron2"}


def test_its_functions() -> None:
    functions = {"compare", "convert", "evaluate", "evaluate_files", "load_project", "predict", "train"}
    assert set(d2tune.__all__) == functions
    assert all(callable(getattr(d2tune, name)) for name in d2tune.__all__)
    with pytest.raises(AttributeError):
        d2tune.nonsense  # noqa: B018


def test_tools_hold_no_logic() -> None:
    for path in (ROOT / "tools").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 15, path.name
