"""Annotation folders as the tools write them, and ways to spoil them; a seed number gives the same mutant each time."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image as PilImage

from tests.annotations.builders import SQUARE, TRIANGLE, labelme_value, png_base64, shape
from tests.shared_files import SHARED

Files = dict[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A sound folder to start from."""

    name: str
    files: Files
    format: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mutant:
    """A spoiled folder and how it is to be read and written."""

    number: int
    seed: str
    files: Files
    format: str
    options: dict[str, Any]
    to: str
    steps: tuple[str, ...]


def encoded(pixels: Any, suffix: str = "png", **options: Any) -> bytes:
    stream = io.BytesIO()
    PilImage.fromarray(np.asarray(pixels)).save(
        stream, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), **options
    )
    return stream.getvalue()


def photo(suffix: str = "png", width: int = 64, height: int = 48, **options: Any) -> bytes:
    rows, columns = np.mgrid[:height, :width]
    return encoded(np.stack([rows * 5, columns * 3, rows + columns], axis=-1).astype(np.uint8), suffix, **options)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def labelme_shapes() -> list[dict[str, Any]]:
    return [
        shape(TRIANGLE, group_id=1),
        shape(SQUARE, group_id=1, description="left ear"),
        shape([[32, 24], [41, 36]], "ball", "circle", own_key=[1, {"a": None}]),
        shape([[5, 6], [7, 8]], "cell", "mask", mask=png_base64(np.eye(3))),
        shape([[40, 6], [49, 15]], "ring", "mask", mask=png_base64(np.pad(np.zeros((4, 4)), 3, constant_values=255))),
        shape([[1, 1], [9, 9]], "box", "rectangle", flags={"iscrowd": True}),
        shape([[20, 20], [40, 22], [39, 32], [19, 30]], "box", "oriented_rectangle"),
        shape([[2, 40], [60, 45], [2, 45], [60, 40]], "bow-1"),
        shape([[3, 3]], "spot", "point"),
        shape([[3, 3], [5, 5]], "edge", "line"),
        shape([[3, 3], [5, 5], [9, 5]], "edge", "linestrip"),
        shape([[3, 3], [5, 5]], "dots", "points", point_labels=[1, 0]),
        shape(SQUARE, "__ignore__"),
    ]


def labelme_seeds() -> list[Seed]:
    whole = labelme_value(*labelme_shapes(), lineColor=[0, 255, 0, 128])
    inner = [[11, 12], [20, 12], [12, 30]]
    nested = labelme_value(*(shape(points, group_id=2) for points in (TRIANGLE, inner, SQUARE, TRIANGLE[::-1])))
    nested["shapes"] += labelme_shapes()[2:]
    embedded = labelme_value(shape(TRIANGLE), image="images/b.png", imageData=PNG_TEXT)
    turned = photo("jpg", exif=_orientation(6))
    old = {key: whole[key] for key in ("shapes", "imagePath", "imageData")}
    old["shapes"] = [{"label": "cat", "points": TRIANGLE, "line_color": None, "fill_color": None}]
    seeds = [
        Seed("labelme", {"a.json": dumped(whole), "a.png": photo()}),
        Seed("labelme-hole", {"a.json": dumped(nested), "a.png": photo()}, options={"nested_groups": "hole"}),
        Seed("labelme-strip", {"a.json": dumped(whole), "a.png": photo()}, options={"instance_suffix": "strip"}),
        Seed("labelme-labels", {"a.json": dumped(whole), "a.png": photo()}, options={"labels": ("cat", "ball", "box")}),
        Seed("labelme-old", {"a.json": dumped(old), "a.png": photo("gif")}),
        Seed("labelme-embedded", {"a.json": dumped(embedded)}),
        Seed(
            "labelme-turned",
            {"a.json": dumped(labelme_value(shape(TRIANGLE), image="a.jpg", size=(48, 64))), "a.jpg": turned},
        ),
        Seed(
            "labelme-two",
            {
                "one/a.json": dumped(labelme_value(shape(TRIANGLE), image="..\\images\\a.webp")),
                "two/a.json": dumped(labelme_value(shape(SQUARE, "Cat"), image="a.tif")),
                "images/a.webp": photo("webp"),
                "two/a.tif": photo("tif"),
                "two/lone.bmp": photo("bmp"),
            },
            options={"include_unlabeled": True},
        ),
    ]
    for folder in sorted((SHARED / "data" / "labelme_zoo").iterdir()):
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        if sum(map(len, files.values())) < 400_000:
            seeds.append(Seed(f"zoo {folder.name[:2]}", files, "labelme"))
    return seeds


