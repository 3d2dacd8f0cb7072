"""The page on the Python interface, from signatures and docstrings, which are read and not imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.docs_site.docstrings import parse, to_markdown

_INTRODUCTION = """\
# Python

What can be called from Python, with the signatures and docstrings of the code. `import d2tune` takes a fraction of a
second; each function imports the libraries that it needs. A mistake of the caller is an exception of `d2tune.errors`,
whose message is the line that the command prints.
"""
PUBLIC: tuple[tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (
        "Predictors and their results",
        "`d2tune.load_predictor` gives a `Predictor`; its result is one of those below, as the task of the model is.",
        (
            ("d2tune.inference.predictors.base", ("Predictor",)),
            ("d2tune.inference.results", ("Detections", "LabelMap", "Segment", "PanopticMap")),
        ),
    ),
    (
        "Results of functions",
        "",
        (
            ("d2tune.engine.result", ("TrainResult",)),
            ("d2tune.evaluation.summaries", ("EvaluationResult",)),
            ("d2tune.evaluation.comparison", ("RunComparison",)),
            ("d2tune.review.report", ("ReportResult",)),
            ("d2tune.video.result", ("VideoResult",)),
        ),
    ),
    (
        "Metrics",
        "They take arrays and know no models, so they score what any other program predicts.",
        (
            ("d2tune.metrics.coco.scorer", ("GroundTruth", "Detections", "InstanceScorer", "score_coco")),
            ("d2tune.metrics.semantic", ("SemanticScorer",)),
            ("d2tune.metrics.panoptic", ("PanopticScorer",)),
            ("d2tune.metrics.tracking", ("TrackingScorer", "TrackingMetrics")),
            ("d2tune.metrics.bootstrap", ("Interval", "interval", "Comparison", "paired_comparison")),
        ),
    ),
    (
        "Data sets",
        "What annotations of all formats are read into.",
        (("d2tune.annotations.model.dataset", ("Dataset", "Image", "Category", "Instance")),),
    ),
    (
        "Loggers and tracking of objects",
        "",
        (("d2tune.loggers.base", ("Logger", "RunInfo")), ("d2tune.video.tracker", ("Tracker",))),
    ),
    (
        "Errors",
        "",
        (
            (
                "d2tune.errors",
                (
                    "D2TuneError",
                    "ProjectError",
                    "DataError",
                    "PackageError",
                    "WeightsError",
                    "RunError",
                    "MachineError",
                ),
            ),
        ),
    ),
)
"""Sections of the page behind that of the functions: title, text, and the names by module."""

_FIRST = ("d2tune.api.training", "d2tune.api.results")
"""Modules whose functions come first."""

_FUNCTIONS = "The commands as functions. Those in `d2tune.__all__` are also `d2tune.NAME`."

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_reference(root: Path) -> str:
    """The page.

    Args:
        root: Folder of the package ``d2tune``.

    Raises:
        ValueError: A name of `PUBLIC` does not exist, or has no docstring.
    """
    lines = [_INTRODUCTION]
    for title, text, modules in (("Functions", _FUNCTIONS, _api(root)), *PUBLIC):
        lines += [f"## {title}", "", *([text, ""] if text else [])]
        for module, names in modules:
            known = {node.name: node for node in _definitions(root, module)}
            for name in names:
                if name not in known:
                    raise ValueError(f"{module} has no {name}; it has {', '.join(known)}")
                lines += _entry(module, known[name])
    return "\n".join(lines)


def _api(root: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The functions that ``d2tune.api`` imports from its modules."""
    path = root / "d2tune" / "api" / "__init__.py"
    imports = (node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom))
    names = {str(node.module): tuple(name.name for name in node.names if name.name.islower()) for node in imports}
    first = {module: place for place, module in enumerate(_FIRST)}
    modules = sorted(names, key=lambda module: first.get(module, len(first)))
    return tuple((module, names[module]) for module in modules if names[module])


def _definitions(root: Path, module: str) -> Iterator[ast.ClassDef | Function]:
    path = root.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | Function):
            yield node


def _entry(module: str, node: ast.ClassDef | Function) -> list[str]:
    place = "d2tune.api" if module.startswith("d2tune.api.") else module
    if not isinstance(node, ast.ClassDef):
        return [f"### {node.name}", "", *_code(f"{place}.{_signature(node)}"), *_documented(node)]
    lines = [f"### {node.name}", "", *_code(f"class {place}.{node.name}{_bases(node)}"), *_documented(node)]
    for method in node.body:
        if isinstance(method, Function) and _is_public(method):
            title = f"#### {node.name}.{method.name}".replace("__", r"\_\_")
            decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
            if "property" in decorators:
                lines += [title, "", *_code(f"{method.name}: {_type(method.returns)}")]
            else:
                lines += [title, "", *_code(_signature(method, is_method=True))]
            lines += _documented(method)
    return lines


def _is_public(method: Function) -> bool:
    return ast.get_docstring(method) is not None and (method.name in ("__call__",) or not method.name.startswith("_"))


def _documented(node: ast.ClassDef | Function) -> list[str]:
    docstring = ast.get_docstring(node)
    if docstring is None:
        raise ValueError(f"{node.name} has no docstring")
    parsed = parse(docstring)
    lines = [to_markdown(parsed.text), ""]
    for section, entries in parsed.entries.items():
        title = {"Args": "Arguments"}.get(section, section)
        if set(entries) == {""}:
            lines += [f"**{title}:** {to_markdown(entries[''])}", ""]
            continue
        lines += [f"**{title}**", ""]
        lines += [f"- `{name}`: {to_markdown(text)}" for name, text in entries.items()]
        lines.append("")
    return lines


def _bases(node: ast.ClassDef) -> str:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return f"({bases})" if bases else ""


def _type(annotation: ast.expr | None) -> str:
    return "Any" if annotation is None else ast.unparse(annotation)


def _signature(node: Function, *, is_method: bool = False) -> str:
    """The signature; on several lines where it is long."""
    arguments = _arguments(node.args)[1 if is_method else 0 :]
    end = f" -> {_type(node.returns)}"
    line = f"{node.name}({', '.join(arguments)}){end}"
    if len(line) <= 90:
        return line
    return f"{node.name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){end}"


def _arguments(arguments: ast.arguments) -> list[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    no_default = len(positional) - len(arguments.defaults)
    shown = [
        _argument(one, None if index < no_default else arguments.defaults[index - no_default])
        for index, one in enumerate(positional)
    ]
    if arguments.vararg is not None:
        shown.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    shown += [_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [*shown, f"**{_argument(arguments.kwarg, None)}"] if arguments.kwarg is not None else shown


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = "" if argument.annotation is None else f": {ast.unparse(argument.annotation)}"
    if default is None:
        return f"{argument.arg}{kind}"
    return f"{argument.arg}{kind}{' = ' if kind else '='}{ast.unparse(default)}"


def _code(text: str) -> list[str]:
    return ["```python", text, "```", ""]
