from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from d2tune.data.batches import SampleKey
from d2tune.data.panoptic_mapper import PanopticSamples, center_targets
from d2tune.errors import DataError
from d2tune.modeling.config import preset_config

HEIGHT_PX, WIDTH_PX = 90, 140
IGNORE_LABEL, SKY, ROAD, LEFT_CAR, RIGHT_CAR = range(5)
COLORS = np.array([[0, 0, 0], [40, 80, 250], [90, 90, 90], [250, 30, 30], [30, 250, 30]], np.uint8)
SEPARATED = np.array([255, 1, 2, 0, 0], np.uint8)
"""Label of each region for Panoptic FPN: 0 for all things, 1 and up for the stuff."""
CONTIGUOUS = np.array([255, 1, 2, 0, 0])
"""Index of each region's class among car, sky, road."""
SEGMENT_IDS = np.array([0, 70_000, 300, 5, 66_000])


def regions() -> np.ndarray:
    """Sky above road, two cars that touch, a strip at the bottom without a shape."""
    region_map = np.full((HEIGHT_PX, WIDTH_PX), ROAD)
    region_map[:40] = SKY
    region_map[50:70, 20:50] = LEFT_CAR
    region_map[45:75, 50:100] = RIGHT_CAR
    region_map[85:] = IGNORE_LABEL
    return region_map


def street(folder: Path, region_map: np.ndarray | None = None) -> dict:
    """The dataset dict of an image whose colors identify its regions."""
    region_map = regions() if region_map is None else region_map
    ids = SEGMENT_IDS[region_map]
    images = {
        "file_name": COLORS[region_map],
        "sem_seg_file_name": SEPARATED[region_map],
        "pan_seg_file_name": np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8),
    }
    paths = {name: folder / f"{name}.png" for name in images}
    for name, pixels in images.items():
        Image.fromarray(pixels).save(paths[name])
    present = np.unique(region_map).tolist()
    return {name: str(path) for name, path in paths.items()} | {
        "image_id": 1,
        "height": HEIGHT_PX,
        "width": WIDTH_PX,
        "annotations": [car(region_map == region) for region in (LEFT_CAR, RIGHT_CAR) if region in present],
        "segments_info": [
            {"id": int(SEGMENT_IDS[region]), "category_id": int(class_id), "isthing": int(class_id == 0)}
            for region, class_id in zip(present, CONTIGUOUS[present], strict=True)
            if region != IGNORE_LABEL
        ],
    }


def car(mask: np.ndarray) -> dict:
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    box = mask_utils.toBbox(rle).tolist()
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    return {"bbox": box, "bbox_mode": 1, "category_id": 0, "iscrowd": 0, "segmentation": segmentation}


def samples(source: dict, *, preset: str, largest: int = 90, patch_px: int = 0) -> PanopticSamples:
    cfg = preset_config(preset)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    return PanopticSamples(
        [source],
        center_targets=center_targets(cfg),
        channel_order="RGB",
        mask_format="bitmask",
        short_side_range_px=(min(30, largest), largest),
        max_side_px=1000 if largest else 0,
        patch_px=patch_px,
        patch_balance=0.5,
    )


def seen(image: np.ndarray) -> np.ndarray:
    """The region of each pixel by its color ``(3, h, w)``, -1 where resizing has mixed colors."""
    distance = np.abs(image.transpose(1, 2, 0)[:, :, None].astype(int) - COLORS.astype(int)).sum(axis=3)
    return np.where(distance.min(axis=2) < 12, distance.argmin(axis=2), -1)


@pytest.mark.parametrize(("largest", "short_side"), [(90, 90), (90, 61), (50, 47), (140, 137)])
@pytest.mark.parametrize("preset", ["panoptic_fpn_r50", "panoptic_deeplab_r50"])
def test_labels_and_masks_lie_on_the_regions_of_the_image(
    tmp_path: Path, preset: str, largest: int, short_side: int
) -> None:
    data = samples(street(tmp_path), preset=preset, largest=largest)
    labels_of = SEPARATED if preset == "panoptic_fpn_r50" else CONTIGUOUS
    sides = set()
    for seed in range(6):
        item = data[SampleKey(0, short_side, seed)]
        region = seen(item["image"].numpy())
        clear = region >= 0
        assert clear.mean() > 0.85
        labels = item["sem_seg"].numpy()
        assert labels.shape == region.shape and labels.dtype == np.int64
        assert (labels[clear] == labels_of[region[clear]]).mean() > 0.99
        masks = item["instances"].gt_masks.tensor.numpy()
        assert item["instances"].gt_classes.tolist() == [0, 0]
        for mask, side in zip(masks, (LEFT_CAR, RIGHT_CAR), strict=True):
            assert (mask[clear] == (region[clear] == side)).mean() > 0.99
        sides.add(bool(np.nonzero(region == LEFT_CAR)[1].mean() < np.nonzero(region == RIGHT_CAR)[1].mean()))
    assert sides == {True, False}, "both ways round"


