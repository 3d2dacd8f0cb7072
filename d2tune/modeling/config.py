"""Detectron2's config of a project, with everything that is derived from the data and the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from detectron2.config import CfgNode, get_cfg

from d2tune.detectron2_projects import project_module
from d2tune.errors import ProjectError, RunError, nearest
from d2tune.modeling.assembled.config import add_assembled_config
from d2tune.modeling.bridge.config import add_bridge_config
from d2tune.modeling.bridge.losses import balanced_weights
from d2tune.modeling.bridge.networks import ARCHITECTURES, Architecture
from d2tune.modeling.component_names import check_components
from d2tune.modeling.schedule import check_schedule, set_schedule
from d2tune.modeling.siammask.config import add_siammask_config
from d2tune.modeling.yolact.config import add_yolact_config
from d2tune.project import OWN_KEYS, Model, Project, flatten, preset_files, preset_names
from d2tune.text import reason_of

LEAST_WINDOW_PX = 512
"""Smallest side of the windows in which images of original size are predicted; training patches may be larger.

Networks with `Architecture.windows_are_patches` have no smallest one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The properties of the data that the config depends on.

    Attributes:
        class_names: The classes in the order of their ids.
        train_images: Number of training images.
        has_rle: Whether any instance is a run-length mask.
        train_name: Name of the training split in Detectron2's ``DatasetCatalog``.
        val_name: Name of the validation split in Detectron2's ``DatasetCatalog``.
        thing_names: For a panoptic task, the thing classes, which are the first of ``class_names``.
        stuff_names: For a panoptic task, the stuff classes, which are the rest of ``class_names``.
        channels: Number of channels of the images.
        pixel_mean: Mean of each channel over the training split; None keeps the scaling of the preset.
        pixel_std: Standard deviation of each channel over the training split; None keeps the scaling of the preset.
        class_pixels: Number of pixels of each class in the training split; empty if they are not counted.
        white: The value of 16-bit photos that becomes 255; None if all photos have 8 bits.
    """

    class_names: tuple[str, ...]
    train_images: int
    has_rle: bool
    train_name: str
    val_name: str
    thing_names: tuple[str, ...] = ()
    stuff_names: tuple[str, ...] = ()
    channels: int = 3
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    class_pixels: tuple[int, ...] = ()
    white: float | None = None


def add_d2tune_config(cfg: CfgNode) -> None:
    """Add d2tune's own keys to a config."""
    cfg.MODEL.FEATURES = CfgNode()
    # torchvision/NAME or timm/NAME, used by build_feature_fpn_backbone
    cfg.MODEL.FEATURES.NAME = ""
    # frozen or trainable
    cfg.MODEL.FEATURES.NORM = "frozen"
    # SGD or ADAMW
    cfg.SOLVER.OPTIMIZER = "SGD"
    # decay of the moving average of the weights, which is evaluated and saved; 0 disables it
    cfg.SOLVER.EMA_DECAY = 0.0
    # share of training images whose brightness, contrast and saturation are varied
    cfg.INPUT.COLOR_JITTER = 0.5
    # shares of training images that are blurred, made gray, cut to whole instances, and get instances of others pasted
    cfg.INPUT.BLUR = 0.0
    cfg.INPUT.GRAY = 0.0
    cfg.INPUT.WHOLE_CROP = 0.0
    cfg.INPUT.COPY_PASTE = 0.0
    # whether each image of a batch has a size of its own, and is cut to the size that it has in evaluations
    cfg.INPUT.LARGE_SCALE_JITTER = False
    # photo or overhead
    cfg.INPUT.AUGMENT = "photo"
    # images keep their size in training and evaluation
    cfg.INPUT.ORIGINAL_SIZE = False
    # side of the training patches; 0 takes whole images
    cfg.INPUT.PATCH_PX = 0
    # share of the patches that are chosen by class
    cfg.INPUT.PATCH_BALANCE = 0.5
    # options for reading rasters; NODATA has at most one number
    cfg.INPUT.RASTER = CfgNode()
    cfg.INPUT.RASTER.STACK = []
    cfg.INPUT.RASTER.CHANNELS = []
    cfg.INPUT.RASTER.NODATA = []
    # the value of 16-bit photos that becomes 255; 0 takes that of each file
    cfg.INPUT.WHITE = 0.0
    # side of the windows in which images are predicted, in pixels of the image; 0 takes whole images
    cfg.TEST.WINDOW_PX = 0
    # width of the strip that neighboring windows share; 0 is the usual share of a window
    cfg.TEST.WINDOW_OVERLAP_PX = 0


