from dataclasses import replace
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from d2tune.annotations.convert import read_dataset
from d2tune.data.catalog import register


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
