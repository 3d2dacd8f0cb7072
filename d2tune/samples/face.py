"""Faces: half cartoon, half photo, with hair, hats and glasses, among clocks, balls and plates.

A face is the skin from the hairline to the chin with the ears; hair, hats and whatever is in front cut its outline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from d2tune.samples.rendering.backgrounds import any_place
from d2tune.samples.rendering.canvas import (
    blend,
    blurred,
    box,
    bump,
    cast_shadow,
    curve,
    dome_normals,
    ellipse,
    fill,
    glint,
    hsv,
    linear,
    lit,
    local_grid,
    random_light,
    ribbon,
    smooth,
    stroke,
    text,
    to_image,
    value_noise,
)
from d2tune.samples.rendering.scene import Body, Scene

CLASS_NAMES = ("face",)
COUNT_WEIGHTS = (0.2, 0.25, 0.22, 0.15, 0.1, 0.08)
"""How likely an image with instances shows 1, 2, ... of them."""

_SKINS = ("#f3cdb0", "#e8b48e", "#d79a6f", "#b97a50", "#8d5836", "#6b4128")
_HAIRS = ("#1c1613", "#3a251a", "#6b4423", "#a8773c", "#c9a25e", "#8f3f1e", "#9a9a98", "#5a3a2c")
_NOTHING = np.zeros(3, np.float32)
_NECK = box(-0.36, 0.5, 0.36, 1.75)


@dataclass(frozen=True)
class _Head:
    """One head: its place, half its height in pixels, its tilt, its shape and its colors."""

    center: np.ndarray
    unit_px: float
    angle: float
    width: float
    jaw: float
    yaw: float
    skin: np.ndarray
    hair: np.ndarray

    def at(self, points: object) -> np.ndarray:
        """Points of the head's own frame (x right, y down, chin near 1.1) in the image."""
        return to_image(np.asarray(points, float), self.center, self.unit_px, self.angle)

    def outline(self) -> np.ndarray:
        """The face without ears, in its own frame."""
        turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        x, y = np.sin(turn), -np.cos(turn)
        x = self.width * np.sign(x) * np.abs(x) ** 0.92 * (1 - self.jaw * np.maximum(y, 0) ** 2)
        return np.stack([x, np.where(y > 0, y * 1.1, y)], axis=1)


def draw(rng: np.random.Generator, shape: tuple[int, int], *, instances: int, first_class: str) -> Scene:
    """An image with up to ``instances`` people (at least one where one is asked for), faces as ``first_class``."""
    image, warmth = any_place(rng, shape)
    scene = Scene(image, random_light(rng, warmth=warmth))
    for _ in range(rng.choice(3, p=[0.4, 0.4, 0.2]) if instances else 2):
        _paint_look_alike(rng, scene)
    sizes = rng.uniform(0.17, 0.33, instances) * (1 - 0.07 * max(instances - 1, 0))
    sizes *= np.where(rng.random(instances) < 0.04, 0.4, 1.0)
    for unit_px in np.sort(sizes) * scene.side_px:
        for _ in range(20):
            place = rng.uniform(0.08, 0.92), rng.uniform(0.22, 0.62)
            if _add_person(rng, scene, np.array(place) * shape[::-1], unit_px, first_class):
                break
    if instances and rng.random() < 0.15:
        _add_stem(rng, scene)
    return scene


