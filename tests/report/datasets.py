"""Datasets made of rectangles, for tests of what is shown of them."""

from pathlib import Path

from PIL import Image as PilImage

from d2tune.annotations.geometry.polygons import rectangle_points
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.report.check_page.survey import Checked, survey


def make_dataset(sizes, boxes, *, classes=("a", "b"), folder=None, names=None, findings=()):
    """Images of given sizes with rectangles (image number, class number, x, y, width, height)."""
    names = names or [f"{number:04d}.png" for number in range(1, len(sizes) + 1)]
    images = tuple(
        Image(number, name, width, height, None if folder is None else folder / name, None)
        for number, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), start=1)
    )
    instances = tuple(
        Instance(number, image, label, (rectangle_points((x, y), (x + w, y + h)),), (x, y, w, h), float(w * h))
        for number, (image, label, x, y, w, h) in enumerate(sorted(boxes), start=1)
    )
    categories = tuple(Category(number, name) for number, name in enumerate(classes, start=1))
    return Dataset(images, categories, instances, tuple(findings))


def surveyed(*arguments, split_of=None, setting=None, **options):
    dataset = make_dataset(*arguments, **options)
    return survey([Checked(Path("data"), dataset, dataset.findings)], split_of=split_of, setting=setting)


def saved(path, pixels, **options):
    PilImage.fromarray(pixels).save(path, **options)
    return path
