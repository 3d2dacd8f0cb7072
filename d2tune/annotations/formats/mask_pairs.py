"""Which mask belongs to which photo, by the names of the files and of their folders."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import PurePosixPath

from d2tune.annotations.formats.shared.mask_files import LOSSY_SUFFIXES
from d2tune.annotations.io.images import is_image_name

MASK_FOLDERS = frozenset(
    {
        *("annot", "annotation", "annotations", "groundtruth", "gt", "gtcoarse", "gtfine", "label", "labels"),
        *("mask", "masks", "segmentation", "segmentationclass", "semantic", "stuff"),
    }
)
"""Names of mask folders, in lower case."""

IMAGE_FOLDERS = frozenset(
    {
        *("image", "images", "img", "imgs", "input", "inputs", "jpegimages", "leftimg8bit", "photo", "photos"),
        "rgb",
    }
)
"""Names of photo folders, in lower case."""

_ROLE_AT_THE_END = re.compile(
    r"(?P<name>.+?)[_-]?(?:(?P<mask>annot|annotations?|labels?|masks?|gt|groundtruth|segmentations?)|images?|imgs?|input)"
)
"""A folder such as ``train_masks`` or SegNet's ``trainannot``."""

_ENDINGS = (
    *("_gtfine_labelids", "_gtcoarse_labelids", "_gtfine_labeltrainids", "_gtcoarse_labeltrainids"),
    *("_segmentation", "_groundtruth", "_annotation", "_labels", "_label", "_masks", "_mask", "_segm", "_seg", "_gt"),
    *("-mask", "-label", "-gt", "-seg"),
)
_ENDINGS_IN_FOLDERS = ("_l",)
"""Endings that say something in a folder of masks only, as in CamVid."""

_STARTS = ("segmentation_", "mask_", "label_", "seg_", "gt_", "mask-", "label-")
_PHOTO_ENDINGS = ("_leftimg8bit", "_image", "_img", "_rgb", "_sat")
_PHOTO_STARTS = ("image_", "img_", "photo_")
_NOT_MASKS = re.compile(r".+_gt(?:fine|coarse)_(?:color|instanceids|instancetrainids)")
"""What Cityscapes has beside its masks of classes."""

_NUMBERED = re.compile(r"(.+?)[_-]?(?:object|obj|instance|inst)?[_-](\d+)")
_NEAREST_OF = 5000
_LISTED = 3


@dataclass(frozen=True, slots=True)
class Matches:
    """Photos with their masks, and what has no partner.

    Attributes:
        masks_of: The masks by photo: one, or one for each object.
        lonely: Masks without a photo.
        ambiguous: The photos that a mask can belong to, by mask, where there are several.
        rivals: The masks that a photo has beside the first of them, by photo, unless they are masks of objects.
        skipped: Files that are neither.
    """

    masks_of: dict[str, list[str]] = field(default_factory=dict)
    lonely: list[str] = field(default_factory=list)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    rivals: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def is_evident(self) -> bool:
        """Whether files are masks without doubt: by a photo, or by their folder."""
        return bool(self.masks_of or self.ambiguous) or any(is_in_mask_folder(name) for name in self.lonely)


@dataclass(frozen=True, slots=True)
class _File:
    """A file, with the folders without a role, and the name without suffix."""

    name: str
    folders: tuple[str, ...]
    stem: str


def match_in(names: Iterable[str]) -> Matches:
    """The photos and the masks of one folder.

    A mask lies in a folder of masks, or its name has an ending or a start such as ``_mask`` and a photo has the rest of
    its name. A mask in a folder of masks may have the name of its photo, that name with its suffix, or such an ending.
    """
    photos, masks, perhaps, skipped = [], [], [], []
    for name in names:
        if not is_image_name(name):
            continue
        stem = PurePosixPath(name).stem.lower()
        if _NOT_MASKS.fullmatch(stem):
            skipped.append(name)
        elif is_in_mask_folder(name):
            masks.append(name)
        elif not name.lower().endswith(LOSSY_SUFFIXES) and _has_mask_name(stem):
            perhaps.append(name)
        else:
            photos.append(name)
    matches = _match(photos, masks + perhaps)
    odd = {name for name in matches.lonely if name in set(perhaps)}
    if not odd:
        return matches if not skipped else _with(matches, skipped)
    # a name such as road_gt.png can be that of a photo
    paired = bool(matches.masks_of)
    lonely = [name for name in matches.lonely if paired or name not in odd]
    return Matches(matches.masks_of, lonely, matches.ambiguous, matches.rivals, skipped)


def match_across(masks: Iterable[str], photos: Iterable[str]) -> Matches:
    """The photos of one folder and the masks of another; names are relative to their folders."""
    images = [name for name in masks if is_image_name(name)]
    skipped = [name for name in images if _NOT_MASKS.fullmatch(PurePosixPath(name).stem.lower())]
    matches = _match([name for name in photos if is_image_name(name)], [one for one in images if one not in skipped])
    return _with(matches, skipped)


def _with(matches: Matches, skipped: list[str]) -> Matches:
    return Matches(matches.masks_of, matches.lonely, matches.ambiguous, matches.rivals, skipped)


def nearest_photos(mask: str, photos: Sequence[str]) -> list[str]:
    """The photos whose names are nearest to that of a mask; the first photos where none is near."""
    stems = {PurePosixPath(name).stem: name for name in photos[:_NEAREST_OF]}
    near = get_close_matches(PurePosixPath(mask).stem, list(stems), n=_LISTED, cutoff=0.5)
    return [stems[stem] for stem in near] or list(photos[:_LISTED])