def _add_person(rng: np.random.Generator, scene: Scene, spot: np.ndarray, unit_px: float, label: str) -> bool:
    head = _Head(
        center=spot,
        unit_px=unit_px,
        angle=rng.normal(0, 0.1),
        width=rng.uniform(0.72, 0.84),
        jaw=rng.uniform(0.12, 0.3),
        yaw=rng.uniform(-0.16, 0.16),
        skin=linear(str(rng.choice(_SKINS))) * rng.uniform(0.92, 1.05),
        hair=linear(str(rng.choice(_HAIRS))),
    )
    style = str(rng.choice(["short", "long", "bun", "curly", "bald"], p=[0.34, 0.28, 0.12, 0.18, 0.08]))
    hat = str(rng.choice(["none", "cap", "beanie", "party", "brim"], p=[0.55, 0.14, 0.14, 0.08, 0.09]))
    face = head.outline()
    ears = [ellipse((side * head.width * 0.98, 0.05), 0.12, 0.2) for side in (-1, 1)]
    bodies = [
        Body([head.at(p) for p in _back_hair(head, style)] or [head.at(face * 0.5)]),
        Body([head.at(_shoulders(rng)), head.at(_NECK)]),
        Body([head.at(face), *(head.at(ear) for ear in ears)], label),
        Body([head.at(p) for p in _front_hair(rng, head, style)] or [head.at(face[:1] * [1, 0.98])]),
    ]
    if hat != "none":
        bodies.append(Body([head.at(p) for p in _hat(head, hat)]))
    placed = scene.place(bodies, min_inside=0.6, min_visible=0.5)
    if placed is None:
        return False
    if _back_hair(head, style):
        _paint_hair(rng, scene, head, placed[0], shade=0.7)
    _paint_body(rng, scene, head, placed[1])
    _paint_face(rng, scene, head, placed[2])
    if style != "bald":
        _shade_under(scene, placed[3], placed[2], unit_px)
        _paint_hair(rng, scene, head, placed[3], shade=1.0)
    if hat != "none":
        _shade_under(scene, placed[4], placed[2], unit_px)
        _paint_hat(rng, scene, head, placed[4], hat)
    return True


def _shade_under(scene: Scene, cover: np.ndarray, face: np.ndarray, unit_px: float) -> None:
    """The soft shadow that hair or a hat throws on the face below it."""
    kept = scene.image.copy()
    cast_shadow(
        scene.image, cover, (-0.05 * unit_px * scene.light.direction[0], 0.08 * unit_px), 0.05 * unit_px + 0.5, 0.45
    )
    blend(scene.image, 1 - face, kept)


def _shoulders(rng: np.random.Generator) -> np.ndarray:
    wide, drop = rng.uniform(1.5, 1.9), rng.uniform(1.5, 1.7)
    half = [[0.3, drop - 0.12], [wide * 0.6, drop + 0.08], [wide, drop + 0.4], [wide * 1.12, 3.0], [wide * 1.15, 25.0]]
    return smooth(half + [[-x, y] for x, y in reversed(half)], rounds=2)


def _back_hair(head: _Head, style: str) -> list[np.ndarray]:
    """What hangs or stands behind the face, in the head's frame."""
    w = head.width
    if style == "long":
        half = [[0.0, -1.22], [w * 0.9, -1.1], [w * 1.28, -0.4], [w * 1.36, 0.6], [w * 1.42, 1.5], [w * 0.8, 1.75]]
        return [smooth(half + [[-x, y] for x, y in reversed(half[1:])])]
    if style == "curly":
        turn = np.linspace(0, 2 * np.pi, 160, endpoint=False)
        reach = 1.24 + 0.05 * np.sin(11 * turn) + 0.03 * np.sin(17 * turn + 1)
        return [np.stack([w * 1.22 * reach * np.sin(turn), -0.25 - 0.98 * reach * np.cos(turn)], 1)]
    if style == "bun":
        return [ellipse((0, -1.28), 0.34, 0.3)]
    return []


def _front_hair(rng: np.random.Generator, head: _Head, style: str) -> list[np.ndarray]:
    """What lies over the skull down to the hairline, in the head's frame."""
    if style == "bald":
        return []
    w, thick = head.width, rng.uniform(0.08, 0.17)
    turn = np.linspace(-1, 1, 40) * (0.5 * np.pi + rng.uniform(-0.12, 0.14))
    outer = np.stack([(w + thick) * np.sin(turn), -(1 + thick) * np.cos(turn)], 1)
    parting, height, depth = rng.uniform(-0.45, 0.45), rng.uniform(0.48, 0.66), rng.uniform(0.05, 0.22)
    x = np.linspace(1, -1, 41)
    fringe = (
        -height
        + depth * (x - parting) ** 2 * (1.4 if style != "curly" else 0.8)
        + 0.02 * np.sin(x * rng.uniform(15, 35))
    )
    fringe = np.minimum(fringe, -0.1)
    inner = np.stack([0.93 * w * x, fringe], 1)
    temple = [[w * 0.93, 0.0], [w * 0.9, -0.12]]
    return [np.concatenate([outer, temple, inner, [[-x, y] for x, y in reversed(temple)]])]


