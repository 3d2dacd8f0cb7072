from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import check, convert
from d2tune.annotations.formats import masks
from d2tune.annotations.formats.mask_pairs import match_in
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, photo, shape
from tests.shared_files import SHARED


def read(folder: Path, values: Any, **options: Any) -> Dataset:
    pixels = np.asarray(values, dtype=np.uint8)
    photo(folder / "images" / "a.jpg", pixels.shape[1], pixels.shape[0])
    (folder / "masks").mkdir(exist_ok=True)
    PilImage.fromarray(pixels).save(folder / "masks" / "a.png")
    return masks.read(folder, ReadOptions(**options))


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("train/image/0.png", "train/label/0.png"),
        ("JPEGImages/480p/car/00000.jpg", "Annotations/480p/car/00000.png"),
        ("a.jpg", "a_mask.png"),
        ("images/x/a.png", "masks/x/a_gt.png"),
        ("images/ISIC_0000001.jpg", "masks/ISIC_0000001_segmentation.png"),
        ("images/a.jpg", "masks/a.jpg.png"),
        ("images/a.jpg", "masks/a.png"),
        ("images/a.jpg", "masks/mask_a.png"),
        ("images/img_12.png", "masks/mask_12.png"),
        ("images/12_sat.jpg", "masks/12_mask.png"),
        ("leftImg8bit/train/x/x_000_leftImg8bit.png", "gtFine/train/x/x_000_gtFine_labelIds.png"),
        ("train/a.png", "trainannot/a.png"),
        ("train/0001TP_1.png", "train_labels/0001TP_1_L.png"),
        ("train_images/a.jpg", "train_masks/a_mask.gif"),
        ("Images/A.JPG", "Masks/a.png"),
        ("images/cafe\u0301.jpg", "masks/caf\u00e9.png"),
        ("Training_Input/ISIC_1.jpg", "Training_GroundTruth/ISIC_1_segmentation.png"),
        ("labels/images/a.jpg", "labels/masks/a.png"),
    ],
)
def test_photos_and_masks_are_paired_by_the_role_of_their_folders(photo: str, mask: str) -> None:
    assert masks.pairs([photo, mask, "notes.txt", "other/b.jpg"]) == {mask: photo}


@pytest.mark.parametrize(
    ("photos", "objects"),
    [
        (["images/a.jpg", "images/b.jpg"], ["masks/a_0.png", "masks/a_1.png", "masks/a_10.png"]),
        (["images/a.jpg"], ["masks/a_mask_1.png", "masks/a_mask_2.png"]),
        (["x/images/x.png", "y/images/y.png"], ["x/masks/1f.png", "x/masks/2e.png"]),
        (["images/img_1.jpg"], ["masks/img_1_0.png", "masks/img_1_1.png"]),
    ],
)
def test_masks_of_single_objects_have_one_photo(photos: list[str], objects: list[str]) -> None:
    assert match_in([*photos, *objects]).masks_of == {photos[0]: objects}


def test_masks_that_match_nothing_are_lonely() -> None:
    result = match_in(["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png", "masks/a_1.png"])
    assert (result.masks_of, result.lonely) == ({"images/a.jpg": ["masks/a.png"]}, ["masks/c.png", "masks/a_1.png"])
    assert match_in(["images/a.jpg", "masks/z.png"]).is_evident
    assert not match_in(["a.jpg", "road_gt.png", "b.png"]).is_evident
    assert match_in(["a/images/1.jpg", "b/masks/1.png", "b/images/2.jpg", "b/masks/2.png"]).lonely == ["b/masks/1.png"]
    both = match_in(["images/a.jpg", "images/a.png", "masks/a.png"])
    assert both.ambiguous == {"masks/a.png": ["images/a.jpg", "images/a.png"]}
    assert match_in(["images/a.jpg", "masks/a_mask.png", "masks/a_gt.png"]).rivals == {
        "images/a.jpg": ["masks/a_gt.png"]
    }
    copies = match_in(["images/a.jpg", "masks/a.jpg", "masks/a.png"])
    assert (copies.masks_of, copies.rivals) == ({"images/a.jpg": ["masks/a.png"]}, {})


def test_what_cityscapes_has_beside_its_masks_is_skipped() -> None:
    stem = "gtFine/val/x/x_0_gtFine"
    others = [f"{stem}_{name}.png" for name in ("color", "instanceIds", "labelTrainIds")]
    result = match_in(["leftImg8bit/val/x/x_0_leftImg8bit.png", *others, f"{stem}_labelIds.png"])
    assert result.masks_of == {"leftImg8bit/val/x/x_0_leftImg8bit.png": [f"{stem}_labelIds.png"]}
    assert (result.lonely, result.rivals, result.skipped) == ([], {}, others[:2])


