"""Which augmentations a training has."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentations:
    """The augmentations beside size and mirroring; by default there are none.

    Attributes:
        color: Share of images whose brightness, contrast and saturation are varied.
        blur: Share of images that are blurred.
        gray: Share of images without color.
        crop: Share of images of which a random rectangle is taken that cuts no instance.
        copy_paste: Share of images into which instances of another image are pasted.
        largest: Short and largest long side of an evaluated image, in pixels: larger training images are cut to the
            size that they have in evaluations. None does not cut them.
    """

    color: float = 0.0
    blur: float = 0.0
    gray: float = 0.0
    crop: float = 0.0
    copy_paste: float = 0.0
    largest: tuple[int, int] | None = None

    @property
    def in_words(self) -> str:
        """What is varied, for people; empty where nothing is."""
        shares = {
            "varied colors": self.color,
            "gray": self.gray,
            "blurred": self.blur,
            "cropped": self.crop,
            "with pasted objects": self.copy_paste,
        }
        words = [f"{share:.0%} {name}" for name, share in shares.items() if share]
        return ", ".join([*(["each with a size of its own"] if self.largest is not None else []), *words])

    @property
    def cuts_instances(self) -> bool:
        """Whether a part of an instance may be hidden or outside, so that its mask must be a bitmap."""
        return self.copy_paste > 0 or self.largest is not None


NO_AUGMENTATIONS = Augmentations()
"""Nothing beside size and mirroring."""


def augmentations_of(cfg: CfgNode) -> Augmentations:
    """The augmentations of a run's config."""
    given = cfg.INPUT
    return Augmentations(
        color=given.COLOR_JITTER,
        blur=given.BLUR,
        gray=given.GRAY,
        crop=given.WHOLE_CROP,
        copy_paste=given.COPY_PASTE,
        largest=(given.MIN_SIZE_TEST, given.MAX_SIZE_TEST) if given.LARGE_SCALE_JITTER else None,
    )


def without_augmentation(cfg: CfgNode) -> CfgNode:
    """A config whose training images vary in nothing but size, mirroring and the place of patches."""
    plain = cfg.clone()
    plain.defrost()
    for key in ("COLOR_JITTER", "BLUR", "GRAY", "WHOLE_CROP", "COPY_PASTE"):
        plain.INPUT[key] = 0.0
    plain.INPUT.LARGE_SCALE_JITTER = False
    plain.freeze()
    return plain