def _hat(head: _Head, kind: str) -> list[np.ndarray]:
    """A hat's pieces in the head's frame."""
    w = head.width + 0.14
    turn = np.linspace(-np.pi / 2, np.pi / 2, 40)
    dome = np.stack([w * np.sin(turn), -0.5 - 0.72 * np.cos(turn)], 1)
    if kind == "cap":
        side = np.sign(head.yaw) or 1.0
        return [
            dome,
            smooth(
                [[-w * 0.95, -0.52], [w * 0.95, -0.52], [w * 0.75 + 0.3 * side, -0.3], [-w * 0.75 + 0.3 * side, -0.3]],
                rounds=3,
            ),
        ]
    if kind == "beanie":
        tall = np.stack([w * np.sin(turn), -0.45 - 0.95 * np.cos(turn)], 1)
        return [tall, box(-w * 1.05, -0.66, w * 1.05, -0.36, radius=0.1), ellipse((0, -1.48), 0.2, 0.2)]
    if kind == "party":
        return [np.array([[-0.5, -0.78], [0.02, -2.1], [0.5, -0.78], [0.25, -0.7], [-0.25, -0.7]])]
    return [dome * [0.95, 1.05], ellipse((0, -0.52), w * 1.75, 0.2)]


def _closeup(scene: Scene, head: _Head, cover: np.ndarray, margin_px: float) -> tuple[Scene, _Head, np.ndarray]:
    """The window around ``cover`` with the head moved into it."""
    view, offset, cover = scene.closeup(cover, margin_px)
    return view, replace(head, center=head.center - offset), cover


def _paint_body(rng: np.random.Generator, scene: Scene, head: _Head, cover: np.ndarray) -> None:
    """Clothes and neck, with the chin's shadow on them."""
    scene, head, cover = _closeup(scene, head, cover, 30)
    neck = fill([head.at(_NECK)], scene.shape)
    cast_shadow(scene.image, cover, (5, 5), 7, 0.3)
    u, v = local_grid(scene.shape, head.center, head.unit_px, head.angle)
    cloth = hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.25, 0.85))
    folds = value_noise(rng, scene.shape, max(head.unit_px * 0.5, 4), octaves=3)
    tone = (0.45 + 0.55 * folds) * np.clip(1.05 - 0.22 * np.abs(u - 0.5 * scene.light.direction[0]), 0.35, 1.1)
    color = cloth * tone[..., None]
    if rng.random() < 0.35:
        band = np.clip(4 * np.sin(v * rng.uniform(14, 24) + 0.4 * folds), 0, 1)[..., None]
        color = color + band * (hsv(rng.random(), 0.3, 0.9) * tone[..., None] - color)
    blend(scene.image, cover, color)
    collar = fill([head.at(ellipse((0, 1.45), 0.52, 0.32))], scene.shape)
    skin = np.maximum(neck * (v < 1.5), collar * cover)
    shade = 0.3 + 0.5 * np.clip((v - 1.0) / 0.6, 0, 1) - 0.25 * np.abs(u)
    blend(scene.image, blurred(skin, 0.5), head.skin * np.clip(shade, 0.12, 1)[..., None])


