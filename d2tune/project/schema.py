"""What a ``projects/*.yaml`` may say: typed, with its defaults visible, and unknown keys refused.

A project names a task, its data, its classes, a model preset, weights and a schedule. Everything that
follows from those (number of classes, ids, mask format, dataset names) is derived elsewhere and is not a key here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from d2tune.project.names import is_name, safe_name
from d2tune.project.overrides import flatten
from d2tune.project.presets import preset_names
from d2tune.project.sections import EarlyStopping, Fold, Sampling, Section
from d2tune.project.traits import TRAITS, TaskName, TaskTraits
from d2tune.project.values import (
    AnyNumber,
    Number,
    PathText,
    SplitFolders,
    SplitText,
    TimeSpan,
    Whole,
    class_name,
    class_names,
    refuse_repeated,
)
from d2tune.text import nearest_hint

Sample = Literal[
    "balloon", "chipset", "face", "carvana", "ships", "steel", "crops", "membrane", "cells", "street", "clips"
]
"""Labeled image sets that can be rendered."""


Format = Literal[
    "auto",
    "labelme",
    "via",
    "via-csv",
    "coco",
    "panoptic",
    "yolo-seg",
    "cvat",
    "label-studio",
    "isat",
    "datumaro",
    "supervisely",
    "darwin",
    "cityscapes",
    "voc",
    "voc-masks",
    "masks",
    "rle",
    "label_images",
]
"""Annotation formats; ``auto`` recognizes the format by the content."""


class LabelImages(Section):
    """Images, of any number of channels, beside label images (``data.format: label_images``).

    An image is a photo, a ``.npy`` or ``.npz`` array, a TIFF with any number of pages and bands, or a folder of such
    files whose channels are stacked.

    Attributes:
        images: Folder of the images within a split.
        labels: Folder of the label images within a split; they have the images' names and any ending.
        values: Class name by label value; pixels with a value of null are ignored. Empty: values are places in the
            classes.
        stack: Where images are folders of files: name patterns in the order of their channels; empty takes all
            files in natural order.
        channels: Places of the channels to use; empty takes all.
        nodata: Value of channels that hold no data, beside NaN.
    """

    images: PathText = "images"
    labels: PathText = "labels"
    values: dict[int, str | None] = Field(default_factory=dict)
    stack: tuple[str, ...] = ()
    channels: tuple[Annotated[Whole, Field(ge=0)], ...] = ()
    nodata: AnyNumber | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _whole_numbers(cls, value: object) -> object:
        """Keys that are texts of numbers, as JSON writes them, as numbers."""
        if not isinstance(value, dict):
            return value
        keys = [int(key) if isinstance(key, str) and key.isdecimal() else key for key in value]
        refuse_repeated(keys)
        return dict(zip(keys, map(class_name, value.values()), strict=True))

    @field_validator("stack", "channels", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


class Data(Section):
    """Where the images and their annotations lie.

    Attributes:
        root: Folder of the data; a relative path starts at the project file's folder.
        train: Folder or file of the training split, relative to ``root``; or a list of its images, a ``.txt`` file
            as ``d2tune split`` writes it.
        val: The same for the validation split, or a fraction of ``train`` to set aside (0.2 is a fifth).
        annotations: Folder or file that lists take their images from, relative to ``root``.
        images: Folder that holds the images where they lie apart from the annotations, or one for each split:
            ``{train: train2017, val: val2017}``.
        labels: Folder of the mask images or label images, where ``train`` and ``val`` name folders of images: one of
            each split, ``{train: trainannot, val: valannot}``, or one of both.
        color_map: File with the class of each color in masks: a name and three numbers a line.
        format: Annotation format, one of `Format`; with ``labels``, ``auto`` is ``masks``.
        label_images: How images and label images are read where ``format`` is ``label_images``.
        csv_preset: Dialect of a run-length CSV: carvana, airbus, severstal, sartorius or siim.
        background: Class of the pixels that no shape covers; with null they are ignored in training and evaluation. For
            label maps of semantic and panoptic tasks.
        class_name: Class of shapes without a class (VIA).
        class_attribute: VIA region attribute that holds the class.
        rename: New class name by label; shapes whose label has null are ignored.
        skip_bad: Train without the files that have errors instead of stopping.
        predictions: ``keep`` trains on shapes that Labelme files flag as predictions, ``drop`` ignores them.
        follow_links: Whether links below ``root`` may lead out of it, as those of DVC and git-annex do.
        crowds: ``objects`` reads objects marked as crowds (``iscrowd``) as objects; crowds are not trained on.
        unknown_shapes: ``polygon`` reads Labelme shapes of unknown type with three points or more as polygons, ``skip``
            skips them with a warning.
        frames: Whether the images of a folder are the frames of a video, in the natural order of their names. For
            tracking tasks.
        sample: Sample that is rendered where ``root`` is missing, a name that ``d2tune sample`` takes.
        sample_images: How many images that sample has.
        split_seed: Seed of the split where ``val`` is a fraction, and of the folds.
        fold: The images of ``train`` and ``val`` together, near-duplicates kept together, are divided into folds, one
            of which is validated on; null trains on ``train``. `d2tune kfold` sets it.
    """

    root: Path
    train: PathText = "train"
    val: SplitText | Annotated[float, Field(gt=0, lt=1)] = "val"
    annotations: PathText = "."
    images: PathText | SplitFolders | None = Field(
        default=None, description="a folder, or {train: FOLDER, val: FOLDER}"
    )
    labels: PathText | SplitFolders | None = Field(
        default=None, description="a folder, or {train: FOLDER, val: FOLDER}"
    )
    color_map: PathText | None = None
    format: Format = "auto"
    label_images: LabelImages = LabelImages()
    csv_preset: Literal["carvana", "airbus", "severstal", "sartorius", "siim"] | None = None
    background: str | None = None
    class_name: str | None = None
    class_attribute: str | None = None
    rename: dict[str, str | None] = Field(default_factory=dict)
    skip_bad: bool = False
    predictions: Literal["keep", "drop"] = "keep"
    follow_links: bool = False
    unknown_shapes: Literal["skip", "polygon"] = "skip"
    crowds: Literal["crowds", "objects"] = "crowds"
    frames: bool = False
    sample: Sample | None = None
    sample_images: Whole = Field(default=80, ge=2)
    split_seed: Whole = 0
    fold: Fold | None = Field(default=None, description="null, or {of: NUMBER, number: NUMBER}")

    def images_of(self, name: str) -> str | None:
        """The folder of the images of a split; None where they lie with the annotations.

        Args:
            name: The value of ``train`` or ``val``, or a path of other annotations.
        """
        return self._of_split(self.images, name)

    def labels_of(self, name: str) -> str | None:
        """The folder of the masks or label images of a split; None where they lie with the images.

        Args:
            name: The value of ``train`` or ``val``.
        """
        return self._of_split(self.labels, name)

    def _of_split(self, folders: str | dict[Literal["train", "val"], str] | None, name: str) -> str | None:
        if not isinstance(folders, dict):
            return folders
        return folders.get("train" if name == self.train else "val") if name in (self.train, self.val) else None

    @model_validator(mode="before")
    @classmethod
    def _format_of_labels(cls, value: object) -> object:
        """With ``labels``, the format of the masks, which the folder of masks alone does not show."""
        if isinstance(value, dict) and value.get("labels") is not None and value.get("format") in (None, "auto"):
            return value | {"format": "masks"}
        return value

    @model_validator(mode="after")
    def _labels_fit_format(self) -> Data:
        if self.labels is None:
            return self
        if self.format not in ("masks", "label_images"):
            raise ValueError(
                f"labels goes with the formats masks and label_images; with {self.format}, train and val name the "
                "annotations and images the folder of the images"
            )
        if isinstance(self.labels, dict):
            missing = [
                key for key in ("train", "val") if isinstance(getattr(self, key), str) and key not in self.labels
            ]
            if missing:
                raise ValueError(f"labels has no folder for {missing[0]}; expected {{train: FOLDER, val: FOLDER}}")
        return self

    @field_validator("root", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip():
            raise ValueError("the path is empty; . is the folder of the project file")
        return Path(value) if isinstance(value, str) else value

    @field_validator("background", "class_name", mode="before")
    @classmethod
    def _class_name(cls, value: object) -> object:
        return class_name(value)

    @field_validator("rename", mode="before")
    @classmethod
    def _labels(cls, value: object) -> object:
        """Labels without blanks around them, as they are read, and the names of classes."""
        if not isinstance(value, dict):
            return value
        labels = [key.strip() if isinstance(key, str) else key for key in value]
        refuse_repeated(labels)
        return dict(zip(labels, map(class_name, value.values()), strict=True))


class Model(Section):
    """The network.

    Attributes:
        preset: A file of ``d2tune/modeling/presets``, without its folder and its ``.yaml``.
        backbone: Instead of the preset's own: ``torchvision/NAME`` or ``timm/NAME`` with strides 4 to 32.
        norm: Whether the backbone's norms learn: ``frozen``, ``trainable``, or ``auto`` (frozen where
            the backbone's weights are pretrained; in a bridge preset they learn).
        encoder: Encoder of a bridge preset (unet, deeplab_v3_plus, ...) instead of the preset's own: a name of
            segmentation-models-pytorch such as ``resnet34``, ``mobilenet_v2`` or ``tu-convnext_tiny``.
        loss: Loss of a bridge preset by weight: ``cross_entropy``, ``dice``, ``focal``, ``lovasz``.
        class_weights: Weights of the classes in the loss: ``none``, ``balanced`` (from the pixels of the training
            split), or one number for each class.
        output_stride: Of a bridge preset that has one: 8 or 16.
        padding: Of the original U-Net: ``same``, or ``valid`` as in the paper.
    """

    preset: str = "pointrend_r50_fpn"
    backbone: str | None = None
    norm: Literal["auto", "frozen", "trainable"] = "auto"
    encoder: str | None = None
    loss: dict[Literal["cross_entropy", "dice", "focal", "lovasz"], Annotated[Number, Field(gt=0)]] = Field(
        default_factory=dict
    )
    class_weights: Literal["none", "balanced"] | tuple[Annotated[Number, Field(ge=0)], ...] = "none"
    output_stride: Literal[8, 16] | None = None
    padding: Literal["same", "valid"] = "same"

    @field_validator("class_weights", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("class_weights")
    @classmethod
    def _counts_something(cls, value: object) -> object:
        if isinstance(value, tuple) and not any(value):
            raise ValueError("at least one class must have a weight above 0")
        return value

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        if value not in preset_names():
            listed = f"The presets are: {', '.join(preset_names())}."
            near = nearest_hint(value, preset_names())
            raise ValueError(f"no preset {value!r}. {f'{near} ' if near else ''}{listed}")
        return value

    @field_validator("backbone")
    @classmethod
    def _known_library(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("torchvision/", "timm/")):
            raise ValueError(f"{value!r} must begin with 'torchvision/' or 'timm/', as in 'torchvision/resnet18'")
        return value


_BATCH_SIZE = 4
"""Images per step where nothing is set."""


LARGE_SCALES = (0.1, 2.0)
"""The factors of large-scale jitter (Ghiasi et al. 2021, arXiv 2012.07177)."""


class Train(Section):
    """The schedule.

    Attributes:
        epochs: Passes over the training images; exclusive with ``iterations`` and ``budget``.
        iterations: Optimizer steps; exclusive with ``epochs`` and ``budget``.
        budget: The time of the whole training, evaluations included: ``90 s``, ``20 min``, ``1.5 h``. The iterations
            and, of ``image_size``, ``scale_jitter``, ``freeze`` and ``eval_every``, what is not set are chosen so that
            it suffices; the record has them.
        batch_size: Images per step over all GPUs; ``auto`` takes the largest of 1, 2, 4 (and 8, 16 on a GPU) that fits
            into memory, which is noted in the record.
        accumulate: Parts that a batch is computed in, one after the other, where its images together take too much
            memory; the batch size and the schedule stay.
        optimizer: ``adamw``, ``sgd`` with momentum, or ``auto``, the preset's.
        learning_rate: Peak learning rate; ``auto`` takes that of the optimizer, the preset's where it is its own,
            scaled to the batch size.
        schedule: How the learning rate goes on after the warm-up: ``cosine`` to zero, ``step`` to a tenth at each of
            ``steps``, ``constant``.
        steps: Shares of the training at which ``step`` falls; none set are 2/3 and 8/9 of it.
        warmup: Iterations in which the learning rate rises; ``auto`` takes a twentieth of them, an eighth where the
            network has no pretrained weights, and 1000 at most.
        weight_decay: ``auto`` takes that of the optimizer, the preset's where it is its own.
        ema_decay: Decay of the moving average of the weights, which is evaluated and saved; 0 for none, ``auto`` takes
            the preset's.
        learning_rate_factors: Multiples of the learning rate by the beginning of the names of parameters, such as
            ``backbone: 0.1``; of several the longest counts.
        freeze: Beginnings of the names of parameters that stay as they are, such as ``backbone``.
        image_size: Short side in pixels at which images are evaluated; training varies around it. ``original`` leaves
            images as they are and evaluates them in windows.
        patch_size: Side in pixels of the squares, cut out of the resized images, that are trained on; null takes whole
            images.
        patch_balance: Share of the patches that lie around a random pixel or object of a random class, each class as
            often as any other; the rest lie anywhere.
        augment: ``photo`` flips training images left to right and varies their colors; ``overhead`` flips and turns
            them every way, for images without an up and down.
        scale_jitter: Training draws the short side between these multiples of ``image_size``, for each batch.
        large_scale_jitter: Whether each image has a size of its own, from 0.1 to 2 times that of evaluations where
            ``scale_jitter`` is not set, and larger ones are cut. For long trainings.
        crop: Share of training images of which a random rectangle is taken that cuts no instance.
        copy_paste: Share of training images into which instances of another image are pasted; in semantic tasks the
            pixels of a class. For long trainings.
        color: Share of training photos whose brightness, contrast and saturation are varied.
        gray: Share of training photos without color.
        blur: Share of training photos that are blurred.
        precision: ``auto`` takes bfloat16 where it is native and faster on this machine, float16 on GPUs that are fast
            in nothing else, else float32.
        on_divergence: Where a loss or the gradients are not finite, ``stop`` ends training; ``skip`` skips the step, up
            to 10 of them in a row.
        eval_every: Iterations between evaluations; ``auto`` makes about five of them, 0 only the last one.
        early_stopping: When training ends before its last iteration.
        sampling: How often the images of the training split are used.
        validation_loss: Whether evaluations compute the loss on the validation split too, on up to 32 of its images.
        workers: Processes that load images; ``auto`` depends on the cores.
        seed: Seed of everything random.
    """

    epochs: Annotated[Number, Field(gt=0)] | None = None
    iterations: Annotated[Whole, Field(gt=0)] | None = None
    budget: TimeSpan | None = None
    batch_size: Literal["auto"] | Annotated[Whole, Field(ge=1)] = _BATCH_SIZE
    accumulate: Whole = Field(default=1, ge=1)
    optimizer: Literal["auto", "adamw", "sgd"] = "auto"
    learning_rate: Literal["auto"] | Annotated[Number, Field(gt=0)] = "auto"
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    steps: tuple[Annotated[Number, Field(gt=0, lt=1)], ...] = ()
    warmup: Literal["auto"] | Annotated[Whole, Field(ge=0)] = "auto"
    weight_decay: Literal["auto"] | Annotated[Number, Field(ge=0)] = "auto"
    ema_decay: Literal["auto"] | Annotated[Number, Field(ge=0, lt=1)] = "auto"
    learning_rate_factors: dict[str, Annotated[Number, Field(gt=0)]] = Field(default_factory=dict)
    freeze: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    image_size: Literal["original"] | Annotated[Whole, Field(ge=32, le=4096)] = 640
    patch_size: Annotated[Whole, Field(ge=32, le=4096)] | None = None
    patch_balance: Number = Field(default=0.5, ge=0, le=1)
    augment: Literal["photo", "overhead"] = "photo"
    scale_jitter: tuple[Number, Number] = (0.6, 1.2)
    large_scale_jitter: bool = False
    crop: Number = Field(default=0.0, ge=0, le=1)
    copy_paste: Number = Field(default=0.0, ge=0, le=1)
    color: Number = Field(default=0.5, ge=0, le=1)
    gray: Number = Field(default=0.0, ge=0, le=1)
    blur: Number = Field(default=0.0, ge=0, le=1)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    on_divergence: Literal["stop", "skip"] = "stop"
    eval_every: Literal["auto"] | Annotated[Whole, Field(ge=0)] = "auto"
    early_stopping: EarlyStopping = EarlyStopping()
    sampling: Sampling = Sampling()
    validation_loss: bool = True
    workers: Literal["auto"] | Annotated[Whole, Field(ge=0)] = "auto"
    seed: Whole = Field(default=0, ge=0, lt=2**31)

    @property
    def images_per_step(self) -> int:
        """``batch_size``; where it is ``auto`` and not chosen yet, about 4."""
        if self.batch_size == "auto":
            return self.accumulate * max(1, _BATCH_SIZE // self.accumulate)
        return self.batch_size

    @model_validator(mode="before")
    @classmethod
    def _large_scales(cls, value: object) -> object:
        """With large-scale jitter, its usual range where none is set."""
        if isinstance(value, dict) and value.get("large_scale_jitter") is True and "scale_jitter" not in value:
            return value | {"scale_jitter": LARGE_SCALES}
        return value

    @field_validator("scale_jitter", "freeze", "steps", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        lengths = [key for key in ("epochs", "iterations", "budget") if getattr(self, key) is not None]
        if len(lengths) > 1:
            raise ValueError(f"{lengths[0]} and {lengths[1]} are both set; keep one of them")
        if self.steps and self.schedule != "step":
            raise ValueError(f"steps are for schedule: step; found schedule: {self.schedule}")
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps must be rising shares of the training; found {list(self.steps)}")
        if self.warmup != "auto" and self.iterations is not None and self.warmup >= self.iterations:
            raise ValueError(f"warmup must be less than iterations, {self.iterations}; found {self.warmup}")
        if self.early_stopping.metric == "loss" and not self.validation_loss:
            raise ValueError("early_stopping.metric is loss, which needs validation_loss: true")
        if self.early_stopping.patience and self.eval_every == 0:
            raise ValueError("early_stopping.patience counts evaluations; found eval_every: 0, which has none")
        if self.batch_size != "auto" and self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size, {self.batch_size}; found {self.accumulate}")
        low, high = self.scale_jitter
        if not 0.1 <= low <= high <= 4:
            raise ValueError(
                f"scale_jitter must be two factors between 0.1 and 4, the smaller first; found {low}, {high}"
            )
        if self.large_scale_jitter and self.image_size == "original":
            raise ValueError("large_scale_jitter is for an image_size in pixels; found original")
        return self


class Project(Section):
    """One task a person can run.

    Attributes:
        name: Names the run folder; the project file's name unless given.
        task: ``instance``: one mask per object; ``semantic``: one class per pixel; ``panoptic``: both, objects of
            the things and regions of the stuff; ``tracking``: the mask of an object that is followed through a video.
        data: Where the images and annotations lie.
        classes: Class names in the order of their ids; empty takes the labels of the training split.
        things: Instead of ``classes``: those whose objects are distinguished. Their ids come before those of the stuff.
        stuff: Instead of ``classes``: those that are regions, such as sky and road.
        model: The network.
        weights: ``auto``, ``scratch``, ``detectron2://...``, ``https://...`` or a file (relative to the
            project file's folder).
        weights_sha256: Expected SHA-256 of the file behind ``weights``.
        train: The schedule.
        tracking: ``none``, ``wandb`` (Weights & Biases), ``mlflow`` or ``trackio``; TensorBoard files are always
            written.
        tracking_group: Name of the group of runs that this one belongs to in its logger, such as a sweep; None is a
            group of their own for the folds of a split, and no group for other runs.
        intended_use: What the model is for, in a sentence or more; in the model card of each run and package.
        detectron2: Raw Detectron2 keys, dotted or nested, set last.
    """

    name: str
    task: TaskName = "instance"
    data: Data
    classes: tuple[str, ...] = ()
    things: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()
    model: Model = Model()
    weights: Annotated[str, Field(min_length=1, description="auto, scratch, a file or a URL")] = "auto"
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")
    train: Train = Train()
    tracking: Literal["none", "wandb", "mlflow", "trackio"] = "none"
    tracking_group: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    intended_use: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    detectron2: dict[str, Any] = Field(default_factory=dict)

    @field_validator("detectron2")
    @classmethod
    def _dotted(cls, value: dict[str, Any]) -> dict[str, Any]:
        return flatten(value)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError(
                "the name must have only letters, digits, '.', '_' and '-', a letter or digit first; "
                f"found {value!r}. Write name: {safe_name(value)}"
            )
        return value

    @field_validator("classes", "things", "stuff", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        return class_names(value)

    @field_validator("classes", "things", "stuff")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        refuse_repeated(value)
        return value

    @model_validator(mode="after")
    def _classes_fit_task(self) -> Project:
        both = sorted(set(self.things) & set(self.stuff))
        if self.classes and (self.things or self.stuff):
            raise ValueError("classes, and things or stuff, are both set; keep one of them")
        if both:
            raise ValueError(f"{both[0]!r} is in things and in stuff")
        if self.traits.has_things_and_stuff and not (self.things and self.stuff):
            raise ValueError("a panoptic task needs things and stuff")
        if not self.has_label_maps and self.stuff:
            raise ValueError("stuff is for semantic and panoptic tasks; an instance task has things alone")
        return self

    @model_validator(mode="after")
    def _background_fits_task(self) -> Project:
        background = self.data.background
        if background is None:
            return self
        if not self.has_label_maps:
            raise ValueError("data.background is for semantic and panoptic tasks")
        if not self.class_names:
            raise ValueError("data.background needs the classes to be named")
        names = self.stuff or self.class_names
        if background not in names:
            raise ValueError(f"data.background is {background!r}, which is not among {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _keys_fit_format(self) -> Project:
        data = self.data
        if data.frames and not self.traits.follows_objects:
            raise ValueError("data.frames is for tracking tasks")
        if self.traits.follows_objects:
            self._refuse_keys_of_images()
        if data.csv_preset is not None and data.format not in ("auto", "rle"):
            raise ValueError(f"data.csv_preset is for data.format: rle, and the format is {data.format}")
        if data.label_images != LabelImages() and data.format != "label_images":
            raise ValueError(
                f"data.label_images is for data.format: label_images, and the format is {data.format}; set the format, "
                "or remove the section"
            )
        return self

    def _refuse_keys_of_images(self) -> None:
        """Refuse keys about whole images, which the pairs of crops of tracking tasks do not have."""
        defaults = Train()
        for key in ("budget", "large_scale_jitter", "crop", "copy_paste", "gray", "blur"):
            if getattr(self.train, key) != getattr(defaults, key):
                raise ValueError(f"train.{key} is for instance, semantic and panoptic tasks")

    @model_validator(mode="after")
    def _semantic_keys_fit_task(self) -> Project:
        if self.is_by_pixel:
            if self.train.crop:
                raise ValueError("train.crop is for instance and panoptic tasks; set train.patch_size")
            return self
        if self.data.format == "label_images":
            raise ValueError("data.format: label_images is for semantic tasks: label images do not distinguish objects")
        if self.train.augment == "overhead":
            raise ValueError("train.augment: overhead is for semantic tasks")
        if self.train.image_size == "original" and self.train.patch_size is None:
            raise ValueError("train.image_size: original needs train.patch_size, the side of the squares to train on")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """All class names in the order of their ids: ``classes``, or the things and then the stuff."""
        return self.classes or (*self.things, *self.stuff)

    @property
    def traits(self) -> TaskTraits:
        """What distinguishes the task."""
        return TRAITS[self.task]

    @property
    def has_label_maps(self) -> bool:
        """Whether the task has a class for each pixel, so that its ground truth includes label maps."""
        return self.traits.has_label_maps

    @property
    def is_by_pixel(self) -> bool:
        """Whether the task has nothing but a class for each pixel, so that one class alone cannot be learned."""
        return not self.traits.has_objects

    @property
    def needs_every_class(self) -> bool:
        """Whether each class must have annotations in the training split."""
        return self.traits.needs_every_class

    def to_yaml(self) -> str:
        """The project with every default written out; ``load_project`` reads it back to an equal object."""
        plain = self.model_dump(mode="json")
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
