"""The text of a new project file: every key with a short comment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from d2tune.annotations.registry import FORMATS
from d2tune.new_project.classes import Classes
from d2tune.new_project.layout import Layout
from d2tune.new_project.naming import Naming
from d2tune.new_project.schedule import Schedule
from d2tune.project.traits import TRAITS, TaskName, TaskTraits
from d2tune.text import counted, printable

_COMMENT_COLUMN = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a project file says.

    Attributes:
        title: Its first line.
        task: What it is for.
        root: The data folder as it is written.
        layout: Where the data are.
        naming: How classes are named.
        classes: The classes.
        counts: Instances of each class in each split that was read.
        val: Folder, file or list of the validation split, or a fraction.
        val_comment: What to know about it.
        schedule: Sizes and iterations.
        images: Images to train on.
        is_annotated: Whether there are annotations.
    """

    title: str
    task: TaskName
    root: str
    layout: Layout
    naming: Naming
    classes: Classes
    counts: Mapping[str, tuple[int, ...]]
    val: str | float
    val_comment: str
    schedule: Schedule
    images: int
    is_annotated: bool

    def text(self) -> str:
        """The YAML file."""
        lines = [f"# {printable(self.title)}", _line("task", self.task, self._traits.meaning)]
        lines += [*self._data(), *self._classes(), *self._model(), *self._train(), *self._profiles()]
        return "\n".join(lines) + "\n"

    @property
    def _traits(self) -> TaskTraits:
        return TRAITS[self.task]

    def _data(self) -> Iterator[str]:
        layout, classes = self.layout, self.classes
        yield "data:"
        yield _line("root", self.root, "folder of the data; a relative path starts at this file", indent=2)
        yield _line("format", layout.format, FORMATS[layout.format].title, indent=2)
        yield _line("train", layout.train, "folder, file or list of the images to train on", indent=2)
        yield _line("val", self.val, self.val_comment, indent=2)
        if layout.images is not None:
            yield _line("images", layout.images, "folder of the images", indent=2)
        if layout.csv_preset is not None:
            yield _line("csv_preset", layout.csv_preset, "dialect, by the columns of the CSV", indent=2)
        if self.naming.class_name is not None:
            yield _line("class_name", self.naming.class_name, "class of all shapes without a class", indent=2)
        if self.naming.class_attribute is not None:
            yield _line("class_attribute", self.naming.class_attribute, "VIA attribute that holds the class", indent=2)
        if layout.pair is not None:
            yield "  label_images:"
            yield _line("images", layout.pair[0], "folder of the images within a split", indent=4)
            yield _line("labels", layout.pair[1], "folder of the label images within a split", indent=4)
            yield _line("values", self.naming.values, "class by value; null: ignored", indent=4)
        if classes.background is not None:
            comment = "class of the pixels that no shape covers; without this key they are ignored"
            yield _line("background", classes.background, comment, indent=2)
        if classes.ignored:
            why = (
                "stuff has no instances" if not self._traits.has_label_maps else "no annotations in the training split"
            )
            yield _line("rename", dict.fromkeys(classes.ignored), f"classes that are not read: {why}", indent=2)

    def _classes(self) -> Iterator[str]:
        count = "counts: annotated instances" + (" to train on + to validate on" if isinstance(self.val, str) else "")
        comment = f"in the order of their ids; {count}" if self.is_annotated else "in the order of their ids"
        groups = {"things": self.classes.things, "stuff": self.classes.stuff}
        for key, names in (
            groups.items() if self._traits.has_things_and_stuff else {"classes": self.classes.names}.items()
        ):
            yield _commented(f"{key}:", comment)
            for name in names:
                yield _commented(f"  - {_flow(name)}", self._count(name))

    def _count(self, name: str) -> str:
        if name == self.classes.background and name not in self.counts:
            return "the pixels that no shape covers"
        counts = self.counts.get(name, ())
        return " + ".join(map(str, counts)) if self.is_annotated else ""

    def _model(self) -> Iterator[str]:
        yield "model:"
        traits = self._traits
        for key, value in traits.gpu_model.items():
            yield _line(key, value, traits.comments[key], indent=2)
        yield _line("weights", "auto", "pretrained if they can be downloaded, else from scratch")

    def _train(self) -> Iterator[str]:
        schedule = self.schedule
        epochs = schedule.gpu_iterations * schedule.batch_size / max(1, self.images)
        passes = f"about {epochs:.0f} passes over {counted(self.images, 'image')}"
        yield "train:"
        yield _line("batch_size", schedule.batch_size, "images a step", indent=2)
        if self.is_annotated:
            yield _line("iterations", schedule.gpu_iterations, f"steps; {passes}", indent=2)
        else:
            yield _commented("  # iterations: 1000", "steps; without this key the number of annotated images decides")
        yield _line("image_size", schedule.gpu_px, _size_comment(schedule.gpu_px), indent=2)
        if schedule.patch_px is not None:
            yield _line("patch_size", schedule.patch_px, "side in pixels of the squares to train on", indent=2)

    def _profiles(self) -> Iterator[str]:
        schedule = self.schedule
        yield _commented("profiles:", "merged by hardware, or by --profile")
        yield _commented("  gpu: {}", "as above")
        yield "  cpu:"
        yield _line("model", dict(self._traits.cpu_model), "a smaller network", indent=4)
        train: dict[str, Any] = {"iterations": schedule.cpu_iterations} if self.is_annotated else {}
        train |= {} if schedule.cpu_px == schedule.gpu_px else {"image_size": schedule.cpu_px}
        train |= {} if schedule.cpu_jitter is None else {"scale_jitter": list(schedule.cpu_jitter)}
        if train:
            comment = "fewer steps" if self.is_annotated else "a step takes less time"
            yield _line("train", train, f"{comment} on smaller images" if "image_size" in train else comment, indent=4)


def _size_comment(size: int | str) -> str:
    return "images are not resized" if size == "original" else "short side in pixels to which images are resized"


def _line(key: str, value: object, comment: str, *, indent: int = 0) -> str:
    return _commented(f"{' ' * indent}{key}: {_flow(value)}", comment)


def _commented(text: str, comment: str) -> str:
    width = max(_COMMENT_COLUMN, len(text) + 2)
    return f"{text:<{width}}# {printable(comment)}" if comment else text


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    dumped = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return str(dumped).strip()[1:-1]
