"""Writing a project file that fits a folder of images."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from d2tune import files
from d2tune.annotations.formats.shared.objects import CROWDS_HINT
from d2tune.annotations.formats.shared.similar_labels import similar_labels
from d2tune.annotations.io.output_record import PROJECT
from d2tune.annotations.io.outputs import refuse_existing, write_output
from d2tune.annotations.model.dataset import Category, Dataset
from d2tune.annotations.registry import FORMATS
from d2tune.annotations.splitting.splits import SplitOptions, make_split
from d2tune.errors import DataError, ProjectError
from d2tune.new_project.classes import Classes, choose_classes
from d2tune.new_project.contents import Contents, read_contents
from d2tune.new_project.document import Document
from d2tune.new_project.layout import Layout, find_layout, refuse_task
from d2tune.new_project.naming import name_classes
from d2tune.new_project.schedule import plan_schedule, val_fraction
from d2tune.project import load_project
from d2tune.project.names import is_name, safe_name
from d2tune.project.traits import TRAITS, TaskName
from d2tune.text import counted, printable

_CLASSES_NAMED = 12


@dataclass(frozen=True, slots=True)
class NewProject:
    """A project file that was written.

    Attributes:
        file: Where it is.
        lines: What was recognized, and what to know of it.
        next_command: What to run next.
    """

    file: Path
    lines: tuple[str, ...]
    next_command: str


@dataclass(frozen=True, slots=True)
class _Validation:
    """How the validation split is chosen: its value in the file, a comment, and a warning."""

    value: str | float
    comment: str
    warning: str | None = None


def new_project(
    name: str,
    data: str | Path,
    *,
    task: TaskName | None = None,
    classes: Sequence[str] = (),
    stuff: Sequence[str] = (),
    class_attribute: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> NewProject:
    """Look at a folder and write a project file that fits it.

    Args:
        name: Name of the project.
        data: Folder of images, annotated or not, or a file of annotations.
        task: What the project is for; None takes what the annotations are made for.
        classes: Class names, where the annotations have none or there are no annotations yet; of label images in the
            order of their values.
        stuff: Those of them that are regions, of a panoptic task.
        class_attribute: VIA region attribute that holds the class.
        out: The file; None is ``projects/NAME.yaml``, or ``NAME.yaml`` where there is no folder ``projects``.
        force: Whether a file is replaced that this wrote before, and that was not changed since.

    Raises:
        DataError: The folder is missing, empty or unreadable.
        ProjectError: The name is invalid, the file exists, or classes must be named.
    """
    file = _target(name, out, force=force)
    layout = find_layout(Path(data), task=task)
    task = task or _usual_task(layout)
    refuse_task(layout, task)
    with tempfile.TemporaryDirectory(prefix="d2tune-") as scratch:
        naming = name_classes(layout, classes, class_attribute=class_attribute)
        contents = read_contents(layout, naming, scratch=Path(scratch))
        chosen = choose_classes(task, layout, naming, contents, stuff)
        validation = _validation(layout, contents)
        if TRAITS[task].needs_every_class and contents.is_annotated and not contents.errors:
            chosen = _trained(chosen, contents, validation, layout)
    images = _images_to_train_on(contents, validation)
    document = Document(
        title=f"{name}: {FORMATS[layout.format].title if contents.is_annotated else 'images'} in {layout.root}",
        task=task,
        root=_root_for(layout.root, file),
        layout=layout,
        naming=naming,
        classes=chosen,
        counts=contents.counts(),
        val=validation.value,
        val_comment=validation.comment,
        schedule=plan_schedule(
            task, images=images, short_side_px=contents.short_side_px, are_photos=contents.are_photos
        ),
        images=images,
        is_annotated=contents.is_annotated,
    )
    _write(file, document.text())
    stops = bool(contents.errors or validation.warning)
    lines = tuple(_lines(layout, contents, chosen, validation))
    return NewProject(file, lines, _next_command(file, contents, stops=stops))


def _write(file: Path, text: str) -> None:
    """Write a project file that loads with every profile; an earlier file stays if it does not."""
    unchecked = file.with_name(f"{file.stem}.unchecked{file.suffix}")
    try:
        files.write_text(unchecked, text)
        for hardware in ("gpu", "cpu"):
            load_project(unchecked, hardware=hardware)
        write_output(file, text.encode("utf-8"), kind=PROJECT)
    finally:
        unchecked.unlink(missing_ok=True)


def _target(name: str, out: str | Path | None, *, force: bool) -> Path:
    if not is_name(name):
        raise ProjectError(
            "the name of the project is invalid",
            found=repr(name),
            expected="letters, digits, '.', '_' and '-', a letter or digit first",
            hint=f"Write it as {safe_name(name)}.",
        )
    folder = Path("projects") if Path("projects").is_dir() else Path()
    file = Path(out) if out is not None else folder / f"{name}.yaml"
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise ProjectError("a project file ends in .yaml", file=file, hint=f"Name it: --out {file}.yaml")
    if file.exists() and not force:
        raise ProjectError("the file exists already", file=file, hint="--force replaces it, --out names another.")
    refuse_existing([file], force=True, kind=PROJECT)
    return file


def _usual_task(layout: Layout) -> TaskName:
    """What annotations of a format are made for."""
    if layout.format == "panoptic":
        return "panoptic"
    if layout.format in ("label_images", "masks", "rle"):
        return "semantic"
    if layout.format == "voc-masks":
        folder = layout.root / layout.train
        return "instance" if any(folder.rglob("SegmentationObject")) else "semantic"
    return "instance"


def _validation(layout: Layout, contents: Contents) -> _Validation:
    if layout.val is not None:
        return _Validation(layout.val, "folder, file or list of the images to validate on, or a fraction such as 0.2")
    count = contents.images
    fraction = val_fraction(count)
    comment = f"share of {counted(count, 'image')} to validate on, always the same ones; or a folder"
    if not contents.is_annotated or contents.errors or _can_be_divided(contents.train, fraction):
        return _Validation(fraction, comment)
    reason = "there is one image" if count == 1 else "all images are near-duplicates"
    warning = f"training stops, because {reason} and none can be validated on: name other images in data.val"
    return _Validation(fraction, comment, warning)


def _training_split(dataset: Dataset, fraction: float) -> Dataset:
    """What `data.splits.load_splits` trains on where a fraction of the images is set aside."""
    return dataset.subset(make_split(dataset, SplitOptions(val=fraction, seed=0)).splits["train"])


def _can_be_divided(dataset: Dataset, fraction: float) -> bool:
    try:
        _training_split(dataset, fraction)
    except DataError:
        return False
    return True


def _trained(classes: Classes, contents: Contents, validation: _Validation, layout: Layout) -> Classes:
    """The classes that have annotations in the training split, as a panoptic training needs; the others are ignored.

    Raises:
        ProjectError: No thing or no stuff is left.
    """
    names = list(classes.names)
    while True:
        dataset = _with_classes(contents.train, names)
        if isinstance(validation.value, float) and _can_be_divided(dataset, validation.value):
            dataset = _training_split(dataset, validation.value)
        counts = dataset.counts()
        if all(counts.values()):
            break
        names = [name for name in names if counts[name]]
    kept = dataclasses.replace(
        classes,
        names=tuple(names),
        stuff=tuple(name for name in classes.stuff if name in names),
        ignored=tuple(name for name in contents.counts() if name not in names),
    )
    if not (kept.things and kept.stuff):
        raise ProjectError(
            "a panoptic task needs things and stuff in the training split",
            file=layout.root,
            found=", ".join(names) or "no class",
        )
    return kept


def _with_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The dataset with these classes alone."""
    ids = {name: number for number, name in enumerate(names, start=1)}
    new_id = {category.id: ids[category.name] for category in dataset.categories if category.name in ids}
    instances = [one for one in dataset.instances if one.category_id in new_id]
    return dataclasses.replace(
        dataset,
        categories=tuple(Category(number, name) for name, number in ids.items()),
        instances=tuple(
            dataclasses.replace(one, id=number, category_id=new_id[one.category_id])
            for number, one in enumerate(instances, start=1)
        ),
    )