def test_binary_masks(tmp_path: Path) -> None:
    dataset = read(tmp_path, [[0, 255, 0, 7], [0, 255, 0, 0]], class_name="cell")
    assert dataset.counts() == {"cell": 1} and dataset.instances[0].area_px2 == 3
    assert read(tmp_path, [[0, 255, 0, 7]], class_name="cell", split_components=True).counts() == {"cell": 2}
    assert read(tmp_path, [[0, 255]], labels=["_background_", "cell"]).counts() == {"cell": 1}
    assert codes(read(tmp_path, [[0, 255]])) == [("error", "no_class", None)]
    empty = read(tmp_path, [[0, 0]], class_name="cell")
    assert (len(empty.images), empty.instances) == (1, ())


def test_index_masks_follow_the_labels_from_0(tmp_path: Path) -> None:
    values = [[0, 1, 2, 255]]
    assert read(tmp_path, values).class_names == ("1", "2")
    assert read(tmp_path, values, labels=["_background_", "road", "car"]).counts() == {"road": 1, "car": 1}
    assert read(tmp_path, values, labels=["sky", "road", "car"]).counts() == {"sky": 1, "road": 1, "car": 1}
    assert codes(read(tmp_path, values, labels=["sky", "road"])) == [("error", "unknown_label", 2)]


def test_color_masks_need_a_table(tmp_path: Path) -> None:
    values = [[[255, 0, 0], [0, 0, 255], [0, 0, 0], [9, 9, 9]]]
    assert {code for _, code, _ in codes(read(tmp_path, values))} == {"unknown_label"}
    with pytest.raises(DataError) as caught:
        read(tmp_path, values).raise_on_errors()
    line = caught.value.one_line()
    assert "(0, 0, 255) has no class; name it in class_dict.csv" in line and "Did you mean" not in line
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,255,0,0\ncar,0,0,255\nvoid,9,9,9\n")
    assert read(tmp_path, values).counts() == {"car": 1, "road": 1}
    (tmp_path / "class_dict.csv").unlink()
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:255,0,0::\ncar:0,0,255::\nx:9,9,9::\n"
    )
    assert read(tmp_path, values).counts() == {"car": 1, "road": 1, "x": 1}


def test_masks_of_another_size_and_masks_without_a_photo(tmp_path: Path) -> None:
    read(tmp_path, [[0, 255]], class_name="cell")
    photo(tmp_path / "images" / "a.jpg", 5, 5)
    photo(tmp_path / "images" / "b.jpg", 5, 5)
    photo(tmp_path / "masks" / "c.png", 5, 5)
    dataset = masks.read(tmp_path, ReadOptions(class_name="cell"))
    assert [(f.level, f.code, f.file) for f in dataset.findings] == [
        ("info", "unlabeled_image", "images/b.jpg"),
        ("error", "size_mismatch", "masks/a.png"),
        ("error", "image_missing", "masks/c.png"),
    ]
    kept = masks.read(tmp_path, ReadOptions(class_name="cell", skip_bad=True))
    assert [finding.level for finding in kept.findings] == ["info", "warning", "warning"]


def test_our_own_semantic_images_read_back(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE, "cat"), shape(TRIANGLE, "dog"))
    convert(tmp_path / "src", to="semantic", out=tmp_path / "back" / "masks")
    photo(tmp_path / "back" / "images" / "a.png")
    dataset = masks.read(tmp_path / "back", ReadOptions(labels=["cat", "dog"]))
    # The triangle, drawn last, covers what it shares with the square: pixels (10..14, 10..14).
    assert [instance.area_px2 for instance in dataset.instances] == [100 - 25, 300]


def test_the_membrane_set(tmp_path: Path) -> None:
    dataset = masks.read(SHARED / "data" / "membrane", ReadOptions(class_name="inside"))
    assert (len(dataset.images), len(dataset.instances), dataset.findings) == (30, 30, ())
    with PilImage.open(SHARED / "data" / "membrane" / dataset.images[0].annotation_file) as image_:
        assert dataset.instances[0].area_px2 == (np.asarray(image_) > 0).sum()


def test_the_car_video() -> None:
    dataset = masks.read(SHARED / "data" / "car_video", ReadOptions(class_name="car"))
    assert (len(dataset.images), len(dataset.instances), dataset.findings) == (40, 40, ())


