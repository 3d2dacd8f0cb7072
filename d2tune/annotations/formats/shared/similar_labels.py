"""Labels that differ so little that they may be meant as one class."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from unicodedata import combining, normalize

from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.findings import Finding, Level
from d2tune.text import counted

_RARE = 10
"""A label is a warning where the similar one occurs this many times as often."""

_LEAST_LETTERS = 4
"""Shorter labels that differ by a letter, such as car and cat, are other words."""

_SEPARATORS = re.compile(r"[\s_\-./]+")


def similar_labels(datasets: Sequence[Dataset]) -> list[list[Finding]]:
    """Findings about pairs of labels that differ by a letter, by their plural, by accents, or by separators.

    Labels that differ by case alone have a finding of their own; a digit more or less names another thing.

    Args:
        datasets: The splits of a project, or a single source.

    Returns:
        For each dataset, those about labels whose rarer one occurs in it first.
    """
    total: Counter[str] = Counter()
    for dataset in datasets:
        total.update(dataset.counts())
    names = [name for name, count in total.items() if count]
    notes: list[list[Finding]] = [[] for _ in datasets]
    first_uses = _first_uses(datasets)
    for first, second in _pairs(names):
        rare, common = sorted((first, second), key=lambda name: (total[name], name))
        number, file = first_uses[rare]
        notes[number].append(_finding(rare, common, total, file))
    return notes


def _finding(rare: str, common: str, total: Counter[str], file: str) -> Finding:
    is_certain = _is_same_word(*sorted((_key(rare), _key(common)), key=len))
    level: Level = "warning" if is_certain or total[rare] * _RARE <= total[common] else "info"
    message = (
        f"the label {rare!r} ({counted(total[rare], 'time')}) differs little from {common!r} "
        f"({counted(total[common], 'time')})"
    )
    hint = (
        f"if they are one class, merge them: --rename {_word(f'{rare}={common}')}, or in a project "
        f"data: {{rename: {{{rare}: {common}}}}}"
    )
    return Finding(level, "similar_labels", file, message, hint=hint)


def _word(text: str) -> str:
    return f"'{text}'" if _SEPARATORS.search(text) and " " in text else text


def _first_uses(datasets: Sequence[Dataset]) -> dict[str, tuple[int, str]]:
    """The number of the first dataset and the first annotation file that have each label."""
    uses: dict[str, tuple[int, str]] = {}
    for number, dataset in enumerate(datasets):
        names = {category.id: category.name for category in dataset.categories}
        for one in dataset.instances:
            name = names[one.category_id]
            if name not in uses:
                image = dataset.images[one.image_id - 1]
                uses[name] = (number, image.annotation_file or image.file_name)
    return uses


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of labels that differ little, each once, in the order of the names."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        key = _key(name)
        for shorter in {key, key.removesuffix("es"), *(key[:at] + key[at + 1 :] for at in range(len(key)))}:
            groups[shorter].append(name)
    pairs = {pair for members in groups.values() for pair in combinations(members, 2)}
    order = {name: number for number, name in enumerate(names)}
    for first, second in sorted(pairs, key=lambda pair: (order[pair[0]], order[pair[1]])):
        if first.casefold() != second.casefold() and _differ_little(_key(first), _key(second)):
            yield first, second


def _key(name: str) -> str:
    """A label without case, accents and separators."""
    letters = (letter for letter in normalize("NFKD", name.casefold()) if not combining(letter))
    return _SEPARATORS.sub("", "".join(letters))


def _is_same_word(short: str, long: str) -> bool:
    """Whether two keys are equal, or the longer is the plural of the other."""
    return long in (short, f"{short}s", f"{short}es")


def _differ_little(first: str, second: str) -> bool:
    """Whether two keys are equal, or one edit of letters apart: one more, one other, or two that changed places."""
    short, long = sorted((first, second), key=len)
    if _is_same_word(short, long):
        return True
    if len(short) < _LEAST_LETTERS:
        return False
    start = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :] and long[start].isalpha()
    changed = short[start : start + 2] + long[start : start + 2]
    if short[start + 1 :] == long[start + 1 :]:
        return short[start].isalpha() and long[start].isalpha()
    swapped = short[start : start + 2] == long[start : start + 2][::-1]
    return swapped and changed.isalpha() and short[start + 2 :] == long[start + 2 :]