def _paint_hair(rng: np.random.Generator, scene: Scene, head: _Head, cover: np.ndarray, *, shade: float) -> None:
    scene, head, cover = _closeup(scene, head, cover, 1)
    u, v = local_grid(scene.shape, head.center, head.unit_px, head.angle)
    fine = max(head.unit_px / 14, 1.2)
    radial = np.arctan2(u, -(v + 0.05) + 0.6)
    strands = np.sin(radial * 70 + 6 * value_noise(rng, scene.shape, fine * 4, octaves=2))
    strands = 0.6 * strands + 1.2 * (value_noise(rng, scene.shape, fine, octaves=2) - 0.5)
    facing = u * scene.light.direction[0] + v * scene.light.direction[1]
    away = np.hypot(u / 0.9, v + 0.1)
    band = np.exp(-(((away - 0.85 + 0.05 * strands) / 0.13) ** 2)) * np.clip(0.3 + facing, 0, 1)
    color = head.hair * (shade * (0.75 + 0.35 * strands + 0.35 * facing))[..., None] + (0.16 * shade * band)[..., None]
    blend(scene.image, cover, np.maximum(color, 0.004))


def _paint_face(rng: np.random.Generator, scene: Scene, head: _Head, cover: np.ndarray) -> None:
    """Skin with its relief, then eyes, brows, mouth and what a person wears on a face."""
    scene, head, cover = _closeup(scene, head, cover, 0.4 * head.unit_px)
    cast_shadow(
        scene.image,
        cover,
        (-0.1 * head.unit_px * scene.light.direction[0], 0.14 * head.unit_px),
        0.09 * head.unit_px + 0.5,
        0.5,
    )
    u, v = local_grid(scene.shape, head.center, head.unit_px, head.angle)
    fu = u - head.yaw
    outline = head.at(head.outline() * [1.1, 1.02])
    normals = bump(dome_normals(outline, head.center, scene.shape), _relief(fu, v), 0.62 * head.unit_px)
    pores = 0.96 + 0.08 * value_noise(rng, scene.shape, max(head.unit_px / 30, 1), octaves=2)
    flush = np.zeros(scene.shape, np.float32)
    for side in (-1, 1):
        flush += np.exp(-(((fu - side * 0.38) / 0.2) ** 2 + ((v - 0.3) / 0.16) ** 2))
    warm = np.array([1.12, 0.86, 0.82], np.float32)
    albedo = head.skin * pores[..., None] * (1 + (0.55 * flush)[..., None] * (warm - 1))
    if rng.random() < 0.25:
        albedo = _bearded(rng, scene, head, albedo, fu, v)
    color = lit(normals, albedo, scene.light, wrap=0.35) * np.array([1.03, 1.0, 0.98], np.float32)
    color += (0.1 * glint(normals, scene.light, sharpness=18))[..., None]
    blend(scene.image, cover, color)
    inner_ears = [head.at(ellipse((side * head.width * 1.02, 0.06), 0.05, 0.11)) for side in (-1, 1)]
    blend(scene.image, 0.35 * fill(inner_ears, scene.shape, blur_px=0.6) * cover, head.skin * 0.3)
    squint = rng.uniform(0.75, 1.15)
    iris = hsv(rng.choice([0.06, 0.08, 0.58, 0.35]), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.6))
    look = rng.uniform(-0.04, 0.04)
    for side in (-1, 1):
        _paint_eye(scene, head, head.yaw + side * 0.31, iris, look, squint)
        brow = head.at(
            curve((head.yaw + side * 0.46, -0.26), (head.yaw + side * 0.3, -0.41), (head.yaw + side * 0.15, -0.29))
        )
        blend(
            scene.image,
            0.85 * stroke(brow, 0.06 * head.unit_px, scene.shape, blur_px=0.02 * head.unit_px),
            head.hair * 0.6,
        )
    _paint_mouth(rng, scene, head)
    if rng.random() < 0.25:
        _paint_glasses(rng, scene, head)