def test_squares_of_images_in_their_own_size_are_cut_from_image_labels_and_masks_alike(tmp_path: Path) -> None:
    """Every pixel of a square is that of the image, in labels and masks, and boxes are of what is inside."""
    data = samples(street(tmp_path), preset="panoptic_fpn_r50", largest=0, patch_px=48)
    cars = set()
    for seed in range(12):
        item = data[SampleKey(0, 0, seed)]
        region = seen(item["image"].numpy())
        assert region.shape == (48, 48) and (region >= 0).all()
        assert (item["sem_seg"].numpy() == SEPARATED[region]).all()
        masks = {int(region[mask][0]): mask for mask in item["instances"].gt_masks.tensor.numpy()}
        assert sorted(masks) == [side for side in (LEFT_CAR, RIGHT_CAR) if (region == side).any()]
        for box, (side, mask) in zip(item["instances"].gt_boxes.tensor.tolist(), masks.items(), strict=True):
            assert (mask == (region == side)).all()
            rows, columns = np.nonzero(mask)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        cars.add(tuple(sorted(masks)))
    assert len(cars) > 2, "squares with one car, with both and with none"


def test_offsets_lead_from_each_pixel_of_an_object_to_its_center(tmp_path: Path) -> None:
    data = samples(street(tmp_path), preset="panoptic_deeplab_r50")
    for seed in range(4):
        item = data[SampleKey(0, 72, seed)]
        offset, center = item["offset"].numpy(), item["center"].numpy()
        on_objects = np.zeros(center.shape, bool)
        for mask in item["instances"].gt_masks.tensor.numpy():
            rows, columns = np.nonzero(mask & (item["sem_seg"].numpy() == 0))
            aims = np.stack([rows + offset[0][rows, columns], columns + offset[1][rows, columns]])
            mean = np.array([[rows.mean()], [columns.mean()]])
            assert np.median(np.abs(aims - mean)) < 1.0
            peak = center[tuple(np.rint(mean[:, 0]).astype(int))]
            assert peak > 0.95
            on_objects |= mask
        is_car = item["sem_seg"].numpy() == 0
        assert (item["offset_weights"].numpy()[0] == is_car).all(), "stuff has no center"
        assert (item["center_weights"].numpy()[0] == (item["sem_seg"].numpy() != 255)).all()
        assert (on_objects == is_car).mean() > 0.99
        assert set(np.unique(item["sem_seg_weights"])) == {1.0, 3.0}, "small objects count more"


@pytest.mark.parametrize("preset", ["panoptic_fpn_r50", "panoptic_deeplab_r50"])
def test_an_image_of_stuff_alone(tmp_path: Path, preset: str) -> None:
    region_map = np.full((HEIGHT_PX, WIDTH_PX), SKY)
    item = samples(street(tmp_path, region_map), preset=preset)[SampleKey(0, 60, 0)]
    assert len(item["instances"]) == 0 and tuple(item["instances"].gt_masks.tensor.shape) == (0, 60, 93)
    assert (item["sem_seg"] == 1).all()
    if preset == "panoptic_deeplab_r50":
        assert not item["center"].any() and not item["offset_weights"].any()


def test_an_image_without_shapes_is_ignored(tmp_path: Path) -> None:
    region_map = np.full((HEIGHT_PX, WIDTH_PX), IGNORE_LABEL)
    item = samples(street(tmp_path, region_map), preset="panoptic_deeplab_r50")[SampleKey(0, 60, 0)]
    assert (item["sem_seg"] == 255).all() and not item["center_weights"].any()


def test_a_cached_image_gives_the_same_sample(tmp_path: Path) -> None:
    data = samples(street(tmp_path), preset="panoptic_deeplab_r50", largest=50)
    first, again, augmented = (data[SampleKey(0, 47, seed)] for seed in (3, 3, 4))
    for name in ("image", "sem_seg", "center", "offset"):
        assert (first[name] == again[name]).all()
    assert augmented["image"].shape == first["image"].shape


def test_a_label_map_of_another_size_is_an_error_with_its_name(tmp_path: Path) -> None:
    source = street(tmp_path)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(source["sem_seg_file_name"])
    with pytest.raises(DataError, match=r"sem_seg_file_name\.png.*size of the label map is not.*7 x 5 px.*140 x 90 px"):
        samples(source, preset="panoptic_fpn_r50")[SampleKey(0, 60, 0)]
