"""Balloons: at parties, in parks, against the sky, among lamps, fruit, plates and discs."""

from __future__ import annotations

import numpy as np

from d2tune.samples.rendering.backgrounds import any_place
from d2tune.samples.rendering.canvas import (
    blend,
    blurred,
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
    to_image,
    value_noise,
)
from d2tune.samples.rendering.scene import Body, Scene

CLASS_NAMES = ("balloon",)
COUNT_WEIGHTS = (0.2, 0.25, 0.22, 0.15, 0.1, 0.08)
"""How likely an image with instances shows 1, 2, ... of them."""


def draw(rng: np.random.Generator, shape: tuple[int, int], *, instances: int, first_class: str) -> Scene:
    """An image with up to ``instances`` balloons (at least one where one is asked for), all of ``first_class``."""
    image, warmth = any_place(rng, shape)
    scene = Scene(image, random_light(rng, warmth=warmth))
    for _ in range(rng.choice(3, p=[0.45, 0.4, 0.15]) if instances else 2):
        _add_look_alike(rng, scene)
    sizes = np.sort(_sizes(rng, instances)) * scene.side_px
    hue, party = rng.random(), rng.random() < 0.3
    near = None
    for size_px in sizes:
        for _ in range(14):
            spot = _spot(rng, scene, size_px, near)
            color = hue + rng.uniform(-0.04, 0.04) if party else rng.random()
            if _add_balloon(rng, scene, spot, size_px, color, first_class):
                near = spot if rng.random() < 0.5 else None
                break
    if instances and rng.random() < 0.2:
        _add_post(rng, scene)
    return scene


def _sizes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Heights as shares of the image's shorter side: mostly large, rarely tiny, smaller where there are many."""
    sizes = rng.uniform(0.26, 0.66, count) * (1.0 - 0.05 * max(count - 1, 0))
    return np.where(rng.random(count) < 0.03, rng.uniform(0.05, 0.09, count), sizes)


def _spot(rng: np.random.Generator, scene: Scene, size_px: float, near: np.ndarray | None) -> np.ndarray:
    if near is not None:
        turn = rng.uniform(0, 2 * np.pi)
        return near + size_px * rng.uniform(0.6, 0.95) * np.array([np.cos(turn), 0.8 * np.sin(turn)])
    height, width = scene.shape
    return np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.08, 0.8) * height])


def _add_balloon(
    rng: np.random.Generator, scene: Scene, spot: np.ndarray, size_px: float, hue: float, label: str
) -> bool:
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    x, y = np.sin(turn), -np.cos(turn)
    x = x * rng.uniform(0.84, 0.97) * (1 - rng.uniform(0.06, 0.16) * np.maximum(y, 0) ** 2)
    y = np.where(y > 0, y * rng.uniform(1.05, 1.28), y)
    tip = y.max()
    angle, unit_px = rng.normal(0, 0.16), size_px / (1 + tip)
    body = to_image(np.stack([x, y], 1), spot, unit_px, angle)
    knot = [[0, tip - 0.04], [0.045, tip + 0.03], [0.1, tip + 0.1], [-0.1, tip + 0.1], [-0.045, tip + 0.03]]
    knot_image = to_image(np.array(knot), spot, unit_px, angle)
    placed = scene.place([Body([body, knot_image], label)])
    if placed is None:
        return False
    _paint_string(rng, scene, to_image(np.array([[0, tip + 0.08]]), spot, unit_px, angle)[0], size_px)
    soft = blurred(placed[0], rng.choice([0.0, 0.4, 0.8]))
    cast_shadow(scene.image, soft, (-14 * scene.light.direction[0], 0.07 * size_px), 0.06 * size_px + 2, 0.22)
    view, offset, soft = scene.closeup(soft, 1)
    normals = dome_normals(body - offset, spot - offset, view.shape)
    blend(view.image, soft, _latex(rng, view, normals, hue, fill([knot_image - offset], view.shape)))
    return True


