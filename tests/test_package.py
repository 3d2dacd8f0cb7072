import ast
import subprocess
import sys
from collections.abc import Iterator

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


POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
WITHOUT_POSIX = f"""
import builtins, importlib, pkgutil
real_import = builtins.__import__

def import_on_windows(name, globals=None, *rest, **named):
    if name.partition(".")[0] in {POSIX_ONLY} and (globals or {{}}).get("__name__", "").startswith("d2tune"):
        raise ModuleNotFoundError(f"no module named {{name!r}} on Windows", name=name)
    return real_import(name, globals, *rest, **named)

builtins.__import__ = import_on_windows
import d2tune
names = [found.name for found in pkgutil.walk_packages(d2tune.__path__, "d2tune.")]
for name in names:
    importlib.import_module(name)
print(*names)
"""


def test_importing_it_imports_nothing_heavy() -> None:
    assert imported_by("import d2tune") == set()


@pytest.mark.parametrize(
    "module", ["d2tune.annotations.convert", "d2tune.project", "d2tune.report.sheets.contact_sheet"]
)
def test_rooms_that_need_neither_torch_nor_detectron2(module: str) -> None:
    assert not imported_by(f"import {module}") & {"torch", "detectron2"}


def test_its_functions() -> None:
    assert sorted(d2tune.__all__) == [
        "compare",
        "compare_models",
        "convert",
        "evaluate",
        "evaluate_files",
        "load_predictor",
        "load_project",
        "merge",
        "package",
        "predict",
        "predict_video",
        "track",
        "train",
        "write_report",
    ]
    assert all(callable(getattr(d2tune, name)) for name in d2tune.__all__)
    with pytest.raises(AttributeError):
        d2tune.nonsense  # noqa: B018


def test_tools_hold_no_logic() -> None:
    for path in (ROOT / "tools").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 15, path.name


@pytest.mark.slow
def test_every_module_is_imported_where_modules_of_posix_are_missing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    commands = {f"d2tune.cli.{path.stem}" for path in (ROOT / "d2tune" / "cli").glob("*.py")} - {"d2tune.cli.__init__"}
    assert commands | {"d2tune.api", "d2tune.engine", "d2tune.install.detectron2"} <= set(names)


def test_functions_import_modules_of_posix_only_with_another_way() -> None:
    """An import inside a function does not run with the module's own, so the code is searched for them."""
    for path in (ROOT / "d2tune").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if not any(name in source for name in POSIX_ONLY):
            continue
        tree = ast.parse(source)
        alone = {name for node in _outside_of_tries(tree) for name in _imported(node)}
        assert not alone & POSIX_ONLY, path


def _outside_of_tries(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below ``node``, less the bodies of tries that catch a failing import."""
    for child in ast.iter_child_nodes(node):
        yield child
        caught = {ast.unparse(handler.type) for handler in getattr(child, "handlers", ()) if handler.type}
        if isinstance(child, ast.Try) and caught & {"ImportError", "ModuleNotFoundError"}:
            for other in (*child.handlers, *child.orelse, *child.finalbody):
                yield from _outside_of_tries(other)
        else:
            yield from _outside_of_tries(child)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [str(node.module).partition(".")[0]] if isinstance(node, ast.ImportFrom) else []