def default_config() -> CfgNode:
    """A config with all keys of Detectron2, its projects and d2tune, which presets and runs may set."""
    cfg = get_cfg()
    project_module("point_rend.config").add_pointrend_config(cfg)
    project_module("deeplab.config")  # add_panoptic_deeplab_config takes it from the package of that project
    project_module("panoptic_deeplab.config").add_panoptic_deeplab_config(cfg)
    add_assembled_config(cfg)
    add_bridge_config(cfg)
    add_yolact_config(cfg)
    add_siammask_config(cfg)
    add_d2tune_config(cfg)
    return cfg


def preset_config(preset: str) -> CfgNode:
    """The default config with the values of a preset."""
    cfg = default_config()
    cfg.merge_from_file(str(preset_files()[preset]), allow_unsafe=False)
    return cfg


_NEEDED = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.DEVICE",
    "MODEL.BACKBONE.NAME",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.ROI_HEADS.NUM_CLASSES",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "INPUT.FORMAT",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "SOLVER.MAX_ITER",
)
"""Keys without which the config of a run would silently be Detectron2's defaults."""


_YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same as ``yaml.safe_load``, and ten times as fast where it is built with libyaml."""


def read_config(path: Path) -> CfgNode:
    """Read the config of a run.

    Raises:
        RunError: The file is missing or damaged.
    """
    cfg = default_config()
    hint = "Restore the file from a copy."
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
        if not isinstance(given, dict):
            kind = type(given).__name__
            raise RunError("the run's config is not a mapping", file=path, found=kind, hint=hint)
        present = flatten(given)
        if given.get("VERSION") == cfg.VERSION and "_BASE_" not in given:
            cfg.merge_from_other_cfg(CfgNode(given))  # the same as merge_from_file, which parses the file again
        else:
            cfg.merge_from_file(str(path), allow_unsafe=False)
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem or reason_of(error)
        place = None if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        raise RunError(f"the run's config is not valid YAML: {problem}", file=path, place=place, hint=hint) from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError, AssertionError, yaml.YAMLError) as error:
        raise RunError(f"the run's config cannot be read: {reason_of(error)}", file=path, hint=hint) from error
    missing = [key for key in _NEEDED if key not in present]
    if missing:
        raise RunError("the run's config lacks a key", file=path, place=missing[0], hint=hint)
    return cfg


DERIVED = {
    "MODEL.META_ARCHITECTURE": "Set model.preset.",
    "MODEL.ASSEMBLED.MEMBERS": "Use `d2tune assemble`.",
    "MODEL.ASSEMBLED.VIEWS": "Use `d2tune assemble`.",
    "MODEL.ROI_HEADS.NUM_CLASSES": "It is derived from classes.",
    "MODEL.POINT_HEAD.NUM_CLASSES": "It is derived from classes.",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": "It is derived from classes.",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": "Ignored pixels are 255 in every label map.",
    "MODEL.BRIDGE.NUM_CLASSES": "It is derived from classes.",
    "MODEL.BRIDGE.ARCHITECTURE": "Set model.preset.",
    "MODEL.BRIDGE.ENCODER": "Set model.encoder.",
    "MODEL.BRIDGE.OUTPUT_STRIDE": "Set model.output_stride.",
    "MODEL.BRIDGE.PADDING": "Set model.padding.",
    "MODEL.BRIDGE.LOSS": "Set model.loss.",
    "MODEL.BRIDGE.CLASS_WEIGHTS": "Set model.class_weights.",
    "MODEL.MASK_ON": "It is derived from task.",
    **{key: f"Set {own}." for key, own in OWN_KEYS.items()},
    "DATASETS.TRAIN": "Set data.train.",
    "DATASETS.TEST": "Set data.val.",
    "INPUT.MIN_SIZE_TRAIN": "Set train.image_size and train.scale_jitter.",
    "INPUT.MAX_SIZE_TRAIN": "Set train.image_size and train.scale_jitter.",
    "INPUT.MIN_SIZE_TEST": "Set train.image_size.",
    "INPUT.ORIGINAL_SIZE": "Set train.image_size.",
    "INPUT.RANDOM_FLIP": "Set train.augment.",
    "INPUT.AUGMENT": "Set train.augment.",
    "INPUT.BLUR": "Set train.blur.",
    "INPUT.GRAY": "Set train.gray.",
    "INPUT.WHOLE_CROP": "Set train.crop.",
    "INPUT.COPY_PASTE": "Set train.copy_paste.",
    "INPUT.LARGE_SCALE_JITTER": "Set train.large_scale_jitter.",
    "INPUT.PATCH_PX": "Set train.patch_size.",
    "INPUT.PATCH_BALANCE": "Set train.patch_balance.",
    "INPUT.RASTER.STACK": "Set data.label_images.stack.",
    "INPUT.RASTER.CHANNELS": "Set data.label_images.channels.",
    "INPUT.RASTER.NODATA": "Set data.label_images.nodata.",
    "INPUT.WHITE": "It is read from the headers of 16-bit images.",
    "INPUT.CROP.ENABLED": "Set train.scale_jitter or train.patch_size.",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "Images without instances are kept as negatives.",
    "SOLVER.AMP.ENABLED": "Set train.precision.",
    "SOLVER.CHECKPOINT_PERIOD": "Ten checkpoints to resume from are written in a run.",
    "SOLVER.STEPS": "Set train.schedule: step and train.steps.",
    "OUTPUT_DIR": "Use --output-dir.",
}
"""Raw keys that are derived and cannot be set, and what to set instead."""

TaskName = Literal["instance", "semantic", "panoptic", "tracking"]

_TASK_OF_ARCHITECTURE: dict[str, TaskName] = {
    "GeneralizedRCNN": "instance",
    "Yolact": "instance",
    "GapSafeSemanticSegmentor": "semantic",
    "SemanticBridge": "semantic",
    "PanopticFPN": "panoptic",
    "ContiguousPanopticDeepLab": "panoptic",
    "SiamMask": "tracking",
}


@lru_cache
def preset_task(preset: str) -> TaskName:
    """The task that a preset's meta architecture is for."""
    return _TASK_OF_ARCHITECTURE[preset_config(preset).MODEL.META_ARCHITECTURE]