def _latex(rng: np.random.Generator, scene: Scene, normals: np.ndarray, hue: float, knot: np.ndarray) -> np.ndarray:
    """The light that a balloon's skin sends to the camera, (H, W, 3)."""
    pale = rng.random() < 0.12
    albedo = hsv(hue, 0.08 if pale else rng.uniform(0.68, 0.95), rng.uniform(0.8, 0.98))
    albedo = _printed(rng, normals, albedo) if rng.random() < 0.22 else np.broadcast_to(albedo, normals.shape)
    foil = rng.random() < 0.2
    depth = normals[..., 2:3]
    color = lit(normals, albedo, scene.light, wrap=0.05 if foil else 0.3)
    color *= 0.72 + 0.33 * depth
    through = np.clip(-(normals[..., :2] @ scene.light.direction[:2]), 0, 1)[..., None] * (1 - depth) * (not foil)
    color += 0.35 * through * albedo * scene.light.color
    up = np.clip(0.5 - 0.9 * normals[..., 1:2] * depth, 0, 1)
    mirror = (0.12 + 0.88 * (1 - depth) ** 3) * (0.75 if foil else 0.32)
    color += mirror * (
        up * np.array([0.75, 0.85, 1.0], np.float32) + (1 - up) * np.array([0.1, 0.08, 0.06], np.float32)
    )
    color += (rng.uniform(0.06, 0.16) * glint(normals, scene.light, sharpness=14))[..., None]
    color += (rng.uniform(0.8, 1.5) * _window(rng, scene, normals))[..., None]
    return color * (1 - 0.35 * knot[..., None])


def _printed(rng: np.random.Generator, normals: np.ndarray, albedo: np.ndarray) -> np.ndarray:
    """The skin with white or dark dots or stripes printed on it, that follow its roundness."""
    across = np.arctan2(normals[..., 0], np.maximum(normals[..., 2], 1e-3)) + rng.uniform(-1, 1)
    down = np.arcsin(np.clip(normals[..., 1], -1, 1))
    if rng.random() < 0.5:
        ink = np.sin(across * rng.integers(4, 8))
    else:
        count = rng.integers(5, 8)
        ink = np.sin(across * count) * np.sin(down * count) - 0.35
    ink = np.clip(ink * 6, 0, 1)[..., None]
    result: np.ndarray = albedo + ink * (rng.choice([0.9, 0.06]) - albedo)
    return result


