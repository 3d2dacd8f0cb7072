"""COCO instances JSON: one file for all images."""

from d2tune.annotations.formats.coco.classes import Classes
from d2tune.annotations.formats.coco.loose import Loose
from d2tune.annotations.formats.coco.reader import flag_of, from_coco, is_coco, read, read_images
from d2tune.annotations.formats.coco.writer import Ids, image_rows, kept_ids, own_ids, to_coco, write

__all__ = [
    "Classes",
    "Ids",
    "Loose",
    "flag_of",
    "from_coco",
    "image_rows",
    "is_coco",
    "kept_ids",
    "own_ids",
    "read",
    "read_images",
    "to_coco",
    "write",
]