def _orientation(value: int) -> PilImage.Exif:
    exif = PilImage.Exif()
    exif[0x0112] = value
    return exif


def coco_value() -> dict[str, Any]:
    return {
        "info": {"year": 2024},
        "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 9, 9], "segmentation": [[1, 1, 20, 1, 20, 20]]},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [3, 4, 9, 9], "iscrowd": 0, "area": 81},
            {
                "id": 3,
                "image_id": 7,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [48, 64], "counts": "g:4\\100MeN1[120000Y\\2"},
            },
            {
                "id": 4,
                "image_id": 7,
                "category_id": 3,
                "score": 0.75,
                "segmentation": {"size": [48, 64], "counts": [100, 20, 28, 20, 48 * 64 - 168]},
            },
            {
                "id": 5,
                "image_id": 7,
                "category_id": 3,
                "segmentation": [[1, 1, 9, 1, 9, 9], [30, 30, 60, 30, 60, 44.5]],
            },
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "sky", "isthing": 0}],
    }


def panoptic_seed() -> Seed:
    colors = np.zeros((48, 64, 3), dtype=np.uint8)
    colors[5:20, 5:20] = (9, 1, 0)
    colors[30:, :] = (4, 0, 2)
    value = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {
                "image_id": 5,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 9 + 256, "category_id": 2, "area": 225, "iscrowd": 0, "bbox": [5, 5, 15, 15]},
                    {"id": 4 + 2 * 65536, "category_id": 4, "area": 1, "iscrowd": 1},
                ],
            }
        ],
        "categories": [{"id": 4, "name": "sky", "isthing": 0}, {"id": 2, "name": "cat", "isthing": 1}],
    }
    return Seed(
        "panoptic", {"set.json": dumped(value), "set/a.png": encoded(colors), "a.jpg": photo("jpg")}, "panoptic"
    )


def via_seeds() -> list[Seed]:
    shapes = [
        {"name": "rect", "x": 3, "y": 4, "width": 10, "height": 12},
        {"name": "circle", "cx": 30, "cy": 20, "r": 9.5},
        {"name": "ellipse", "cx": 40, "cy": 30, "rx": 9, "ry": 4, "theta": 0.7},
        {"name": "polygon", "all_points_x": [1, 9, 9, 1], "all_points_y": [1, 1, 9, 1]},
        {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [1, 1]},
        {"name": "point", "cx": 3, "cy": 4},
    ]
    regions = [{"shape_attributes": row, "region_attributes": {"kind": "cat"}} for row in shapes]
    regions[1] = regions[1] | {"region_attributes": {"kind": {"dog": True, "owl": False}}}
    entry = {"filename": "a.png", "size": 99, "file_attributes": {}}
    one = {"a.png99": entry | {"regions": {str(number): row for number, row in enumerate(regions)}}}
    two = {"_via_settings": {}, "_via_img_metadata": {"a.png99": entry | {"regions": regions}}, "_via_attributes": {}}
    three = {
        "project": {"pid": "__VIA_PROJECT_ID__"},
        "attribute": {"1": {"aname": "Class", "options": {"0": "cat", "1": "dog"}}},
        "file": {"1": {"fid": 1, "fname": "a.png"}},
        "view": {"1": {"fid_list": [1]}},
        "metadata": {
            "1_a": {"vid": "1", "xy": [2, 1, 1, 9, 9], "av": {"1": "0"}},
            "1_b": {"vid": "1", "xy": [7, 1, 1, 9, 1, 9, 9], "av": {"1": "0,1"}},
            "1_c": {"vid": "1", "xy": [3, 30, 20, 9], "av": {"1": "1"}},
            "1_d": {"vid": "1", "xy": [4, 30, 20, 9, 5], "av": {"1": "1"}},
            "1_e": {"vid": "1", "xy": [1, 30, 20], "av": {"1": "1"}},
            "1_f": {"vid": "1", "xy": [], "av": {"1": "1"}},
        },
    }
    named = {"class_name": "thing"}
    return [
        Seed(f"via-{number}", {"via.json": dumped(value), "a.png": photo()}, "via", named)
        for number, value in enumerate((one, two, three), start=1)
    ]