def is_in_mask_folder(name: str) -> bool:
    """Whether the innermost folder with a role is one of masks."""
    for folder in reversed(PurePosixPath(name.lower()).parts[:-1]):
        if folder in IMAGE_FOLDERS:
            return False
        if folder in MASK_FOLDERS:
            return True
        if match := _ROLE_AT_THE_END.fullmatch(folder):
            return match["mask"] is not None
    return False


def _has_mask_name(stem: str) -> bool:
    return any(stem.endswith(ending) and len(stem) > len(ending) for ending in _ENDINGS) or any(
        stem.startswith(start) and len(stem) > len(start) for start in _STARTS
    )


def _file(name: str) -> _File:
    path = PurePosixPath(name)
    folders = []
    for folder in path.parts[:-1]:
        folder = _folded(folder)
        if folder in MASK_FOLDERS or folder in IMAGE_FOLDERS:
            continue
        match = _ROLE_AT_THE_END.fullmatch(folder)
        folders.append(match["name"] if match else folder)
    return _File(name, tuple(folders), path.stem)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _match(photos: Sequence[str], masks: Sequence[str]) -> Matches:
    """Give each mask its photo: by folders and names, else, where that gives none at all, by names that occur once."""
    photo_files, mask_files = [_file(name) for name in photos], [_file(name) for name in masks]
    matches = _by_names(photo_files, mask_files)
    if not matches.masks_of and not matches.ambiguous and matches.lonely:
        flat = [[_File(one.name, (), one.stem) for one in files] for files in (photo_files, mask_files)]
        if len({_folded(one.stem) for one in flat[0]}) == len(flat[0]):
            return _by_names(*flat)
    return matches


def _by_names(photos: Sequence[_File], masks: Sequence[_File]) -> Matches:
    whole: dict[tuple[tuple[str, ...], str], list[_File]] = {}
    short: dict[tuple[tuple[str, ...], str], list[_File]] = {}
    for photo in photos:
        whole.setdefault((photo.folders, _folded(photo.stem)), []).append(photo)
        for form in _without(_folded(photo.stem), _PHOTO_ENDINGS, _PHOTO_STARTS):
            short.setdefault((photo.folders, form), []).append(photo)
    result = Matches()
    objects: dict[str, list[str]] = {}
    left: list[_File] = []
    for mask in masks:
        candidates, is_object = _candidates(mask, whole, short)
        if not candidates:
            left.append(mask)
        elif len(candidates) > 1:
            result.ambiguous[mask.name] = [photo.name for photo in candidates]
        else:
            (result.masks_of if not is_object else objects).setdefault(candidates[0].name, []).append(mask.name)
    for photo_name, names in objects.items():
        if photo_name in result.masks_of:
            left += [mask for mask in masks if mask.name in names]
        else:
            result.masks_of[photo_name] = names
    for photo_name, names in result.masks_of.items():
        if photo_name not in objects and len(names) > 1:
            result.masks_of[photo_name], rest = _chosen(names)
            if rest:
                result.rivals[photo_name] = rest
    _give_objects_by_folder(photos, left, result)
    return result


def _candidates(
    mask: _File,
    whole: dict[tuple[tuple[str, ...], str], list[_File]],
    short: dict[tuple[tuple[str, ...], str], list[_File]],
) -> tuple[list[_File], bool]:
    """The photos of a mask, and whether its name is that of one object of several."""
    stem = _folded(mask.stem)
    if is_image_name(stem):  # a.jpg.png
        named = [
            photo
            for photo in whole.get((mask.folders, _folded(PurePosixPath(mask.stem).stem)), [])
            if _folded(PurePosixPath(photo.name).name) == stem
        ]
        if named:
            return named, False
        stem = PurePosixPath(stem).stem
    forms = [stem, *_without(stem, (*_ENDINGS, *_ENDINGS_IN_FOLDERS), _STARTS)]
    numbered = [match[1] for form in forms if (match := _NUMBERED.fullmatch(form))]
    more = [form for one in numbered for form in _without(one, _ENDINGS, _STARTS)]
    for is_object, some in ((False, forms), (True, [*numbered, *more])):
        for table in (whole, short):
            for form in some:
                if photos := table.get((mask.folders, form)):
                    same = [photo for photo in photos if photo.stem == mask.stem]
                    return (same if len(same) == 1 else photos), is_object
    return [], False


def _without(stem: str, endings: Sequence[str], starts: Sequence[str]) -> Iterator[str]:
    """The name without its ending or start, then without the next one."""
    while True:
        ending = next((one for one in endings if stem.endswith(one) and len(stem) > len(one)), None)
        start = next((one for one in starts if stem.startswith(one) and len(stem) > len(one)), None)
        if ending is not None:
            stem = stem[: -len(ending)]
        elif start is not None:
            stem = stem[len(start) :]
        else:
            return
        yield stem


def _chosen(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The mask to read of several of one photo, and those that contradict it.

    A JPEG beside a PNG is a copy to look at, and Cityscapes has masks of fewer classes beside those of all.
    """
    exact = [name for name in names if not name.lower().endswith(LOSSY_SUFFIXES)] or list(names)
    full = [name for name in exact if "labeltrainids" not in name.lower()] or exact
    return full[:1], full[1:]


def _give_objects_by_folder(photos: Sequence[_File], left: Sequence[_File], result: Matches) -> None:
    """Masks of any names belong to the only photo of their folder, where the folder has the photo's name (DSB 2018)."""
    of_folder: dict[tuple[str, ...], list[_File]] = {}
    for photo in photos:
        of_folder.setdefault(photo.folders, []).append(photo)
    for mask in left:
        own = of_folder.get(mask.folders, []) if mask.folders else []
        if len(own) == 1 and _folded(own[0].stem) == mask.folders[-1] and own[0].name not in result.rivals:
            result.masks_of.setdefault(own[0].name, []).append(mask.name)
        else:
            result.lonely.append(mask.name)