def _relief(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Heights of nose, brow, sockets, cheeks, lips and chin over the head's dome."""

    def hill(x: float, y: float, wide: float, high: float) -> np.ndarray:
        return np.exp(-(((u - x) / wide) ** 2 + ((v - y) / high) ** 2))

    height = 0.34 * hill(0, 0.2, 0.11, 0.1) + 0.2 * hill(0, 0.02, 0.07, 0.24) + 0.06 * hill(0, 0.82, 0.16, 0.12)
    for side in (-1, 1):
        height += 0.1 * hill(side * 0.11, 0.23, 0.06, 0.05) - 0.15 * hill(side * 0.31, -0.1, 0.17, 0.1)
        height += 0.06 * hill(side * 0.42, 0.28, 0.2, 0.16)
    return height.astype(np.float32)


def _bearded(
    rng: np.random.Generator, scene: Scene, head: _Head, albedo: np.ndarray, u: np.ndarray, v: np.ndarray
) -> np.ndarray:
    stubble = value_noise(rng, scene.shape, max(head.unit_px / 40, 1), octaves=2)
    low = np.clip((v - 0.38 + 0.35 * np.abs(u) * -1 + 0.12) / 0.14, 0, 1)
    lips = np.exp(-((u / 0.24) ** 2 + ((v - 0.55) / 0.09) ** 2))
    share = (np.clip(low - 1.3 * lips, 0, 1) * (0.55 + 0.5 * stubble) * rng.uniform(0.6, 1.0))[..., None]
    result: np.ndarray = albedo + np.clip(share, 0, 0.95) * (head.hair * 0.8 - albedo)
    return result


def _paint_eye(scene: Scene, head: _Head, x: float, iris: np.ndarray, look: float, squint: float) -> None:
    shape, unit = scene.shape, head.unit_px
    lids = smooth(
        [
            [x - 0.17, -0.08],
            [x - 0.06, -0.08 - 0.12 * squint],
            [x + 0.06, -0.08 - 0.12 * squint],
            [x + 0.17, -0.08],
            [x, 0.02],
        ]
    )
    white = fill([head.at(lids)], shape)
    _, v = local_grid(shape, head.center, unit, head.angle)
    blend(
        scene.image,
        white,
        np.array([0.8, 0.78, 0.76], np.float32) * np.clip(1.0 + (v + 0.06) * 3.5, 0.45, 1)[..., None],
    )
    for radius, color in ((0.082, iris * 0.4), (0.07, iris), (0.036, _NOTHING)):
        blend(scene.image, white * fill([head.at(ellipse((x + look, -0.08), radius, radius))], shape), color)
    spark = head.at(ellipse((x + look + 0.03 * np.sign(scene.light.direction[0]), -0.115), 0.02, 0.02, points=16))
    blend(scene.image, fill([spark], shape), np.ones(3, np.float32))
    upper = head.at(curve((x - 0.175, -0.07), (x, -0.08 - 0.23 * squint + 0.08), (x + 0.175, -0.07)))
    blend(scene.image, 0.85 * stroke(upper, max(0.03 * unit, 0.6), shape), head.skin * 0.08)


def _paint_mouth(rng: np.random.Generator, scene: Scene, head: _Head) -> None:
    wide, smile, gape = rng.uniform(0.2, 0.3), rng.uniform(-0.03, 0.12), max(rng.uniform(-0.12, 0.16), 0.0)
    x = head.yaw
    left, right = (x - wide, 0.55 - smile), (x + wide, 0.55 - smile)
    upper = curve(left, (x, 0.55 + smile * 0.8), right)
    lower = curve(right, (x, 0.57 + smile + 2 * gape), left)
    lips = head.skin * np.array([0.85, 0.45, 0.45], np.float32)
    full = np.concatenate(
        [curve(left, (x, 0.47 + smile * 0.6), right), curve(right, (x, 0.68 + smile + 2.1 * gape), left)]
    )
    blend(scene.image, 0.8 * fill([head.at(full)], scene.shape, blur_px=0.012 * head.unit_px), lips)
    gap = fill([head.at(np.concatenate([upper, lower]))], scene.shape)
    blend(scene.image, gap, linear("#3a0f10"))
    if gape > 0.05:
        teeth = np.concatenate([upper, curve(right, (x, 0.56 + smile + 0.9 * gape), left)])
        blend(scene.image, 0.9 * gap * fill([head.at(teeth)], scene.shape), linear("#efe9df"))
    blend(scene.image, 0.7 * stroke(head.at(upper), max(0.02 * head.unit_px, 0.6), scene.shape), lips * 0.25)


def _paint_glasses(rng: np.random.Generator, scene: Scene, head: _Head) -> None:
    frame = linear(str(rng.choice(["#151515", "#5b2f16", "#8a1f2b", "#b9b9bd"])))
    width = max(0.035 * head.unit_px, 0.8)
    for side in (-1, 1):
        x = head.yaw + side * 0.31
        glass = box(x - 0.22, -0.24, x + 0.22, 0.1, radius=rng.choice([0.06, 0.165]))
        ring = head.at(np.concatenate([glass, glass[:1]]))
        blend(scene.image, 0.08 * fill([ring], scene.shape), np.ones(3, np.float32))
        blend(scene.image, stroke(ring, width, scene.shape), frame)
        arm = head.at([[x + side * 0.22, -0.1], [side * head.width, -0.06]])
        blend(scene.image, stroke(arm, width, scene.shape), frame)
    bridge = head.at(curve((head.yaw - 0.09, -0.08), (head.yaw, -0.16), (head.yaw + 0.09, -0.08)))
    blend(scene.image, stroke(bridge, width, scene.shape), frame)


def _paint_hat(rng: np.random.Generator, scene: Scene, head: _Head, cover: np.ndarray, kind: str) -> None:
    scene, head, cover = _closeup(scene, head, cover, 1)
    u, v = local_grid(scene.shape, head.center, head.unit_px, head.angle)
    felt = hsv(rng.random(), rng.uniform(0.3, 0.85), rng.uniform(0.3, 0.85))
    normals = dome_normals(head.at(ellipse((0, -0.6), head.width * 1.6, 1.0)), head.at([[0, -0.6]])[0], scene.shape)
    weave = 0.85 + 0.3 * value_noise(rng, scene.shape, max(head.unit_px / 25, 1.2), octaves=2)
    color = lit(normals, felt * weave[..., None], scene.light, wrap=0.3)
    if kind == "beanie":
        color *= (0.85 + 0.2 * np.sin(u * 60))[..., None]
        color = np.where((np.abs(v + 0.51) < 0.15)[..., None], color * 0.72 + 0.03, color)
    elif kind == "party":
        dots = np.clip(5 * (np.sin(u * 14 + v * 5) * np.sin(v * 12) - 0.25), 0, 1)[..., None]
        color = color + dots * (hsv(rng.random(), 0.5, 0.95) * 0.8 - color)
    elif kind == "brim":
        ribbon_band = np.exp(-(((v + 0.68) / 0.085) ** 6))[..., None] * (np.abs(u) < head.width + 0.16)[..., None]
        color = color + ribbon_band * (felt * 0.2 - color)
    else:
        seam = np.exp(-((u / 0.02) ** 2)) * (v < -0.52) + np.exp(-(((v + 0.5) / 0.025) ** 2))
        color = color * (1 - 0.35 * np.clip(seam, 0, 1))[..., None] * np.where(v > -0.5, 0.8, 1.0)[..., None]
    blend(scene.image, cover, color)


def _add_stem(rng: np.random.Generator, scene: Scene) -> None:
    """A thin pole close to the camera, in front of everything."""
    height, width = scene.shape
    for _ in range(4):
        x, thick = rng.uniform(0.15, 0.85) * width, rng.uniform(5, 11)
        line = curve((x, -15), (x + rng.normal(0, 12), height / 2), (x + rng.normal(0, 25), height + 15))
        placed = scene.place([Body([ribbon(line, thick)])], min_visible=0.6)
        if placed is not None:
            tone = hsv(rng.uniform(0.05, 0.35), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.6))
            blend(scene.image, blurred(placed[0], 0.6), tone)
            gleam = stroke(line - np.array([thick * 0.2, 0]), thick * 0.3, scene.shape, blur_px=1.2)
            blend(scene.image, 0.5 * gleam, tone * 1.8)
            return