def csv_seeds() -> list[Seed]:
    tables = {
        "carvana": b"img,rle_mask\na.png,1 10 70 5 3000 60\nb.png,5 5\n",
        "airbus": b"ImageId,EncodedPixels\na.png,1 10 60 12\na.png,200 5 260 9\nb.png,\n",
        "severstal": b"ImageId,ClassId,EncodedPixels\na.png,1,1 10 60 12\na.png,3,200 5\nb.png,2,\n",
        "severstal-joined": b"ImageId_ClassId,EncodedPixels\na.png_1,1 10 60 12\na.png_2,\nb.png_1,200 5\n",
    }
    return [
        Seed(
            name,
            {"t.csv": text, "a.png": photo(), "deep/b.png": photo()},
            "rle",
            {"preset": name.split("-")[0], "class_name": "ship", "split_components": name == "carvana"},
        )
        for name, text in tables.items()
    ]


def mask_seeds() -> list[Seed]:
    xml = (
        b"<annotation><folder>x</folder><filename>a.jpg</filename><size><width>64</width><height>48</height>"
        b"<depth>3</depth></size><object><name>cat</name><difficult>1</difficult><bndbox><xmin>3</xmin><ymin>4</ymin>"
        b"<xmax>30</xmax><ymax>40</ymax></bndbox></object><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        b"<xmax>64</xmax><ymax>48</ymax></bndbox></object></annotation>"
    )
    index = np.zeros((48, 64), dtype=np.uint8)
    index[4:20, 5:30], index[8:12, 9:14], index[30:40, 30:60], index[40, 30:60] = 1, 0, 2, 255
    palette = PilImage.fromarray(index, "L").convert("P")
    stream = io.BytesIO()
    palette.putpalette(list(range(256)) * 3)
    palette.save(stream, "PNG")
    colors = np.zeros((48, 64, 3), dtype=np.uint8)
    colors[index == 1], colors[index == 2] = (128, 0, 0), (0, 128, 0)
    table = b"name,r,g,b\nbackground,0,0,0\ncat,128,0,0\ndog,0,128,0\n"
    voc = {"SegmentationClass/a.png": encoded(index), "JPEGImages/a.jpg": photo("jpg")}
    folder = {"images/a.jpg": photo("jpg")}
    return [
        Seed("voc", {"Annotations/a.xml": xml, "JPEGImages/a.jpg": photo("jpg")}, "voc"),
        Seed("voc-masks", voc | {"SegmentationObject/a.png": stream.getvalue()}, "voc-masks"),
        Seed("voc-masks-class", voc, "voc-masks", {"split_components": True}),
        Seed("masks-binary", folder | {"masks/a.png": encoded(index > 0)}, "masks", {"class_name": "cat"}),
        Seed("masks-index", folder | {"masks/a.png": encoded(index)}, "masks"),
        Seed("masks-color", folder | {"masks/a.png": encoded(colors), "class_dict.csv": table}, "masks"),
    ]