def is_bridge(cfg: CfgNode) -> bool:
    """Whether the model is a network of the bridge and not a model of Detectron2."""
    return bool(cfg.MODEL.META_ARCHITECTURE == "SemanticBridge")


def takes_windows(cfg: CfgNode) -> bool:
    """Whether what a model predicts in windows of an image can be put together.

    Panoptic-DeepLab groups pixels around the centers of objects, of which a window need not have any.
    """
    return bool(cfg.MODEL.META_ARCHITECTURE != "ContiguousPanopticDeepLab")


def project_config(
    project: Project,
    facts: DataFacts,
    *,
    scratch: bool,
    device: str,
    rgb_resnet: bool = False,
) -> CfgNode:
    """The complete, frozen config of a run.

    Args:
        project: The project.
        facts: The properties of its data.
        scratch: Whether no pretrained weights are loaded; norms are then trained and the warm-up is longer.
        device: ``cpu`` or ``cuda``.
        rgb_resnet: Whether the weights of Detectron2's ResNet are from torchvision or timm, which place strides and
            scale inputs differently.

    Raises:
        ProjectError: A raw key does not exist or its value has another type, the preset is for another task, or the
            preset does not take a key of the model section, or windows.
    """
    check_model(project)
    cfg = preset_config(project.model.preset)
    cfg.MODEL.DEVICE = device
    _set_data(cfg, facts)
    _set_input(cfg, project)
    if is_bridge(cfg):
        _set_bridge(cfg, project, facts)
    else:
        _set_classes(cfg, facts)
        _set_backbone(cfg, project, scratch=scratch)
    if rgb_resnet:
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        _set_imagenet_rgb(cfg)
    if rgb_resnet or scratch or project.model.backbone is not None:
        _set_new_norms(cfg)
    _set_channels(cfg, facts, project.model.preset)
    set_schedule(cfg, project, images=facts.train_images, scratch=scratch)
    _set_raw(cfg, project.detectron2)
    check_schedule(cfg, project)
    _check_windows(cfg, project)
    cfg.freeze()
    return cfg