# Names ---------------------------------------------------------------------------------------------------------------


def save(path: Path, pixels: Any, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PilImage.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image if mode is None else image.convert(mode)).save(path)
    return path


def square(value: int = 255, *, at: int = 10, size: int = 20) -> np.ndarray:
    pixels = np.zeros((48, 64), dtype=np.uint8)
    pixels[at : at + size, at : at + size] = value
    return pixels


def test_one_file_for_each_object_gives_an_instance_for_each(tmp_path: Path) -> None:
    photo(tmp_path / "x1" / "images" / "x1.png")
    photo(tmp_path / "x2" / "images" / "x2.png")
    save(tmp_path / "x1" / "masks" / "0f.png", square(at=2, size=10))
    save(tmp_path / "x1" / "masks" / "1e.png", square(at=8, size=20))
    save(tmp_path / "x2" / "masks" / "2d.png", square(at=5, size=5))
    dataset = check(tmp_path, options=ReadOptions(class_name="nucleus")).dataset
    assert [
        (image.file_name, len(ones)) for image, ones in zip(dataset.images, dataset.by_image().values(), strict=True)
    ] == [
        ("x1/images/x1.png", 2),
        ("x2/images/x2.png", 1),
    ]
    assert ([one.area_px2 for one in dataset.instances], dataset.findings) == ([100, 400, 25], ())
    only = check(tmp_path, options=ReadOptions(labels=["nucleus"], only_class="nucleus")).dataset
    assert only.counts() == {"nucleus": 3}
    assert [f.code for f in check(tmp_path).findings] == ["no_class", "no_class"]


