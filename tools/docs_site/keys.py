"""The page with every key of a project file, from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from d2tune.project.expected import expected, is_section
from d2tune.project.presets import preset_names
from d2tune.project.schema import Project
from tools.docs_site.docstrings import described_attributes, first_paragraph, to_markdown

_INTRODUCTION = """\
# Project file

Every key of a `projects/*.yaml`, from the schema that reads it. An unknown key is refused, and the message names the
most similar known one. Every key but `data.root` has a default; `d2tune new` writes a file with the keys that matter
for your data and a comment at each. On the command line, after the project file, a key is `train.iterations=500`.
"""
_EXAMPLE = """\
## Example

```yaml
task: instance
data:
  root: ../datasets/mine       # relative to this file
  train: train                 # a folder, a file or a list of images
  val: val                     # the same, or a fraction such as 0.2
  rename: {baloon: balloon}    # null in place of a name ignores the label
classes: [balloon]             # in the order of their ids
model:
  preset: pointrend_r50_fpn
weights: auto                  # detectron2://..., https://..., a file, or scratch
train:
  iterations: 600              # or epochs; else by the number of images
  batch_size: 4
  learning_rate: auto          # the preset's, scaled to the batch
  image_size: 640              # short side in pixels
  scale_jitter: [0.6, 1.2]     # training varies the size in this range
  seed: 0
profiles:                      # differences by hardware
  cpu: {model: {preset: pointrend_mobilenet_v2_fpn}, train: {image_size: 384}}
detectron2:
  TEST.DETECTIONS_PER_IMAGE: 200
```

"""
_PROFILES = """\
## profiles

Differences by hardware: a mapping of names to sections that are laid over the rest of the file. `gpu` or `cpu` is
chosen by the machine, any other name with `--profile NAME`. A section in a profile replaces only the keys that it
names.

```yaml
data: {root: ../datasets/mine}
profiles:
  cpu: {model: {preset: pointrend_mobilenet_v2_fpn}, train: {image_size: 384}}
```
"""
_RAW = """\
## detectron2

Keys of Detectron2's config, dotted (`SOLVER.BASE_LR: 0.001`) or nested, for what has no key here. They are set last.
On the command line it is `SOLVER.BASE_LR=0.001`. Keys that d2tune derives, such as the number of classes, are refused;
the message says what to set instead.
"""


def key_reference() -> str:
    """The page: a section for each section of the file, with a table of its keys."""
    sections = [_section(place, section) for place, section in sections_of(Project)]
    presets = ["## Presets", "", "The values of `model.preset`:", "", ", ".join(f"`{name}`" for name in preset_names())]
    return "\n".join([_INTRODUCTION, _EXAMPLE, *sections, _PROFILES, _RAW, *presets, ""])


def sections_of(section: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The place and the class of a section, and of those in it."""
    yield place, section
    for name, field in section.model_fields.items():
        if (inner := is_section(field.annotation)) is not None:
            yield from sections_of(inner, f"{place}.{name}" if place else name)


def _section(place: str, section: type[BaseModel]) -> str:
    meanings = described_attributes(section.__doc__ or "")
    lines = [f"## {place or 'The file'}", "", first_paragraph(section.__doc__ or ""), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        key = f"{place}.{name}" if place else name
        inner = is_section(field.annotation)
        link = f"[section](#{_anchor(key)})" if inner else _cell(_values(name, field))
        lines.append(
            f"| `{key}` | {link} | {'' if inner else _default(key, field)} | {_cell(to_markdown(meanings[name]))} |"
        )
    return "\n".join([*lines, ""])


def _values(name: str, field: FieldInfo) -> str:
    if name == "preset":
        return "[a preset](#presets)"
    if name == "detectron2":
        return "[a mapping](#detectron2)"
    return expected(field)


def _anchor(key: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it: dots go."""
    return key.lower().replace(".", "")


def _default(key: str, field: FieldInfo) -> str:
    if key == "name":
        return "the file's name"
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return f"`{json.dumps(value, default=list)}`".replace('`"', "`").replace('"`', "`") if value != () else "`[]`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
