"""What a split gave, as text for the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from d2tune.annotations.splitting.splits import Split
from d2tune.errors import printable
from d2tune.report.tables import format_table

_MOST_SHARES = 4


def split_report(made: Split) -> str:
    """How the groups came about, what each part got of everything, and what it lacks.

    Args:
        made: The split. With more than four parts, their shares in percent are left out.
    """
    counts = made.counts()
    rows = []
    for key in next(iter(counts.values())):
        total = sum(part[key] for part in counts.values())
        cells = [_cell(part[key], total, with_share=len(counts) <= _MOST_SHARES) for part in counts.values()]
        rows.append([printable(key.removeprefix("class ")), str(total), *cells])
    width = max(len(cell) for row in rows for cell in row[2:])
    header = ["", "total", *(part.rjust(width) for part in counts)]
    instances = len(made.dataset.instances)
    lines = [
        f"{len(made.dataset.images)} images, {instances} instances, {len(made.groups)} groups",
        *map(printable, made.notes),
        "",
    ]
    lines.append(format_table(rows, header=header, align="l" + "r" * (len(header) - 1)))
    if made.warnings:
        lines += ["", *(f"warning: {printable(line)}" for line in made.warnings)]
    return "\n".join(lines)


def _cell(count: int, total: int, *, with_share: bool) -> str:
    if not with_share:
        return str(count)
    return f"{count}  {100 * count / total:5.1f} %" if total else f"{count}       - "


def written_lists(made: Split, out: Path, source: Path) -> str:
    """Where the lists are, and how a project file names them.

    Args:
        made: The split.
        out: The folder that it was written to.
        source: Where the annotations were read.
    """
    import yaml

    root = Path(made.dataset.image_root or source).absolute()
    folds = [part for part in made.parts if part.startswith("fold")]
    told = [name for name in made.lists() if "/" not in name]
    told += [f"{folds[0]} to {folds[-1]} with train.txt and val.txt each"] if folds else []
    keys = {"root": str(root)}
    if source.absolute() != root:
        keys["annotations"] = Path(os.path.relpath(source.absolute(), root)).as_posix()
    inside = out.absolute()
    inside = inside.relative_to(root) if inside.is_relative_to(root) else inside
    for part in ("train", "val"):
        keys[part] = (inside / (folds[0] if folds else "") / f"{part}.txt").as_posix()
    data = yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000).strip()
    lines = (f"written to {out}: {', '.join([*told, 'split.yaml'])}", f"in a project file: data: {data}")
    return "\n".join(map(printable, lines))