def check_model(project: Project) -> None:
    """Check that the preset is for the task, and takes all given keys of the model section.

    Raises:
        ProjectError: The preset is for another task, or does not take a key; the error lists the valid presets.
    """
    preset = project.model.preset
    if preset_task(preset) != project.task:
        fitting = [name for name in preset_names() if preset_task(name) == project.task]
        raise ProjectError(
            f"preset {preset!r} is for {preset_task(preset)} tasks",
            place="model.preset",
            found=f"task: {project.task}",
            expected=", ".join(fitting),
            hint=f"Set model.preset to one of these, or set task: {preset_task(preset)}.",
        )
    for key, takes in _PRESETS_THAT_TAKE.items():
        value = getattr(project.model, key)
        if value == getattr(Model(), key) or takes(preset_config(preset)):
            continue
        taking = [name for name in preset_names() if takes(preset_config(name))]
        raise ProjectError(
            f"preset {preset!r} does not take {key}",
            place=f"model.{key}",
            found=repr(value),
            hint=f"Remove it, or use one of the presets {', '.join(taking)}.",
        )


_FPN_BACKBONES = (
    "build_resnet_fpn_backbone",
    "build_regnetx_4gf_fpn_backbone",
    "build_feature_fpn_backbone",
    "build_yolact_fpn_backbone",
)

_PRESETS_THAT_TAKE: dict[str, Callable[[CfgNode], bool]] = {
    "backbone": lambda cfg: cfg.MODEL.BACKBONE.NAME in _FPN_BACKBONES and not cfg.MODEL.YOLACT.DEFORM_EVERY,
    "encoder": lambda cfg: is_bridge(cfg) and _architecture(cfg).encoder is not None,
    "loss": lambda cfg: is_bridge(cfg),
    "class_weights": lambda cfg: is_bridge(cfg),
    "output_stride": lambda cfg: is_bridge(cfg) and bool(_architecture(cfg).output_strides),
    "padding": lambda cfg: is_bridge(cfg) and cfg.MODEL.BRIDGE.ARCHITECTURE == "unet_2015",
}
"""Keys of the model section, and whether the preset of a config takes them."""


def _architecture(cfg: CfgNode) -> Architecture:
    return ARCHITECTURES[cfg.MODEL.BRIDGE.ARCHITECTURE]


def _set_data(cfg: CfgNode, facts: DataFacts) -> None:
    cfg.DATASETS.TRAIN = (facts.train_name,)
    cfg.DATASETS.TEST = (facts.val_name,)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.INPUT.WHITE = float(facts.white or 0)
    if facts.has_rle:
        cfg.INPUT.MASK_FORMAT = "bitmask"


def _set_classes(cfg: CfgNode, facts: DataFacts) -> None:
    """Set the number of classes of all heads.

    The semantic head of Panoptic FPN has class 0 for all things, and the stuff from 1; that of Panoptic-DeepLab has a
    class for each thing.
    """
    classes = len(facts.class_names)
    things = len(facts.thing_names) or classes
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = things
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = things
    is_panoptic_fpn = cfg.MODEL.META_ARCHITECTURE == "PanopticFPN"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(facts.stuff_names) + 1 if is_panoptic_fpn else classes
    if cfg.MODEL.META_ARCHITECTURE == "GapSafeSemanticSegmentor":
        cfg.MODEL.POINT_HEAD.NUM_CLASSES = classes