def _paint_look_alike(rng: np.random.Generator, scene: Scene) -> None:
    """Something round that is not a face: a clock, a ball or a plate."""
    radius = rng.uniform(0.08, 0.16) * scene.side_px
    spot = rng.uniform((0.08, 0.1), (0.92, 0.7)) * scene.shape[::-1]
    (_paint_clock, _paint_ball, _paint_plate)[rng.integers(3)](rng, scene, spot, radius)


def _paint_clock(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    cover = fill([ellipse(spot, radius, radius)], scene.shape)
    cast_shadow(scene.image, cover, (-10 * scene.light.direction[0], 6), 5, 0.45)
    u, v = local_grid(scene.shape, spot, radius, 0.0)
    facing = u * scene.light.direction[0] + v * scene.light.direction[1]
    blend(scene.image, cover, hsv(rng.random(), 0.5, rng.uniform(0.2, 0.6)) * (1 + 0.6 * facing)[..., None])
    dial = fill([ellipse(spot, radius * 0.88, radius * 0.88)], scene.shape)
    blend(scene.image, dial, linear("#efece2") * (0.78 + 0.12 * facing)[..., None])
    for hour in range(1, 13):
        a = hour * np.pi / 6
        place = spot + 0.7 * radius * np.array([np.sin(a), -np.cos(a)])
        blend(scene.image, text(str(hour), place, radius * 0.17, 0.0, scene.shape), linear("#222226"))
    for reach, width in ((0.42, 0.07), (0.62, 0.045)):
        a = rng.uniform(0, 2 * np.pi)
        hand = np.stack([spot, spot + reach * radius * np.array([np.sin(a), -np.cos(a)])])
        blend(scene.image, stroke(hand, max(width * radius, 0.8), scene.shape), linear("#18181a"))


def _paint_ball(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    outline = ellipse(spot, radius, radius)
    cover = fill([outline], scene.shape)
    cast_shadow(scene.image, cover, (-10 * scene.light.direction[0], radius * 0.3), radius * 0.25, 0.45)
    normals = dome_normals(outline, spot, scene.shape)
    tilt = rng.uniform(0, np.pi)
    across = normals[..., 0] * np.cos(tilt) + normals[..., 1] * np.sin(tilt)
    along = -normals[..., 0] * np.sin(tilt) + normals[..., 1] * np.cos(tilt)
    sector = np.floor(
        (np.arctan2(along, np.maximum(normals[..., 2], 1e-3) + 0.4 * across) + np.pi) * 6 / (2 * np.pi) * 2
    )
    colors = np.stack([hsv(rng.random(), 0.75, 0.85), linear("#e9e9e4"), hsv(rng.random(), 0.75, 0.75)])
    albedo = colors[sector.astype(int) % 3]
    shine = 0.4 * glint(normals, scene.light, sharpness=30)[..., None]
    blend(scene.image, cover, lit(normals, albedo, scene.light) + shine)


def _paint_plate(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    cover = fill([ellipse(spot, radius, radius)], scene.shape)
    cast_shadow(scene.image, cover, (-8 * scene.light.direction[0], 4), 4, 0.4)
    u, v = local_grid(scene.shape, spot, radius, 0.0)
    out, facing = np.hypot(u, v), u * scene.light.direction[0] + v * scene.light.direction[1]
    well = np.exp(-(((out - 0.62) / 0.04) ** 2)) * facing
    band = np.exp(-(((out - 0.85) / 0.05) ** 2))[..., None]
    tone = linear("#e4e6ea") * (0.8 - 0.5 * well + 0.1 * facing)[..., None]
    blend(scene.image, cover, tone + band * (hsv(rng.random(), 0.7, 0.5) - tone))