PNG_TEXT = png_base64(np.full((48, 64, 3), 77))


@cache
def seeds() -> tuple[Seed, ...]:
    coco = {"instances.json": dumped(coco_value()), "a.png": photo()}
    return (
        *labelme_seeds(),
        Seed("coco", coco, "coco"),
        Seed("coco-auto", coco),
        panoptic_seed(),
        *via_seeds(),
        *csv_seeds(),
        *mask_seeds(),
    )


NUMBERS: tuple[Any, ...] = (
    *(0, -0.0, 1, -1, 2, 0.5, 63.999, 64, 48, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1),
    *(2**63, 2**64, 10**400, -(10**400), 1e9, -1e9, 1e12, 1e13, 1e-9, 5e-324, 1e150, 1e300, -1e308, 1.7e308),
    *(float("nan"), float("inf"), float("-inf")),
)
TEXTS: tuple[str, ...] = (
    *(
        "",
        " ",
        "x",
        "0",
        "7",
        "-1",
        "NaN",
        "\0",
        "a\0b",
        "\ud800",
        "\udcff.png",
        "a\nb",
        "\x1b[31mred\x1b[0m",
        "\u202e",
        "\u2028",
    ),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "..\\..\\a.png",
        "C:\\a.png",
        "\\\\host\\share\\a.png",
        ".",
    ),
    *(
        "..",
        "./",
        "/",
        "a.png/",
        "a.png/b.png",
        "../../../escaped.png",
        "../escaped",
        "~",
        "$HOME",
        "%s%n{0}",
        "-",
        "--force",
    ),
    *(
        "polygon",
        "mask",
        "circle",
        "rectangle",
        "oriented_rectangle",
        "point",
        "line",
        "linestrip",
        "points",
        "rect",
        "ellipse",
    ),
    *(
        "a" * 300,
        "a/" * 300 + "b",
        "a" * 100_000,
        "\U0001f600",
        "CAT",
        "cat ",
        "cat-1",
        "person-99999999999999999999",
        "=cmd()",
    ),
    *("__ignore__", "_background_", "CON", "a.png:stream", "1 1 1 1", "9" * 5000, '"', ",", "é", "e\u0301", "\ufeff"),
)
OTHERS: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        [],
        {},
        [[]],
        [None],
        [[1]],
        [[1, 2, 3]],
        [[1, 2]] * 2,
        [1, 2],
        [1, 2, 3, 4],
        {"a": 1},
        {"": []},
    ),
    *([[0, 0]] * 3, [[1e308, -1e308], [5, 5], [9, 1]], [[1e9, 1e9], [-1e9, 1e9], [0, -1e9]], {"0": {}}, [{}], [[[]]]),
    *(
        [[5, 5], [float("nan"), 5], [9, 9]],
        [[2, 2], [60, 2], [60, 40], [2, 40], [2, 2], [60, 2]],
        {"size": [48, 64], "counts": []},
    ),
)
KEYS = (
    "label",
    "points",
    "shape_type",
    "group_id",
    "flags",
    "mask",
    "imagePath",
    "imageData",
    "id",
    "segmentation",
    "\ud800",
    "",
)