def _set_bridge(cfg: CfgNode, project: Project, facts: DataFacts) -> None:
    model, bridge = project.model, cfg.MODEL.BRIDGE
    if model.norm != "auto":
        cfg.MODEL.FEATURES.NORM = model.norm
    bridge.NUM_CLASSES = len(facts.class_names)
    bridge.PADDING = model.padding
    if model.encoder is not None:
        bridge.ENCODER = model.encoder
        _set_timm_scaling(cfg, model.encoder.replace("tu-", "timm/", 1))
    if model.output_stride is not None:
        bridge.OUTPUT_STRIDE = model.output_stride
    if model.loss:
        bridge.LOSS = [[name, float(weight)] for name, weight in model.loss.items()]
    if model.class_weights == "balanced":
        bridge.CLASS_WEIGHTS = [float(weight) for weight in balanced_weights(facts.class_pixels)]
    elif model.class_weights != "none":
        if len(model.class_weights) != len(facts.class_names):
            raise ProjectError(
                "the number of weights must be the number of classes",
                place="model.class_weights",
                found=f"{len(model.class_weights)} weights",
                expected=f"{len(facts.class_names)}, for {', '.join(facts.class_names)}",
            )
        bridge.CLASS_WEIGHTS = [float(weight) for weight in model.class_weights]


def _set_channels(cfg: CfgNode, facts: DataFacts, preset: str) -> None:
    if facts.channels != 3 and not is_bridge(cfg):
        fitting = [name for name in preset_names() if is_bridge(preset_config(name))]
        raise ProjectError(
            f"preset {preset!r} needs images with 3 channels",
            place="model.preset",
            found=f"{facts.channels} channel{'' if facts.channels == 1 else 's'}",
            hint=f"Use a preset for any number of channels: {', '.join(fitting)}.",
        )
    if facts.pixel_mean is not None and facts.pixel_std is not None:
        cfg.MODEL.PIXEL_MEAN = [float(value) for value in facts.pixel_mean]
        cfg.MODEL.PIXEL_STD = [float(value) for value in facts.pixel_std]


def _set_input(cfg: CfgNode, project: Project) -> None:
    train, label_images = project.train, project.data.label_images
    cfg.INPUT.AUGMENT = train.augment
    cfg.INPUT.PATCH_PX = train.patch_size or 0
    cfg.INPUT.PATCH_BALANCE = train.patch_balance
    cfg.INPUT.COLOR_JITTER = float(train.color)
    cfg.INPUT.BLUR, cfg.INPUT.GRAY = float(train.blur), float(train.gray)
    cfg.INPUT.WHOLE_CROP, cfg.INPUT.COPY_PASTE = float(train.crop), float(train.copy_paste)
    cfg.INPUT.LARGE_SCALE_JITTER = train.large_scale_jitter
    hides_pixels = train.patch_size is not None or train.large_scale_jitter or train.copy_paste > 0
    if hides_pixels and not project.is_by_pixel:
        cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.RASTER.STACK = list(label_images.stack)
    cfg.INPUT.RASTER.CHANNELS = list(label_images.channels)
    cfg.INPUT.RASTER.NODATA = [] if label_images.nodata is None else [label_images.nodata]
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    if train.image_size == "original":
        cfg.INPUT.ORIGINAL_SIZE = True
        cfg.INPUT.MIN_SIZE_TRAIN = (0, 0)
        cfg.INPUT.MAX_SIZE_TRAIN = 0
        cfg.INPUT.MIN_SIZE_TEST = 0
        cfg.INPUT.MAX_SIZE_TEST = 0
        patch_px = cfg.INPUT.PATCH_PX
        windows_are_patches = patch_px and is_bridge(cfg) and _architecture(cfg).windows_are_patches
        cfg.TEST.WINDOW_PX = patch_px if windows_are_patches else max(LEAST_WINDOW_PX, patch_px)
        return
    low, high = train.scale_jitter
    longest = round(train.image_size * 5 / 3)
    cfg.INPUT.MIN_SIZE_TRAIN = (round(train.image_size * low), round(train.image_size * high))
    cfg.INPUT.MAX_SIZE_TRAIN = round(longest * high)
    cfg.INPUT.MIN_SIZE_TEST = train.image_size
    cfg.INPUT.MAX_SIZE_TEST = longest


