import numpy as np

from d2tune.acceptance.objects import ShownObject, objects_of
from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.inference.results import Detections, LabelMap, PanopticMap, Segment


def detections(masks: np.ndarray | None) -> Detections:
    boxes = np.array([[2, 1, 8, 7], [0, 0, 3, 3]], np.float32)
    rles = None if masks is None else tuple(to_rle(encode_mask(mask)) for mask in masks)
    scores, class_ids = np.array([0.9, 0.4], np.float32), np.array([1, 0])
    return Detections(10, 12, boxes, scores, class_ids, rles, ("cat", "dog"))


def test_a_ring_has_an_outline_and_a_hole() -> None:
    masks = np.zeros((2, 10, 12), bool)
    masks[0, 1:7, 2:8] = True
    masks[0, 3:5, 4:6] = False
    masks[1, 0:3, 0:3] = True
    first, second = objects_of(detections(masks))
    assert (first.number, first.class_name, first.score, first.area_px2) == (1, "dog", 0.9, 32.0)
    corners = [sorted(zip(ring[::2], ring[1::2], strict=True)) for ring in first.rings]
    assert corners == [[(2, 1), (2, 7), (8, 1), (8, 7)], [(4, 3), (4, 5), (6, 3), (6, 5)]]
    assert (second.class_name, second.score, second.area_px2) == ("cat", 0.4, 9.0)
    assert ShownObject.from_stored(first.as_stored()) == first
    assert "rle_counts" not in first.as_shown()


def test_without_masks_the_box_is_the_outline() -> None:
    first, _ = objects_of(detections(None))
    assert first.rings == ((2.0, 1.0, 8.0, 1.0, 8.0, 7.0, 2.0, 7.0),)
    assert (first.box_xywh, first.area_px2, first.rle_counts) == ((2.0, 1.0, 6.0, 6.0), 36.0, None)


def test_an_empty_mask_has_no_outline() -> None:
    first, _ = objects_of(detections(np.zeros((2, 10, 12), bool)))
    assert (first.rings, first.area_px2) == ((), 0.0)


def test_regions_of_a_label_map_are_objects_but_not_its_background() -> None:
    labels = np.zeros((10, 12), np.uint8)
    labels[0:2, 0:2] = 1
    labels[5:9, 5:9] = 1
    labels[2, 2] = 1  # touches the first at a corner
    labels[9, 0] = 2
    labels[0, 11] = 255
    shown = objects_of(LabelMap(labels, ("ground", "cat", "dog")), background="ground")
    assert [(one.class_name, one.area_px2, one.box_xywh) for one in shown] == [
        ("cat", 16.0, (5.0, 5.0, 4.0, 4.0)),
        ("cat", 5.0, (0.0, 0.0, 3.0, 3.0)),
        ("dog", 1.0, (0.0, 9.0, 1.0, 1.0)),
    ]
    assert [one.number for one in shown] == [1, 2, 3]


def test_many_small_regions_are_one_object() -> None:
    labels = np.full((40, 40), 255, np.uint8)
    labels[::2, ::2] = 0  # 400 regions of one pixel
    shown = objects_of(LabelMap(labels, ("cat",)))
    assert len(shown) == 61
    assert sum(one.area_px2 for one in shown) == 400
    assert shown[-1].area_px2 == 340


def test_segments_of_a_panoptic_map_are_objects() -> None:
    ids = np.zeros((6, 6), np.int32)
    ids[:3], ids[3:, :2] = 7, 9
    segments = (Segment(7, 1, False, 18), Segment(9, 0, True, 6, 0.75))
    shown = objects_of(PanopticMap(ids, segments, ("cat", "sky")))
    assert [(one.class_name, one.score, one.area_px2) for one in shown] == [("sky", None, 18.0), ("cat", 0.75, 6.0)]
