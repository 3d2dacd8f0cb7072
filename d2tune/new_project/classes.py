"""The classes of a new project: names, things and stuff, the background, and what is ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d2tune.errors import ProjectError, nearest
from d2tune.new_project.contents import Contents, refuse_errors
from d2tune.new_project.layout import Layout
from d2tune.new_project.naming import BACKGROUND, Naming
from d2tune.project.traits import TRAITS, TaskName


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of a project.

    Attributes:
        names: In the order of their ids; of a panoptic task the things and then the stuff.
        stuff: Those that are regions, of a panoptic task.
        background: Class of the pixels that no shape covers.
        ignored: Classes whose shapes are not read.
    """

    names: tuple[str, ...]
    stuff: tuple[str, ...] = ()
    background: str | None = None
    ignored: tuple[str, ...] = ()

    @property
    def things(self) -> tuple[str, ...]:
        """The names that are not stuff."""
        return tuple(name for name in self.names if name not in self.stuff)


def choose_classes(task: TaskName, layout: Layout, naming: Naming, contents: Contents, stuff: Sequence[str]) -> Classes:
    """Choose the classes of a project.

    Args:
        task: What it is for.
        layout: Where the data are.
        naming: The names that were given.
        contents: What was read.
        stuff: The classes that were given as stuff.

    Raises:
        DataError: Errors in the annotations leave no class.
        ProjectError: There are no classes, or a panoptic task has no things or no stuff.
    """
    names = naming.classes or tuple(contents.counts())
    if not names:
        refuse_errors(layout, contents.errors)
    if not names:
        raise ProjectError(
            "the images have no annotations, and no classes are named",
            file=layout.root,
            hint="Name the classes to annotate: --classes A,B",
        )
    traits = TRAITS[task]
    if traits.has_things_and_stuff:
        return _panoptic(layout, names, contents, tuple(stuff))
    if stuff:
        raise ProjectError("--stuff is for panoptic tasks", hint="Remove it, or add --task panoptic.")
    if not traits.has_label_maps:
        regions = contents.stuff()
        things = tuple(name for name in names if name not in regions)
        if not things:
            raise ProjectError(
                "all classes are stuff, which has no instances", file=layout.root, found=", ".join(names)
            )
        return Classes(names=things, ignored=tuple(name for name in names if name in regions))
    return _semantic(naming, names, contents)


def _semantic(naming: Naming, names: tuple[str, ...], contents: Contents) -> Classes:
    """All classes, and the background where shapes leave pixels uncovered."""
    if naming.is_complete or (contents.is_annotated and contents.are_covered()):
        return Classes(names=names)
    background = next((name for name in names if name.lower() == BACKGROUND), BACKGROUND)
    return Classes(names=names if background in names else (background, *names), background=background)


def _panoptic(layout: Layout, names: tuple[str, ...], contents: Contents, given: tuple[str, ...]) -> Classes:
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        like = nearest(unknown, names)
        hint = f"Did you mean {like!r}?" if like else f"The classes are: {', '.join(names)}."
        raise ProjectError("--stuff names a class without annotations", file=layout.root, found=unknown, hint=hint)
    stuff = given or tuple(name for name in names if name in contents.stuff())
    things = tuple(name for name in names if name not in stuff)
    if not (things and stuff):
        raise ProjectError(
            f"a panoptic task needs things and stuff, and all classes are {'stuff' if stuff else 'things'}",
            file=layout.root,
            found=", ".join(names),
            hint="Name the classes that are regions: --stuff sky,road",
        )
    return Classes(names=(*things, *stuff), stuff=stuff)