def _check_windows(cfg: CfgNode, project: Project) -> None:
    if not cfg.TEST.WINDOW_PX or takes_windows(cfg):
        return
    fitting = [
        name for name in preset_names() if preset_task(name) == project.task and takes_windows(preset_config(name))
    ]
    is_original = project.train.image_size == "original"
    raise ProjectError(
        "Panoptic-DeepLab does not predict in windows of an image",
        place="train.image_size: original" if is_original else "TEST.WINDOW_PX",
        found=f"model.preset: {project.model.preset}",
        expected=f"one of {', '.join(fitting)}",
        hint=f"Set one of these, or {'the short side of the images in pixels' if is_original else 'remove the key'}.",
    )


def _set_backbone(cfg: CfgNode, project: Project, *, scratch: bool) -> None:
    if project.model.backbone is not None:
        if cfg.MODEL.META_ARCHITECTURE != "Yolact":
            cfg.MODEL.BACKBONE.NAME = "build_feature_fpn_backbone"
        cfg.MODEL.FEATURES.NAME = project.model.backbone
        cfg.MODEL.FPN.IN_FEATURES = ["stride4", "stride8", "stride16", "stride32"]
        cfg.MODEL.FPN.NORM = "GN"
        _set_imagenet_rgb(cfg)
        _set_timm_scaling(cfg, project.model.backbone)
    if cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON:
        cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = cfg.MODEL.FPN.OUT_CHANNELS
    norm = project.model.norm
    trainable = norm == "trainable" or (norm == "auto" and scratch)
    cfg.MODEL.FEATURES.NORM = "trainable" if trainable else "frozen"
    if trainable:
        cfg.MODEL.RESNETS.NORM = "BN"
    if scratch:
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        cfg.MODEL.FPN.NORM = "GN"


def _set_new_norms(cfg: CfgNode) -> None:
    """Let the norms of a pyramid and heads that start anew be GroupNorm, where those of the preset are frozen."""
    for section in (cfg.MODEL.FPN, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD):
        if section.NORM == "FrozenBN":
            section.NORM = "GN"


def _set_imagenet_rgb(cfg: CfgNode) -> None:
    """Set the channel order and scaling of torchvision's ImageNet weights."""
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]


def _set_timm_scaling(cfg: CfgNode, backbone: str) -> None:
    """Set the mean and standard deviation of timm's weights for this network."""
    library, _, name = backbone.partition("/")
    if library != "timm":
        return
    import timm

    pretrained = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if pretrained is not None:
        cfg.MODEL.PIXEL_MEAN = [255 * float(value) for value in pretrained.mean]
        cfg.MODEL.PIXEL_STD = [255 * float(value) for value in pretrained.std]


def _set_raw(cfg: CfgNode, raw: Mapping[str, Any]) -> None:
    known = flatten(cfg)
    for key, value in raw.items():
        if key == "MODEL.DEVICE":
            continue  # already applied when the device was chosen
        if key in DERIVED:
            raise ProjectError(
                "the value is derived and cannot be set", place=key, found=repr(value), hint=DERIVED[key]
            )
        if key not in known:
            similar = nearest(key, known)
            raise ProjectError(
                f"Detectron2 has no key {key!r}", place=key, hint=f"Did you mean {similar!r}?" if similar else None
            )
        if isinstance(known[key], float) and isinstance(value, int):
            value = float(value)
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, AssertionError) as error:
            raise ProjectError(
                "the value has the wrong type", place=key, found=repr(value), expected=type(known[key]).__name__
            ) from error
    check_components(cfg, [key for key in raw if key != "MODEL.DEVICE"])