def _images_to_train_on(contents: Contents, validation: _Validation) -> int:
    share = 1 - validation.value if isinstance(validation.value, float) else 1
    return max(1, round(contents.images * share))


def _root_for(root: Path, file: Path) -> str:
    """The data folder relative to the project file where both are in one tree, else absolute."""
    base = file.absolute().parent
    tree = base.parent if base.parent != Path(base.anchor) else base
    if root.is_relative_to(tree):
        return Path(os.path.relpath(root, base)).as_posix()
    return str(root)


def _lines(layout: Layout, contents: Contents, classes: Classes, validation: _Validation) -> list[str]:
    counts = contents.counts()
    if contents.is_annotated:
        sizes = [dataset.size_in_words() for dataset in contents.datasets]
        lines = [f"recognized: {FORMATS[layout.format].title} in {layout.root}: {' to train on, '.join(sizes)}"]
        lines[0] += " to validate on" if sizes[1:] else ""
        named = [f"{sum(counts[name])} {name}" for name in classes.names if name in counts]
        more = f" and {len(named) - _CLASSES_NAMED} more" if len(named) > _CLASSES_NAMED else ""
        lines.append(f"classes: {', '.join(named[:_CLASSES_NAMED])}{more}")
    else:
        count = counted(contents.images, "image")
        lines = [f"recognized: {count} without annotations in {layout.root}"]
    crowds = sum(dataset.crowds for dataset in contents.datasets)
    if crowds:
        lines.append(f"crowds: {counted(crowds, 'annotation')} marked iscrowd, not trained on; {CROWDS_HINT}")
    if classes.ignored:
        lines.append(f"not read: {', '.join(classes.ignored)}")
    if layout.unused is not None:
        folder = layout.root / layout.unused
        lines.append(f"not used: {folder}; `d2tune eval RUN --data {folder}` evaluates a run on it")
    if validation.warning is not None:
        lines.append(f"warning: {validation.warning}")
    for finding in (one for notes in similar_labels(contents.datasets) for one in notes if one.level == "warning"):
        lines.append(f"warning: {finding.message}; {finding.hint}")
    errors = contents.errors
    if errors:
        first = f"{errors[0].file}: {errors[0].message}"
        rest = ", first" if errors[1:] else ":"
        lines.append(f"warning: training stops on {counted(len(errors), 'error')} in the annotations{rest} {first}")
    return [printable(line) for line in lines]


def _next_command(file: Path, contents: Contents, *, stops: bool) -> str:
    path = shlex.quote(str(file))
    if not contents.is_annotated:
        return f"d2tune annotate {path}"
    return f"d2tune check {path}" if stops else f"d2tune train {path}"