def test_masks_without_an_image_are_an_error_with_the_nearest_names(tmp_path: Path) -> None:
    for name in ("photo_1", "photo_2", "other"):
        photo(tmp_path / "images" / f"{name}.jpg")
    for name in ("fotos-1", "fotos-2"):
        save(tmp_path / "masks" / f"{name}.png", square())
    result = check(tmp_path)
    (error,) = (finding for finding in result.findings if finding.level == "error")
    assert (error.code, error.file, error.also) == ("image_missing", "masks/fotos-1.png", ("masks/fotos-2.png",))
    assert "2 masks have no image of their name, the first is masks/fotos-1.png" in error.message
    assert "images/photo_1.jpg" in error.message
    with pytest.raises(DataError, match="2 masks have no image"):
        convert(tmp_path, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_jpeg_masks_are_refused_by_name_with_the_reason(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    save(tmp_path / "masks" / "a.jpg", square())
    dataset = check(tmp_path, options=ReadOptions(class_name="cell")).dataset
    assert [(f.level, f.code, f.file) for f in dataset.findings] == [("error", "mask_undecodable", "masks/a.jpg")]
    assert "a.jpg is a JPEG, whose compression changes the values of a mask" in dataset.findings[0].message


def test_a_folder_without_masks_is_an_error(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"has no masks; found 1 images, such as a\.jpg"):
        masks.read(tmp_path, ReadOptions(class_name="cell"))


def test_the_nearest_names_are_of_images_and_not_of_masks(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    photo(tmp_path / "images" / "b.jpg")
    save(tmp_path / "masks" / "b.png", square())
    save(tmp_path / "masks" / "zzz.png", square())
    (error,) = masks.read(tmp_path, ReadOptions(class_name="cell")).errors()
    assert error.message.endswith("the images with the nearest names are images/a.jpg")


def test_masks_and_images_in_two_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        photo(tmp_path / split / f"{split}_1.png")
        save(tmp_path / "labels" / f"{split}_1.png", square())
    options = ReadOptions(image_root=tmp_path / "train", class_name="cell")
    assert [f.code for f in masks.read(tmp_path / "labels", options).errors()] == ["image_missing"]
    shared = masks.read(tmp_path / "labels", replace(options, shared_labels=True))
    assert ([image.file_name for image in shared.images], shared.errors()) == (["train_1.png"], ())
    other = replace(options, image_root=photo(tmp_path / "test" / "z.png").parent, shared_labels=True)
    assert [f.code for f in masks.read(tmp_path / "labels", other).errors()] == ["image_missing"]


# Values --------------------------------------------------------------------------------------------------------------


def one_mask(folder: Path, pixels: Any, **options: Any) -> Dataset:
    array = np.asarray(pixels)
    photo(folder / "images" / "a.jpg", array.shape[1], array.shape[0])
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(array).save(folder / "masks" / "a.png")
    return masks.read(folder, ReadOptions(**options))


def resized(resample: int, *, size: int = 64) -> tuple[np.ndarray, int]:
    """A square of 8 x 8 px enlarged from 16 x 16, and its pixels above the half."""
    small = np.zeros((16, 16), dtype=np.uint8)
    small[4:12, 4:12] = 255
    large = np.asarray(PilImage.fromarray(small).resize((size, size), resample))
    return large, int((large > 127).sum())


@pytest.mark.parametrize("options", [{"class_name": "cell"}, {"labels": ["cell"], "only_class": "cell"}])
@pytest.mark.parametrize(
    "resample", [PilImage.Resampling.BILINEAR, PilImage.Resampling.BICUBIC, PilImage.Resampling.LANCZOS]
)
@pytest.mark.parametrize("size", [40, 64, 400])
def test_fringes_of_resized_masks_are_cut_at_half(tmp_path: Path, options: Any, resample: Any, size: int) -> None:
    pixels, above_half = resized(resample, size=size)
    dataset = one_mask(tmp_path, pixels, **options)
    assert codes(dataset) == [("warning", "mask_not_binary", None)]
    share = ((pixels > 0) & (pixels < pixels.max())).mean()
    assert f"binary but for {share:.1%} of its pixels" in dataset.findings[0].message
    assert [one.area_px2 for one in dataset.instances] == [above_half]
    assert above_half == pytest.approx(size * size / 4, rel=0.12)


@pytest.mark.parametrize("size_px", [(32, 24), (48, 36), (63, 47), (65, 49), (96, 72), (128, 96)])
@pytest.mark.parametrize("resample", ["BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS"])
def test_fringes_of_straight_edges_are_cut_at_half(tmp_path: Path, resample: str, size_px: tuple[int, int]) -> None:
    """A box of 20 x 20 px in 64 x 48, resized: its edges have few values between, some of them none near the half."""
    whole = np.zeros((48, 64), dtype=np.uint8)
    whole[11:31, 11:31] = 255
    pixels = np.asarray(PilImage.fromarray(whole).resize(size_px, PilImage.Resampling[resample]))
    dataset = one_mask(tmp_path, pixels, class_name="cell")
    has_fringe = bool(((pixels > 0) & (pixels < 255)).any())
    assert codes(dataset) == ([("warning", "mask_not_binary", None)] if has_fringe else [])
    assert [one.area_px2 for one in dataset.instances] == [int((pixels > 127).sum())]


def test_thin_classes_and_borders_of_ignored_pixels_are_not_fringes(tmp_path: Path) -> None:
    ringed = np.zeros((20, 30), dtype=np.uint8)
    ringed[4:10, 4:10] = 255
    ringed[5:9, 5:9] = 120
    ringed[12:18, 4:10] = 255
    ringed[13:17, 5:9] = 130
    assert one_mask(tmp_path / "ringed", ringed).class_names == ("120", "130")
    thin = np.zeros((20, 30), dtype=np.uint8)
    thin[2:8, 2:8], thin[12, :], thin[15, :] = 200, 90, 110
    assert one_mask(tmp_path / "thin", thin).class_names == ("110", "200", "90")


def test_fringes_of_color_masks_and_of_wide_values_are_cut_at_half(tmp_path: Path) -> None:
    pixels, above_half = resized(PilImage.Resampling.BICUBIC)
    red = np.stack([pixels, np.zeros_like(pixels), np.zeros_like(pixels)], axis=2)
    deep = pixels.astype(np.uint16) * 257
    for some in (np.stack([pixels] * 3, axis=2), red, deep):
        for options in ({"class_name": "cell"}, {"labels": ["cell"], "only_class": "cell"}):
            dataset = one_mask(tmp_path, some, **options)
            assert codes(dataset) == [("warning", "mask_not_binary", None)]
            assert [one.area_px2 for one in dataset.instances] == [above_half]


def test_masks_of_many_classes_are_not_cut(tmp_path: Path) -> None:
    """Class values fill areas somewhere, are few, or are named; neither do palettes have fringes."""
    blocks = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((4, 4), dtype=np.uint8))
    assert len(one_mask(tmp_path, blocks).instances) == 63
    thin = square(255)
    thin[0, :30], thin[1, :30] = 100, 150
    assert one_mask(tmp_path, thin).class_names == ("100", "150")
    small = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
    assert one_mask(tmp_path, small).class_names == tuple("1234567")
    fringe, _ = resized(PilImage.Resampling.BICUBIC)
    names = [f"class {value}" for value in range(256)]
    assert "mask_not_binary" not in {code for _, code, _ in codes(one_mask(tmp_path, fringe, labels=names))}
    palette = PilImage.fromarray(fringe, mode="P")
    palette.putpalette([value for value in range(256) for _ in range(3)])
    palette.save(tmp_path / "masks" / "a.png")
    assert "mask_not_binary" not in {code for _, code, _ in codes(masks.read(tmp_path, ReadOptions(class_name="x")))}


@pytest.mark.parametrize(
    ("color", "clear"), [((255, 0, 0), (0, 0, 0)), ((255, 0, 0), (255, 0, 0)), ((0, 0, 0), (0, 0, 0))]
)
def test_soft_transparency_is_cut_at_half(tmp_path: Path, color: Any, clear: Any) -> None:
    """The color of transparent pixels does not count; where nothing is colored, the transparency is the mask."""
    alpha, above_half = resized(PilImage.Resampling.BILINEAR)
    base = np.where((alpha > 0)[..., None], color, clear).astype(np.uint8)
    dataset = one_mask(tmp_path, np.dstack([base, alpha]), class_name="cell")
    assert [one.area_px2 for one in dataset.instances] == [above_half]
    assert codes(dataset) == [("warning", "mask_not_binary", None)]
    hard = np.where(alpha > 127, 255, 0).astype(np.uint8)
    dataset = one_mask(tmp_path, np.dstack([base, hard]), class_name="cell")
    assert ([one.area_px2 for one in dataset.instances], dataset.findings) == ([above_half], ())


def test_a_photo_that_was_cut_out_is_a_mask_by_its_transparency(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    colors[12:14, 12:14] = 0
    dataset = one_mask(tmp_path, np.dstack([colors, square()]), labels=["cell"], only_class="cell")
    assert ([one.area_px2 for one in dataset.instances], dataset.findings) == ([400], ())


def test_transparent_pixels_of_color_masks_have_no_class(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_text("road,255,0,0\ncar,0,0,255\n")
    colors = np.zeros((48, 64, 3), dtype=np.uint8)
    colors[:], colors[10:30, 10:20] = (255, 0, 0), (0, 0, 255)
    dataset = one_mask(tmp_path, np.dstack([colors, square()]))
    assert (dict.fromkeys(("car", "road"), 200), ()) == (
        {dataset.class_names[one.category_id - 1]: one.area_px2 for one in dataset.instances},
        dataset.findings,
    )


def test_other_values_than_one_name_classes(tmp_path: Path) -> None:
    """Values 1 (100 px), 2 (100 px) and 255 (28 px), in a project with the class car."""
    pixels = np.zeros((48, 64), dtype=np.uint8)
    pixels[:10, :10], pixels[10:20, :10], pixels[40, :28] = 1, 2, 255
    dataset = one_mask(tmp_path, pixels, labels=["car"], only_class="car")
    assert codes(dataset) == [("error", "unknown_label", 2)]
    assert [one.area_px2 for one in dataset.instances] == [100]
    for value in (1, 7, 255):
        single = np.where(pixels == 1, value, 0).astype(np.uint8)
        assert one_mask(tmp_path, single, labels=["car"], only_class="car").instances[0].area_px2 == 100
    single[40, :28], single[:10, :10] = 255, 7
    assert [one.area_px2 for one in one_mask(tmp_path, single, labels=["car"], only_class="car").instances] == [100]


def test_masks_whose_only_values_differ_name_classes(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 1), ("c", 2), ("d", 255)):
        photo(tmp_path / "images" / f"{name}.jpg")
        save(tmp_path / "masks" / f"{name}.png", square(value))
    dataset = masks.read(tmp_path, ReadOptions(labels=["car"], only_class="car"))
    assert [(f.code, f.file) for f in dataset.errors()] == [("unknown_label", "masks/c.png")]
    assert "the mask has the value 2, most masks have 1" in dataset.errors()[0].message
    assert masks.read(tmp_path, ReadOptions(class_name="car")).counts() == {"car": 4}


def test_binary_masks_of_16_bits(tmp_path: Path) -> None:
    wide = square().astype(np.uint16) * 257
    assert codes(one_mask(tmp_path, wide)) == [("error", "no_class", None)]
    for options in ({"class_name": "cell"}, {"labels": ["cell"], "only_class": "cell"}):
        dataset = one_mask(tmp_path, wide, **options)
        assert ([one.area_px2 for one in dataset.instances], dataset.findings) == ([400], ())
