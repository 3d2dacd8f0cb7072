"""The result of a split, as text for the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from d2tune.annotations.splitting.splits import Split
from d2tune.report.tables import format_table
from d2tune.text import counted, printable

_MOST_SHARES = 4


def split_report(made: Split) -> str:
    """The notes of the split, a table of its counts, and its warnings.

    Args:
        made: The split. With more than four splits, the table has no percentages.
    """
    counts = made.counts()
    rows = []
    for key in next(iter(counts.values())):
        total = sum(split[key] for split in counts.values())
        cells = [_cell(split[key], total, with_share=len(counts) <= _MOST_SHARES) for split in counts.values()]
        rows.append([printable(key.removeprefix("class ")), str(total), *cells])
    width = max(len(cell) for row in rows for cell in row[2:])
    header = ["", "total", *(split.rjust(width) for split in counts)]
    lines = [
        f"{counted(len(made.dataset.images), 'image')}, {made.dataset.objects_in_words()}, "
        f"{counted(len(made.groups), 'group')}",
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
    """The names of the lists, and the line of a project file that uses them.

    Args:
        made: The split.
        out: The folder that it was written to.
        source: Where the annotations were read from.
    """
    import yaml

    root = Path(made.dataset.image_root or source).absolute()
    folds = [split for split in made.splits if split.startswith("fold")]
    names = [name for name in made.lists() if "/" not in name]
    names += [f"{folds[0]} to {folds[-1]} with train.txt and val.txt each"] if folds else []
    keys = {"root": str(root)}
    if source.absolute() != root:
        keys["annotations"] = Path(os.path.relpath(source.absolute(), root)).as_posix()
    inside = out.absolute()
    inside = inside.relative_to(root) if inside.is_relative_to(root) else inside
    for split in ("train", "val"):
        keys[split] = (inside / (folds[0] if folds else "") / f"{split}.txt").as_posix()
    data = yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000).strip()
    lines = (f"written to {out}: {', '.join([*names, 'split.yaml'])}", f"in a project file: data: {data}")
    return "\n".join(map(printable, lines))
