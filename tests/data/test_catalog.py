from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from d2tune.annotations.convert import read_dataset
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.data.catalog import register
from d2tune.data.label_maps import label_files


def test_the_name_depends_on_the_content(balloon_sample: Path) -> None:
    dataset = read_dataset(balloon_sample / "val")
    name = register(dataset, project="p", split="val")
    assert register(dataset, project="p", split="val") == name
    assert name.startswith("d2tune/p/val/")
    fewer = replace(dataset, instances=dataset.instances[:-1])
    other_name = register(fewer, project="p", split="val")
    assert other_name != name
    count = {key: sum(len(row["annotations"]) for row in DatasetCatalog.get(key)) for key in (name, other_name)}
    assert count == {name: len(dataset.instances), other_name: len(dataset.instances) - 1}
    assert MetadataCatalog.get(name).thing_classes == ["balloon"]


def test_images_without_instances_are_kept(balloon_sample: Path) -> None:
    dataset = read_dataset(balloon_sample / "train")
    empty = [image_id for image_id, instances in dataset.by_image().items() if not instances]
    assert empty, "the sample has negatives"
    dicts = DatasetCatalog.get(register(dataset, project="p", split="train"))
    assert len(dicts) == len(dataset.images)
    assert [row["image_id"] for row in dicts if not row["annotations"]] == empty


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


def test_metadata_and_label_maps_of_things_and_stuff_follow_the_layout(tmp_path: Path) -> None:
    dataset = street(tmp_path)
    labels = label_files(dataset, with_segments=True)
    names = {
        layout: register(dataset, project="p", split="val", labels=labels, layout=layout)
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
        assert [annotation["category_id"] for annotation in row["annotations"]] == [0, 1], "stuff has no instances"
        assert [(info["category_id"], info["area"]) for info in row["segments_info"]] == [(0, 12), (1, 18), (2, 12)]


def test_label_maps_of_a_semantic_task_have_all_classes(tmp_path: Path) -> None:
    dataset = street(tmp_path)
    labels = label_files(dataset)
    name = register(dataset, project="p", split="val", labels=labels)
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == ["car", "person", "sky", "road"]
    assert metadata.stuff_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2, 4: 3}
    assert metadata.evaluator_type == "sem_seg"
    (row,) = DatasetCatalog.get(name)
    assert row["sem_seg_file_name"] == str(labels.semantic[0]) and row["annotations"] == []
    assert "pan_seg_file_name" not in row


def test_registering_the_same_content_again_replaces_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for place in ("first", "second"):
        monkeypatch.setenv("D2TUNE_CACHE", str(tmp_path / place / "cache"))
        dataset = street(tmp_path / place)
        name = register(dataset, project="p", split="val", labels=label_files(dataset, with_segments=True))
        (row,) = DatasetCatalog.get(name)
        names.append(name)
        for file in (row["file_name"], row["sem_seg_file_name"], MetadataCatalog.get(name).panoptic_json):
            assert Path(file).is_relative_to(tmp_path / place)
    assert names[0] == names[1]


def test_the_name_depends_on_the_order_of_overlapping_shapes(tmp_path: Path) -> None:
    under, above = street(tmp_path), street(tmp_path, car_order=1, person_order=0)
    assert under.content_hash() == above.content_hash()
    names = [register(dataset, project="p", split="val", labels=label_files(dataset)) for dataset in (under, above)]
    (first,), (second,) = (DatasetCatalog.get(name) for name in names)
    assert names[0] != names[1] and first["sem_seg_file_name"] != second["sem_seg_file_name"]