def _window(rng: np.random.Generator, scene: Scene, normals: np.ndarray) -> np.ndarray:
    """The reflection of a window or a flash, (H, W): small, sharp and bent by the skin's roundness."""
    half = scene.light.direction + np.array([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    across, down = normals[..., 0] - half[0], normals[..., 1] - half[1]
    if rng.random() < 0.5:
        flash: np.ndarray = np.exp(-((across**2 + down**2) / rng.uniform(0.004, 0.012)))
        return flash
    wide, high = rng.uniform(0.07, 0.13), rng.uniform(0.09, 0.16)
    pane = 1 / (1 + np.exp(np.clip((np.maximum(np.abs(across) / wide, np.abs(down) / high) - 1) * 14, -30, 30)))
    result: np.ndarray = (
        pane * (1 - 0.6 * np.exp(-((across / 0.014) ** 2))) * (1 - 0.5 * np.exp(-((down / 0.014) ** 2)))
    )
    return result


def _paint_string(rng: np.random.Generator, scene: Scene, start: np.ndarray, size_px: float) -> None:
    end = start + np.array([rng.normal(0, 0.35), rng.uniform(0.9, 2.2)]) * size_px
    bend = (start + end) / 2 + np.array([rng.normal(0, 0.22) * size_px, 0])
    line = stroke(curve(start, bend, end), max(0.8, size_px / 110), scene.shape)
    blend(scene.image, 0.85 * line, linear(str(rng.choice(["#f2f2ea", "#cfc8b8", "#5d564c"]))))


def _add_post(rng: np.random.Generator, scene: Scene) -> None:
    """A pole or a branch close to the camera, in front of everything."""
    height, width = scene.shape
    for _ in range(4):
        x = rng.uniform(0.1, 0.9) * width
        lean = rng.normal(0, 0.12) * width
        line = curve((x, -20), (x + rng.normal(0, 8), height / 2), (x + lean, height + 20))
        thick = rng.uniform(7, 17)
        placed = scene.place([Body([ribbon(line, thick)])])
        if placed is None:
            continue
        u, _ = local_grid(scene.shape, (x + lean / 2, height / 2), thick / 2, np.arctan2(-lean, height + 40))
        round_ = np.clip(1 - u**2 * 0.8, 0.15, 1) * (0.6 + 0.5 * value_noise(rng, scene.shape, 5, octaves=3))
        tone = linear(str(rng.choice(["#6b5a48", "#7c8288", "#4c5a4a"])))
        blend(scene.image, placed[0], tone * (round_ * 0.8)[..., None])
        return


def _add_look_alike(rng: np.random.Generator, scene: Scene) -> None:
    """Something round that is not a balloon: no knot, no string below, no skin that shines."""
    radius = rng.uniform(0.07, 0.15) * scene.side_px
    height, width = scene.shape
    spot = np.array([rng.uniform(0.08, 0.92) * width, rng.uniform(0.1, 0.9) * height])
    paint = [_paint_fruit, _paint_lantern, _paint_plate, _paint_sun][rng.choice(4, p=[0.35, 0.25, 0.25, 0.15])]
    paint(rng, scene, spot, radius)


def _paint_fruit(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    spot = np.array([spot[0], scene.shape[0] * rng.uniform(0.75, 0.95)])
    outline = ellipse(spot, radius, radius * rng.uniform(0.88, 0.98))
    cover = fill([outline], scene.shape)
    cast_shadow(scene.image, cover, (4 - 12 * scene.light.direction[0], radius * 0.25), radius * 0.2, 0.55)
    peel = value_noise(rng, scene.shape, 2.5)
    normals = bump(dome_normals(outline, spot, scene.shape), peel, 1.2)
    hue = rng.choice([0.085, 0.02, 0.22])
    blotch = value_noise(rng, scene.shape, radius / 2, octaves=3)[..., None]
    albedo = hsv(hue, 0.85, 0.85) * (1 - 0.45 * blotch) + 0.3 * blotch * hsv(hue + 0.07, 0.8, 0.8)
    blend(scene.image, cover, lit(normals, albedo, scene.light))
    top = spot - np.array([0, radius * 0.8])
    stem = stroke(
        curve(top, top - [1, radius * 0.15], top + np.array([radius * 0.12, -radius * 0.3])), radius / 9, scene.shape
    )
    blend(scene.image, stem, linear("#4a3520"))
    leaf = smooth([[0, 0], [0.3, -0.28], [0.75, -0.25], [0.5, 0.02]])
    blend(scene.image, fill([to_image(leaf, top, radius, 0.0)], scene.shape), hsv(0.3, 0.7, 0.4))


def _paint_lantern(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    spot = np.array([spot[0], min(spot[1], 0.4 * scene.shape[0])])
    cover = fill([ellipse(spot, radius, radius * 0.92)], scene.shape)
    cord = stroke(np.array([[spot[0], -5], [spot[0], spot[1] - radius]]), 1.3, scene.shape)
    blend(scene.image, cord, linear("#1d1b19"))
    u, v = local_grid(scene.shape, spot, radius, 0.0)
    ribs = 0.86 + 0.14 * np.abs(np.sin(np.arcsin(np.clip(v / 0.92, -1, 1)) * 11))
    glow = 0.45 + 0.75 * np.exp(-(u**2 + (v - 0.1) ** 2) / 0.45)
    paper = np.array([1.0, 0.8, 0.52], np.float32)
    scene.image += (0.22 * blurred(cover, radius * 0.6))[..., None] * paper
    blend(scene.image, cover, paper * (ribs * glow)[..., None])
    caps = [ellipse((spot[0], spot[1] + s * radius * 0.9), radius * 0.3, radius * 0.07) for s in (-1, 1)]
    blend(scene.image, fill(caps, scene.shape), linear("#241f1a"))


def _paint_plate(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    flat, tilt = rng.uniform(0.75, 1.0), rng.uniform(-0.3, 0.3)
    cover = fill([to_image(ellipse((0, 0), 1, flat), spot, radius, tilt)], scene.shape)
    cast_shadow(scene.image, cover, (-8 * scene.light.direction[0], 4), 4, 0.45)
    u, v = local_grid(scene.shape, spot, radius, tilt)
    out = np.hypot(u, v / flat)
    ring = np.exp(-(((out - 0.62) / 0.035) ** 2)) * (
        0.5 + 0.9 * (u * scene.light.direction[0] + v * scene.light.direction[1])
    )
    tone = hsv(rng.random(), rng.choice([0.05, 0.5]), rng.uniform(0.7, 0.95))
    band = np.exp(-(((out - 0.86) / 0.04) ** 2))[..., None]
    color = tone * (0.85 + 0.1 * u - 0.35 * ring)[..., None] * (1 - 0.6 * band) + 0.6 * band * hsv(
        rng.random(), 0.6, 0.5
    )
    blend(scene.image, cover, 0.85 * color)


def _paint_sun(rng: np.random.Generator, scene: Scene, spot: np.ndarray, radius: float) -> None:
    u, v = local_grid(scene.shape, (spot[0], 0.25 * spot[1]), radius * 0.55, 0.0)
    away = np.hypot(u, v)
    disc = np.clip((1.05 - away) * 5, 0, 1) + 0.35 * np.exp(-away / 1.6) + 0.12 * np.exp(-away / 5)
    scene.image += disc[..., None] * np.array([1.0, 0.93, 0.75], np.float32) * rng.uniform(0.8, 1.2)