class Mutator:
    """Spoils the files of one folder.

    Args:
        rng: Where chance comes from.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def scalar(self) -> Any:
        return copy.deepcopy(self.rng.choice(self.rng.choice((NUMBERS, TEXTS, OTHERS))))

    def json(self, content: bytes) -> tuple[bytes, str]:
        """One to four places of a JSON tree deleted, doubled, renamed, exchanged or replaced."""
        value = json.loads(content)
        steps = []
        try:
            for _ in range(self.rng.choice((1, 1, 1, 2, 2, 3, 4))):
                steps.append(self._step(value))
            text = json.dumps(value, ensure_ascii=self.rng.random() < 0.7)
        except RecursionError:
            return content, "json too deep for Python to write"
        return text.encode("utf-8", "surrogatepass"), "json " + ", ".join(steps)

    def _step(self, value: Any) -> str:
        places = _places(value)
        if not places:
            return "nothing"
        node, key = self.rng.choice(places)
        step = self.rng.choice(
            ("delete", "double", "replace", "replace", "nudge", "exchange", "rename", "nest", "grow")
        )
        if step == "delete":
            del node[key]
        elif step == "double" and isinstance(node, list):
            node.insert(self.rng.randrange(len(node) + 1), copy.deepcopy(node[key]))
        elif step == "nudge":
            node[key] = self._nudged(node[key])
        elif step == "exchange":
            other, other_key = self.rng.choice(places)
            taken = copy.deepcopy(other[other_key]) if _has(other, other_key) else None
            node[key] = taken
        elif step == "rename" and isinstance(node, dict):
            node[self.rng.choice(KEYS)] = node.pop(key)
        elif step == "nest":
            for _ in range(self.rng.choice((1, 2, 50, 400))):
                node[key] = [node[key]]
        elif step == "grow" and isinstance(node, list):
            node.extend(copy.deepcopy(node[key]) for _ in range(self.rng.choice((2, 10, 300))))
        else:
            node[key] = self.scalar()
        return f"{step} {str(key)[:12]!r}"

    def _nudged(self, value: Any) -> Any:
        """A value a little or strangely different, of the same type where that is possible."""
        rng = self.rng
        if isinstance(value, bool) or value is None:
            return rng.choice((True, False, None, 0, 1, "true"))
        if isinstance(value, (int, float)):
            return rng.choice(
                (-value, value + 1, value * 1000, value + 0.5, str(value), rng.choice(NUMBERS), float(value))
            )
        if isinstance(value, str):
            if len(value) > 40:
                at = rng.randrange(len(value))
                return (
                    value[:at]
                    + rng.choice(("", "A", "AAAA", "/", "=", " ", "\n", "\0"))
                    + value[at + rng.choice((0, 1, 4)) :]
                )
            at = rng.randrange(len(value) + 1)
            return value[:at] + rng.choice(TEXTS) + value[at:] if rng.random() < 0.8 else value[:at]
        if isinstance(value, list):
            shuffled = copy.deepcopy(value)
            rng.shuffle(shuffled)
            return rng.choice((shuffled, shuffled[:1], shuffled[:2], shuffled * 3, value[::-1], [shuffled]))
        return list(value.values()) if isinstance(value, dict) else value

    def deep(self, content: bytes) -> tuple[bytes, str]:
        """A tower of brackets, or a number of thousands of digits, in the place of a value."""
        text = content.decode("utf-8", "replace")
        spots = [at for at, letter in enumerate(text) if letter in ":,["] or [0]
        at = self.rng.choice(spots) + 1
        insert = self.rng.choice(
            (
                "[" * 100_000,
                '{"a":' * 50_000,
                "[" * 900 + "]" * 900 + ",",
                "9" * 5000 + ",",
                "-Infinity,",
                "NaN,",
                "1e999,",
                "0x1,",
            )
        )
        return (text[:at] + insert + text[at:]).encode(), "deep " + insert[:8]

    def table(self, content: bytes) -> tuple[bytes, str]:
        """Words of a text table or an XML file exchanged, doubled or replaced."""
        text = content.decode("utf-8", "replace")
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            separator = self.rng.choice((" ", ",", "\n", "<", ">", "_"))
            words = text.split(separator)
            at = self.rng.randrange(len(words))
            extreme = str(self.rng.choice(NUMBERS[:23]))
            words[at] = self.rng.choice(
                (extreme, self.rng.choice(TEXTS), self.rng.choice(words), words[at] * 2, words[at] + separator, "")
            )
            text = separator.join(words)
        return text.encode("utf-8", "surrogatepass"), "table"

    def rows(self, content: bytes) -> tuple[bytes, str]:
        """Many more runs."""
        line = b"a.png," + b" ".join(b"%d 1" % (3 * number + self.rng.choice((1, 1, 1, 0, 9))) for number in range(900))
        return content + line + b"\n", "rows"

    def bytes(self, content: bytes) -> tuple[bytes, str]:
        """Bytes cut off, overwritten, put in, or taken from elsewhere."""
        rng, at = self.rng, self.rng.randrange(len(content) + 1)
        kind = rng.choice(("truncate", "flip", "flip", "overwrite", "insert", "splice", "repeat", "wrap", "head"))
        if kind == "truncate":
            return content[:at], kind
        if kind == "flip":
            spoiled = bytearray(content)
            for _ in range(rng.choice((1, 2, 8, 40))):
                if spoiled:
                    spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
            return bytes(spoiled), kind
        noise = rng.choice(
            (
                b"\0",
                b"\xff\xfe",
                b"\xef\xbb\xbf",
                b"\r\n",
                b"\x80",
                b"\xff\xff\xff\xff",
                b"\0" * 5000,
                rng.randbytes(30),
            )
        )
        if kind == "overwrite":
            return content[:at] + noise + content[at + len(noise) :], kind
        if kind == "insert":
            return content[:at] + noise + content[at:], kind
        if kind == "splice":
            other = rng.choice(list(rng.choice(seeds()).files.values()))
            return content[:at] + other[rng.randrange(len(other) + 1) :], kind
        if kind == "repeat":
            return content[:at] + content[rng.randrange(len(content) + 1) :] * rng.choice((1, 2, 5)), kind
        if kind == "head":
            spoiled = bytearray(content)
            for _ in range(rng.choice((1, 2, 4))):
                if spoiled:
                    spoiled[rng.randrange(min(48, len(spoiled)))] = rng.choice((0, 1, 127, 128, 255))
            return bytes(spoiled), kind
        text = content.decode("utf-8", "replace")
        codec = rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030", "crlf", "cr"))
        if codec in ("crlf", "cr"):
            return text.replace(",", ",\r\n" if codec == "crlf" else ",\r").encode(), codec
        return text.encode(codec), codec


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key of it."""
    pairs, stack = [], [value]
    while stack:
        node = stack.pop()
        members = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in members:
            pairs.append((node, key))
            stack.append(node[key])
    return pairs


