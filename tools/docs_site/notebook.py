"""A notebook as a page: its text, its code, and the text that the code printed."""

from __future__ import annotations

import json
from pathlib import Path


def notebook_page(path: Path) -> str:
    """The page of a notebook, with a line that names the file.

    Args:
        path: The notebook, of nbformat 4.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    pieces = ["".join(cells[0]["source"]), f"This page is the notebook `docs/{path.name}`."]
    for cell in cells[1:]:
        source = "".join(cell["source"])
        pieces.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        pieces += [f"```text\n{text.rstrip()}\n```" for text in _printed(cell)]
    return "\n\n".join(pieces) + "\n"


def _printed(cell: dict[str, object]) -> list[str]:
    outputs = cell.get("outputs", [])
    assert isinstance(outputs, list)
    texts = ["".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs]
    return [text for text in texts if text.strip()]
