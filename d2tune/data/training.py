"""The training samples of each task."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.augmentation.options import augmentations_of
from d2tune.data.catalog import Layout, detectron2_dicts
from d2tune.data.image_reader import image_reader
from d2tune.data.label_maps import LabelFiles
from d2tune.data.mapper import TrainingSamples
from d2tune.data.panoptic_mapper import PanopticSamples, center_targets
from d2tune.data.semantic_mapper import SemanticInput, SemanticSamples
from d2tune.data.tracking_pairs import PairOptions, TrackingPairs
from d2tune.project import Project


def layout_of(cfg: CfgNode) -> Layout:
    """The layout of the label maps that the model of ``cfg`` is trained on."""
    return "separated" if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN" else "contiguous"


def instance_samples(dataset: Dataset, cfg: CfgNode, *, cache_bytes: int) -> TrainingSamples:
    """Images with their instances, by ``SampleKey``.

    Args:
        dataset: The training split.
        cfg: The run's config.
        cache_bytes: Memory that images may take in one process.
    """
    return TrainingSamples(detectron2_dicts(dataset), **_instance_options(cfg, cache_bytes))


def panoptic_samples(dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, *, cache_bytes: int) -> PanopticSamples:
    """Images with their instances and label maps, by ``SampleKey``.

    Args:
        dataset: The training split, its background painted.
        labels: Its label maps with segments.
        cfg: The run's config.
        cache_bytes: Memory that images may take in one process.
    """
    dicts = detectron2_dicts(dataset, labels=labels, layout=layout_of(cfg))
    return PanopticSamples(dicts, center_targets=center_targets(cfg), **_instance_options(cfg, cache_bytes))


def semantic_samples(
    dataset: Dataset, labels: LabelFiles | None, cfg: CfgNode, project: Project, *, cache_bytes: int
) -> SemanticSamples:
    """Images, or patches of images, with their label maps, by ``SampleKey``.

    Args:
        dataset: The training split, its background painted.
        labels: Its label maps.
        cfg: The run's config.
        project: The project, with the options for reading its images.
        cache_bytes: Memory that images may take in one process.
    """
    background = project.data.background
    options = SemanticInput(
        reader=image_reader(project, cfg),
        max_side_px=cfg.INPUT.MAX_SIZE_TRAIN,
        largest_short_side_px=cfg.INPUT.MIN_SIZE_TRAIN[1],
        patch_px=cfg.INPUT.PATCH_PX,
        patch_balance=cfg.INPUT.PATCH_BALANCE,
        augment=cfg.INPUT.AUGMENT,
        augmentations=augmentations_of(cfg),
        classes=len(dataset.categories),
        short_side_range_px=tuple(cfg.INPUT.MIN_SIZE_TRAIN),
        background=dataset.class_names.index(background) if background in dataset.class_names else None,
    )
    dicts = detectron2_dicts(dataset, labels=labels, layout=layout_of(cfg))
    return SemanticSamples(dicts, options, cache_bytes=cache_bytes)


def tracking_pairs(dataset: Dataset, cfg: CfgNode, project: Project, *, cache_bytes: int) -> TrackingPairs:
    """Pairs of images that show an object, by ``SampleKey``.

    Args:
        dataset: The training split.
        cfg: The run's config.
        project: The project, which says whether its images are frames.
        cache_bytes: Memory that images may take in one process.
    """
    siammask = cfg.MODEL.SIAMMASK
    options = PairOptions(
        channel_order=cfg.INPUT.FORMAT,
        short_side_px=cfg.INPUT.MIN_SIZE_TEST,
        rendered=siammask.RENDERED,
        negatives=siammask.NEGATIVES,
        shift_px=siammask.SHIFT_PX,
        scale=siammask.SCALE,
        color_jitter=cfg.INPUT.COLOR_JITTER,
        are_frames=project.data.frames,
    )
    return TrackingPairs(dataset, options, cache_bytes=cache_bytes)


def _instance_options(cfg: CfgNode, cache_bytes: int) -> dict[str, Any]:
    return {
        "channel_order": cfg.INPUT.FORMAT,
        "white": cfg.INPUT.WHITE or None,
        "mask_format": cfg.INPUT.MASK_FORMAT,
        "short_side_range_px": tuple(cfg.INPUT.MIN_SIZE_TRAIN),
        "max_side_px": cfg.INPUT.MAX_SIZE_TRAIN,
        "augmentations": augmentations_of(cfg),
        "patch_px": cfg.INPUT.PATCH_PX,
        "patch_balance": cfg.INPUT.PATCH_BALANCE,
        "cache_bytes": cache_bytes,
    }
