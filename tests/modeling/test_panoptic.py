import numpy as np
import pytest
import torch

from d2tune.modeling.panoptic import segments


def test_panoptic_fpn_counts_stuff_from_one_behind_its_class_of_all_things() -> None:
    ids = torch.tensor([[1, 1, 2], [0, 3, 4]], dtype=torch.int32)
    infos = [
        {"id": 1, "isthing": True, "score": 0.9, "category_id": 1, "instance_id": 4},
        {"id": 2, "isthing": True, "score": 0.8, "category_id": 0, "instance_id": 0},
        {"id": 3, "isthing": False, "category_id": 1, "area": 1},
        {"id": 4, "isthing": False, "category_id": 3, "area": 1},
    ]
    ids_of_segments, listed = segments({"panoptic_seg": (ids, infos)}, things=2, stuff=3)
    assert ids_of_segments.dtype == np.int32 and ids_of_segments.tolist() == [[1, 1, 2], [0, 3, 4]]
    # things: 0 and 1; stuff: 2, 3 and 4
    assert listed == [
        {"id": 1, "category_id": 1, "score": 0.9},
        {"id": 2, "category_id": 0, "score": 0.8},
        {"id": 3, "category_id": 2},
        {"id": 4, "category_id": 4},
    ]


def test_panoptic_deeplab_holds_classes_in_its_ids() -> None:
    # two objects of class 1, one of class 0, stuff of class 2, and a pixel without a segment
    ids = torch.tensor([[1001, 1002, 1002], [1, 2000, -1]])
    ids_of_segments, listed = segments({"panoptic_seg": (ids, None)}, things=2, stuff=1)
    assert ids_of_segments.dtype == np.int32 and ids_of_segments.tolist() == [[2, 3, 3], [1, 4, 0]]
    assert listed == [
        {"id": 1, "category_id": 0},
        {"id": 2, "category_id": 1},
        {"id": 3, "category_id": 1},
        {"id": 4, "category_id": 2},
    ]


def test_stuff_of_the_first_class_is_a_segment_and_not_nothing() -> None:
    ids_of_segments, listed = segments({"panoptic_seg": (torch.tensor([[0, -1]]), None)}, things=0, stuff=1)
    assert ids_of_segments.tolist() == [[1, 0]] and listed == [{"id": 1, "category_id": 0}]


@pytest.mark.parametrize("infos", [[], None])
def test_no_segments(infos: list | None) -> None:
    ids = torch.zeros(4, 5, dtype=torch.int32) if infos == [] else torch.full((4, 5), -1)
    ids_of_segments, listed = segments({"panoptic_seg": (ids, infos)}, things=1, stuff=1)
    assert ids_of_segments.shape == (4, 5) and not ids_of_segments.any() and listed == []
