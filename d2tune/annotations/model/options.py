"""Options for reading annotations and rasters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class RasterOptions:
    """How images of many channels are read.

    Attributes:
        stack: Where images are folders of files: name patterns in the order of their channels, each matching one
            file; empty takes all files in natural order.
        channels: Places of the channels to use, from 0; empty takes all.
        nodata: Value of channels without data, in addition to NaN and the value that a TIFF declares.
    """

    stack: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    nodata: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImageOptions:
    """Where images and label images are, see `formats.label_images`.

    Attributes:
        images: Folder of the images within the source.
        labels: Folder of the label images within the source.
        values: Class name by label value; None ignores those pixels. Empty: values are indices of the classes.
        raster: How images of many channels are read.
    """

    images: str = "images"
    labels: str = "labels"
    values: Mapping[int, str | None] = field(default_factory=dict)
    raster: RasterOptions = field(default_factory=RasterOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Options for reading annotations, the same for every reader.

    Attributes:
        labels: Class names in order of their ids; None takes the sorted labels that occur.
        background: The label of the pixels that no shape covers; VOC's indices skip it.
        image_root: Folder that holds the images; None means the source folder.
        data_root: Folder below which images may lie and links may lead, beside the source and the image root.
        stuff: Names of the classes that are stuff; all others are things.
        class_name: Class of shapes without one (VIA, masks, run-length CSV).
        only_class: The only class of a project: that of all shapes where a file names no class at all.
        class_attribute: VIA region attribute with the class.
        nested_groups: Whether a part inside another part of its group is united with it or a hole.
        instance_suffix: ``strip`` reads ``person-1`` as an instance of ``person``.
        pixel_offset: Added to every VIA coordinate, in pixels.
        preset: Name of a run-length CSV dialect: carvana, airbus, severstal, sartorius, siim.
        color_map: File with the class of each color of a mask; None looks for one in the source folder.
        split_components: One instance per connected component (run-length CSV and mask images).
        allow_outside: Whether images may lie outside the data root.
        follow_links: Whether links in the data may lead out of the data root.
        restore_dir: Folder for images that exist only as ``imageData``; None refuses them.
        skip_bad: Exclude files with errors; the findings become warnings.
        no_predictions: Skip shapes whose flag ``prediction`` is true.
        rename: New class names by the label in the file; None skips the label.
        image_list: File with the names of the images to keep, see `splitting.lists`; None keeps all.
        include_unlabeled: Whether images without an annotation are negatives; else they are excluded.
        unknown_shapes: Whether Labelme shapes of unknown type with three points or more are skipped or are polygons.
        shared_labels: Whether the masks of the source are those of several splits, so that some have no image here.
        label_images: Where images and label images are and what their values mean; None takes the defaults.
        crowds: Whether objects marked as crowds (``iscrowd``) are read as crowds or as objects.
        image_checks: How image files are checked beyond their headers, see `io.photos.findings`: ``structure`` reads
            their ends, ``decoded`` reads their pixels.
        unused: Whether options that the format does not use are noted, or refused as a command does.
        workers: Processes that read Labelme files; None takes more than one for thousands of files. The result is the
            same with any number.
    """

    labels: Sequence[str] | None = None
    background: str | None = None
    image_root: Path | None = None
    data_root: Path | None = None
    stuff: Sequence[str] = ()
    class_name: str | None = None
    only_class: str | None = None
    class_attribute: str | None = None
    nested_groups: Literal["union", "hole"] = "union"
    instance_suffix: Literal["keep", "strip"] = "keep"
    pixel_offset: float = 0.0
    preset: str | None = None
    color_map: Path | None = None
    split_components: bool = False
    allow_outside: bool = False
    follow_links: bool = False
    restore_dir: Path | None = None
    skip_bad: bool = False
    no_predictions: bool = False
    rename: dict[str, str | None] = field(default_factory=dict)
    image_list: Path | None = None
    include_unlabeled: bool = False
    unknown_shapes: Literal["skip", "polygon"] = "skip"
    shared_labels: bool = False
    label_images: LabelImageOptions | None = None
    crowds: Literal["crowds", "objects"] = "crowds"
    image_checks: Literal["header", "structure", "decoded"] = "header"
    unused: Literal["note", "refuse"] = field(default="note", compare=False)
    workers: int | None = None