def _has(node: Any, key: Any) -> bool:
    return key in node if isinstance(node, dict) else key < len(node)


def mutant(number: int) -> Mutant:
    """The mutant of a seed number; one in fifty is left sound."""
    rng = random.Random(number)
    everything = seeds()
    light = [seed for seed in everything if not seed.name.startswith("zoo")]
    seed = rng.choice(light if rng.random() < 0.9 else everything)
    files, steps = dict(seed.files), []
    mutator = Mutator(rng)
    if number % 50:
        names = list(files)
        weights = [4 if name.endswith((".json", ".csv", ".xml")) else 1 for name in names]
        for name in rng.choices(names, weights, k=rng.choice((1, 1, 1, 2))):
            ways: list[Callable[[bytes], tuple[bytes, str]]] = [mutator.bytes]
            if name.endswith(".json") and files[name] is seed.files[name]:
                ways += [mutator.json] * 6 + [mutator.deep]
            if name.endswith((".csv", ".xml")):
                ways += [mutator.table] * 5 + [mutator.rows]
            files[name], step = rng.choice(ways)(files[name])
            steps.append(f"{name}: {step}")
    options = dict(seed.options)
    for key, value in (
        ("skip_bad", True),
        ("include_unlabeled", True),
        ("allow_outside", True),
        ("no_predictions", True),
    ):
        if rng.random() < 0.08:
            options[key] = value
    to = rng.choice(("labelme", "semantic", "panoptic", "rle"))
    return Mutant(number, seed.name, files, seed.format if rng.random() < 0.8 else "auto", options, to, tuple(steps))
