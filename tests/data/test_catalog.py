from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.data.catalog import register
from d2tune.data.label_maps import label_files


def test_registering_twice_is_one_name_and_another_content_another(balloon_sample: Path) -> None:
    dataset = read_dataset(balloon_sample / "val")
    name = register(dataset, project="p", part="val")
    assert register(dataset, project="p", part="val") == name
    assert name.startswith("d2tune/p/val/")
    fewer = replace(dataset, instances=dataset.instances[:-1])
    other = register(fewer, project="p", part="val")
    assert other != name
    count = {key: sum(len(one["annotations"]) for one in DatasetCatalog.get(key)) for key in (name, other)}
    assert count == {name: len(dataset.instances), other: len(dataset.instances) - 1}
    assert MetadataCatalog.get(name).thing_classes == ["balloon"]


def test_images_without_instances_are_kept(balloon_sample: Path) -> None:
    dataset = read_dataset(balloon_sample / "train")
    empty = [image_id for image_id, found in dataset.by_image().items() if not found]
    assert empty, "the sample has negatives"
    dicts = DatasetCatalog.get(register(dataset, project="p", part="train"))
    assert len(dicts) == len(dataset.images)
    assert [one["image_id"] for one in dicts if not one["annotations"]] == empty


CATEGORIES = (Category(1, "car"), Category(2, "person"), Category(3, "sky", False), Category(4, "road", False))


def street(folder: Path, *, car_order: int = 0, person_order: int = 1) -> Dataset:
    """A car, a person before it, and sky, on an image of 8 x 6 px in ``folder``."""
    image = Image(1, "a.jpg", 8, 6, folder / "a.jpg")

    def box(number: int, category_id: int, left: int, right: int, order: int) -> Instance:
        outline = np.array([[left, 0], [right, 0], [right, 6], [left, 6]], float)
        bbox = float(left), 0.0, float(right - left), 6.0
        area_px2 = 6.0 * (right - left)
        return Instance(number, 1, category_id, (outline,), bbox, area_px2, shapes=(order,), part_shapes=(order,))

    instances = (box(1, 1, 0, 4, car_order), box(2, 2, 2, 5, person_order), box(3, 3, 6, 8, 2))
    return Dataset((image,), CATEGORIES, instances)


def test_labels_of_things_and_stuff_are_described_as_each_model_wants_them(tmp_path: Path) -> None:
    dataset = street(tmp_path)
    labels = label_files(dataset, with_segments=True)
    names = {
        layout: register(dataset, project="p", part="val", labels=labels, layout=layout)
        for layout in ("contiguous", "separated")
    }
    assert names["contiguous"].startswith("d2tune/p/val/contiguous/panoptic/") and len(set(names.values())) == 2
    for layout, (stuff, ids, folder) in {
        "contiguous": (["car", "person", "sky", "road"], {3: 2, 4: 3}, "semantic"),
        "separated": (["things", "sky", "road"], {3: 1, 4: 2}, "separated"),
    }.items():
        metadata = MetadataCatalog.get(names[layout])
        assert metadata.thing_classes == ["car", "person"]
        assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}
        assert metadata.stuff_classes == stuff and metadata.stuff_dataset_id_to_contiguous_id == ids
        assert (metadata.ignore_label, metadata.evaluator_type) == (255, "coco_panoptic_seg")
        assert Path(metadata.panoptic_json).is_file() and Path(metadata.panoptic_root).is_dir()
        (row,) = DatasetCatalog.get(names[layout])
        assert Path(row["sem_seg_file_name"]) == labels.folder / folder / "a.png"
        assert row["pan_seg_file_name"] == str(labels.segments[0])
        assert [one["category_id"] for one in row["annotations"]] == [0, 1], "stuff has no instances"
        assert [(one["category_id"], one["area"]) for one in row["segments_info"]] == [(0, 12), (1, 18), (2, 12)]


def test_label_images_of_a_semantic_task_have_all_classes(tmp_path: Path) -> None:
    dataset = street(tmp_path)
    labels = label_files(dataset)
    name = register(dataset, project="p", part="val", labels=labels)
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == ["car", "person", "sky", "road"]
    assert metadata.stuff_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2, 4: 3}
    assert metadata.evaluator_type == "sem_seg"
    (row,) = DatasetCatalog.get(name)
    assert row["sem_seg_file_name"] == str(labels.semantic[0]) and row["annotations"] == []
    assert "pan_seg_file_name" not in row


def test_the_same_content_elsewhere_leads_to_where_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for place in ("first", "second"):
        monkeypatch.setenv("D2TUNE_CACHE", str(tmp_path / place / "cache"))
        dataset = street(tmp_path / place)
        name = register(dataset, project="p", part="val", labels=label_files(dataset, with_segments=True))
        (row,) = DatasetCatalog.get(name)
        found.append(name)
        for file in (row["file_name"], row["sem_seg_file_name"], MetadataCatalog.get(name).panoptic_json):
            assert Path(file).is_relative_to(tmp_path / place)
    assert found[0] == found[1]


def test_another_order_of_drawing_is_another_name(tmp_path: Path) -> None:
    under, above = street(tmp_path), street(tmp_path, car_order=1, person_order=0)
    assert under.content_hash() == above.content_hash()
    names = [register(one, project="p", part="val", labels=label_files(one)) for one in (under, above)]
    (first,), (second,) = (DatasetCatalog.get(name) for name in names)
    assert names[0] != names[1] and first["sem_seg_file_name"] != second["sem_seg_file_name"]
