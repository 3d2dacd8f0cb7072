"""Circuit boards from above: four kinds of parts to label among stickers, holes, LEDs and resistors that are not."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from d2tune.samples.rendering.backgrounds import planks
from d2tune.samples.rendering.canvas import (
    blend,
    blurred,
    box,
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
    stroke,
    text,
    to_image,
    value_noise,
)
from d2tune.samples.rendering.scene import Body, Scene

CLASS_NAMES = ("microcontroller", "capacitor", "connector", "crystal")
COUNT_WEIGHTS = (0.06, 0.14, 0.24, 0.24, 0.18, 0.14)
"""How likely an image with instances shows 1, 2, ... of them."""

_SILVER = linear("#c9ccd0")
_GOLD = linear("#d9b25a")
_INK = linear("#e9ede8")


class _Bench:
    """A scene with a board in it: the board's place, and where tall things lean to in the image.

    ``center`` and ``half`` (half the board's sides) are pixels, ``angle`` turns the board.
    """

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        height, width = scene.shape
        self.scene = scene
        self.angle = rng.normal(0, 0.2)
        self.center = np.array([width, height]) / 2 + rng.normal(0, 0.03, 2) * (width, height)
        whole = rng.random() < 0.55
        self.half = np.hypot(width, height) * np.ones(2) if whole else rng.uniform(0.4, 0.52, 2) * (width, height)
        turn = rng.uniform(0, 2 * np.pi)
        self.lean = rng.uniform(0.12, 0.4) * np.array([np.cos(turn), np.sin(turn)])

    def spot(self, rng: np.random.Generator, margin_px: float) -> np.ndarray:
        """A place on the part of the board that the image shows, ``margin_px`` from the board's edges."""
        height, width = self.scene.shape
        while True:
            place = rng.uniform(0.05, 0.95, 2) * (width, height)
            if np.all(np.abs((place - self.center) @ _turn(self.angle)) < self.half - margin_px):
                return place

    def lifted(self, base: np.ndarray, height_px: float) -> tuple[np.ndarray, np.ndarray]:
        """The top of a convex body of that height, and the outline of body and top together."""
        top = base + self.lean * height_px
        both = np.concatenate([base, top]).astype(np.float32)
        return top, cv2.convexHull(both)[:, 0, :].astype(float)

    def shadow(self, coverage: np.ndarray, height_px: float) -> None:
        """The soft shadow of a body of that height on the board."""
        away = -self.scene.light.direction[:2] * height_px * 0.8
        cast_shadow(self.scene.image, coverage, away, 0.8 + 0.22 * height_px, 0.6)

    def paint(self, polygons: Sequence[np.ndarray], color: np.ndarray, *, opacity: float = 1.0) -> None:
        """Fill polygons with one color."""
        blend(self.scene.image, opacity * fill(polygons, self.scene.shape), color)


def draw(rng: np.random.Generator, shape: tuple[int, int], *, instances: int, first_class: str) -> Scene:
    """A board with up to ``instances`` labeled parts, the first of them a ``first_class``."""
    light = random_light(rng, warmth=rng.uniform(0, 0.6))
    scene = Scene(_desk(rng, shape), light)
    bench = _Bench(rng, scene)
    _paint_board(rng, bench)
    for _ in range(rng.integers(1, 4)):
        _paint_look_alike(rng, bench)
    _paint_resistors(rng, bench, int(rng.integers(5, 14)))
    builders = dict(zip(CLASS_NAMES, (_add_microcontroller, _add_capacitor, _add_connector, _add_crystal), strict=True))
    shrink = 1.0 - 0.05 * max(instances - 1, 0)
    for i in range(instances):
        name = first_class if i == 0 else str(rng.choice(CLASS_NAMES))
        size_px = scene.side_px * shrink * (0.45 if rng.random() < 0.04 else rng.uniform(0.95, 1.4))
        for _ in range(50):
            spot = bench.spot(rng, 0.14 * size_px)
            angle = bench.angle + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.01)
            if builders[name](rng, bench, spot, size_px, angle):
                break
    if rng.random() < 0.25:
        _add_wire(rng, bench)
    return scene


def _desk(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    if rng.random() < 0.5:
        return blurred(planks(rng, shape), 1.0)
    mat = hsv(rng.uniform(0, 1), rng.uniform(0.0, 0.35), rng.uniform(0.3, 0.8))
    weave = 0.8 + 0.25 * value_noise(rng, shape, 2, octaves=2) + 0.2 * value_noise(rng, shape, 120, octaves=2)
    return (mat * weave[..., None]).astype(np.float32)


def _paint_board(rng: np.random.Generator, bench: _Bench) -> None:
    """The board itself: fiber weave under the varnish, copper areas, tracks, vias, printed frames and names."""
    scene = bench.scene
    center, half, width = bench.center, bench.half, scene.shape[1]
    reach = np.hypot(*scene.shape) / 2
    outline = to_image(box(-half[0], -half[1], half[0], half[1], radius=6), center, 1.0, bench.angle)
    cover = fill([outline], scene.shape)
    bench.shadow(cover, 7)
    varnish = hsv(*[(0.38, 0.85, 0.42), (0.6, 0.85, 0.5), (0.34, 0.8, 0.36), (0.64, 0.75, 0.42)][rng.integers(4)])
    x, y = local_grid(scene.shape, center, 1.0, bench.angle)
    weave = 1 + 0.05 * np.sin(x * 1.9) * np.sin(y * 1.9) + 0.12 * (value_noise(rng, scene.shape, 3, octaves=2) - 0.5)
    sheen = 0.75 + 0.55 * value_noise(rng, scene.shape, width, octaves=2)
    copper = np.zeros(scene.shape, np.float32)
    for _ in range(rng.integers(2, 6)):
        size, place = rng.uniform(0.15, 0.5, 2) * reach, rng.uniform(-0.8, 0.8, 2) * np.minimum(half, reach)
        copper = np.maximum(
            copper,
            fill([to_image(box(*(place - size), *(place + size), radius=8), center, 1.0, bench.angle)], scene.shape),
        )
    blend(scene.image, cover, varnish * (weave * sheen * (1 + 0.3 * copper))[..., None])
    tracks, vias = _tracks(rng, half, center, bench)
    lighter = blurred(np.minimum(tracks, cover), 0.4)
    scene.image *= (1 + 0.55 * lighter)[..., None]
    for spot in vias:
        bench.paint([ellipse(spot, 2.6, 2.6, points=20)], _SILVER * 0.55)
        bench.paint([ellipse(spot, 1.2, 1.2, points=16)], varnish * 0.15)
    _print_names(rng, bench, cover)


def _tracks(
    rng: np.random.Generator, half: np.ndarray, center: np.ndarray, bench: _Bench
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The coverage of bundles of tracks that run straight and at 45 degrees, and the vias at their ends."""
    cover, vias = np.zeros(bench.scene.shape, np.float32), []
    for _ in range(rng.integers(7, 13)):
        start, heading = rng.uniform(-1, 1, 2) * np.minimum(half, 220), rng.integers(4) * np.pi / 2
        width = rng.uniform(0.9, 1.8)
        legs, turns = rng.uniform(25, 110, 3), rng.choice([-1, 1]) * np.pi / 4 * np.array([0, 1, 0])
        steps = np.stack([np.cos(heading + turns), np.sin(heading + turns)], 1) * legs[:, None]
        line = start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        side = np.array([-np.sin(heading), np.cos(heading)])
        for i in range(rng.integers(1, 6)):
            placed = to_image(line + i * 2.6 * width * side, center, 1.0, bench.angle)
            cover = np.maximum(cover, stroke(placed, width, bench.scene.shape))
            if rng.random() < 0.35:
                vias.append(placed[-1])
    inside = [v for v in vias if np.all(np.abs((v - center) @ _turn(bench.angle)) < half - 5)]
    return cover, inside


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _print_names(rng: np.random.Generator, bench: _Bench, cover: np.ndarray) -> None:
    ink = np.zeros(bench.scene.shape, np.float32)
    for _ in range(rng.integers(4, 10)):
        spot = bench.spot(rng, 14)
        words = str(rng.choice(["R", "C", "U", "J", "TP", "D"])) + str(rng.integers(1, 60))
        ink = np.maximum(ink, text(words, spot, rng.uniform(5, 8), bench.angle, bench.scene.shape))
        if rng.random() < 0.4:
            a, b = rng.uniform(8, 30, 2)
            frame = to_image(box(-a, -b, a, b), spot, 1.0, bench.angle)
            ink = np.maximum(ink, stroke(np.concatenate([frame, frame[:1]]), 1.0, bench.scene.shape))
    blend(bench.scene.image, 0.75 * ink * cover, _INK * 0.85)


def _add_microcontroller(
    rng: np.random.Generator, bench: _Bench, spot: np.ndarray, size_px: float, angle: float
) -> bool:
    """A black package with pins on two or four sides; its outline goes around the rows of pins."""
    four_sides = rng.random() < 0.65
    half = size_px * rng.uniform(0.13, 0.22)
    long, short = (0.82, 0.82) if four_sides else (1.35, 0.52)
    thick = 0.16 * half
    rows = [box(-0.9 * long, -1, 0.9 * long, 1)] if four_sides else [box(-0.95 * long, -0.75, 0.95 * long, 0.75)]
    if four_sides:
        rows.append(box(-1, -0.9 * short, 1, 0.9 * short))
    rows_image = [to_image(row, spot, half, angle) for row in rows]
    top, body = bench.lifted(to_image(box(-long, -short, long, short, radius=0.04), spot, half, angle), thick)
    placed = bench.scene.place([Body([body, *rows_image], "microcontroller")], min_inside=0.6, min_visible=0.92)
    if placed is None:
        return False
    bench.shadow(fill([body], bench.scene.shape), 2.5 * thick)
    bench.paint(rows_image, np.zeros(3, np.float32), opacity=0.35)
    bench.paint(_pins(long, short, half, spot, angle, four_sides), _SILVER * 0.9)
    bench.paint([body], linear("#101012"))
    u, v = local_grid(bench.scene.shape, top.mean(axis=0), half, angle)
    grain = 0.85 + 0.3 * value_noise(rng, bench.scene.shape, 1.5)
    slope = 1 + 0.5 * (u * rng.uniform(-0.6, 0.6) + v * rng.uniform(-0.6, 0.6))
    plastic = linear("#2e2f33") * rng.uniform(0.7, 1.2)
    bench.paint([top], plastic * (grain * slope)[..., None])
    inner = to_image(
        box(-0.93 * long, -0.9 * short, 0.93 * long, 0.9 * short, radius=0.04), top.mean(axis=0), half, angle
    )
    bench.paint([inner], plastic * (1.25 * grain * slope)[..., None])
    _mark_package(rng, bench, top.mean(axis=0), half, angle, (long, short))
    return True


def _pins(long: float, short: float, half: float, spot: np.ndarray, angle: float, four: bool) -> list[np.ndarray]:
    """The pins' polygons; as many as leave each about two pixels wide at least."""
    pitch = max(4.2 / half, 0.13 if four else 0.22)
    reach = 1.0 if four else 0.75
    pins = []
    for along, near, upright in [(long, short, False)] + ([(short, long, True)] if four else []):
        for place in np.arange(-0.85 * along, 0.86 * along, 1.7 * along / max(round(1.7 * along / pitch), 1)):
            for side in (-1, 1):
                low, high = sorted((side * near * 0.95, side * reach))
                pin = box(place - 0.26 * pitch, low, place + 0.26 * pitch, high)
                pins.append(pin[:, ::-1] if upright else pin)
    return [to_image(pin, spot, half, angle) for pin in pins]


def _mark_package(
    rng: np.random.Generator, bench: _Bench, center: np.ndarray, half: float, angle: float, size: tuple[float, float]
) -> None:
    """The maker's lines of print and the dot at pin 1."""
    long, short = size
    print_ink = linear("#b9bcc0") * rng.uniform(0.5, 0.9)
    names = ["STM32F407", "ATMEGA328P", "RP2040", "ESP32-D0", "PIC18F45", "LPC1768", "SAMD21G"]
    lines = [
        str(rng.choice(names)),
        f"{rng.integers(10, 24)}{rng.integers(10, 53)} {chr(rng.integers(65, 90))}{rng.integers(1, 9)}",
    ]
    if half > 26:
        for line, down in zip(lines, (-0.12, 0.18), strict=True):
            height = min(1.45 * long * half / len(line) / 0.95, 0.2 * half)
            place = to_image(np.array([[0, down]]), center, half, angle)[0]
            blend(bench.scene.image, 0.8 * text(line, place, height, angle, bench.scene.shape), print_ink)
    dot = to_image(ellipse((-0.74 * long, 0.66 * short), 0.07, 0.07, points=24), center, half, angle)
    bench.paint([dot], linear("#08080a"))
    bench.paint([dot + 0.02 * half], linear("#4a4b50"), opacity=0.5)


def _add_capacitor(rng: np.random.Generator, bench: _Bench, spot: np.ndarray, size_px: float, angle: float) -> bool:
    """A can with a scored silver top, either sleeved or a bare one on a black foot."""
    radius = size_px * rng.uniform(0.085, 0.15)
    tall = radius * rng.uniform(1.2, 2.2)
    bare = rng.random() < 0.45
    base = ellipse(spot, radius, radius)
    top, can = bench.lifted(base, tall)
    foot = to_image(np.array([[-1, -1], [0.6, -1], [1, -0.6], [1, 0.6], [0.6, 1], [-1, 1]]) * 1.08, spot, radius, angle)
    placed = bench.scene.place([Body([can, foot] if bare else [can], "capacitor")], min_inside=0.6, min_visible=0.92)
    if placed is None:
        return False
    bench.shadow(placed[0], 0.9 * tall)
    if bare:
        bench.paint([foot], linear("#19191b") * (0.8 + 0.4 * value_noise(rng, bench.scene.shape, 2))[..., None])
    sleeve = _SILVER * 0.6 if bare else linear(str(rng.choice(["#1c2a5e", "#17181c", "#5a2c1c", "#1d4a3a", "#6a5a20"])))
    lean = np.arctan2(bench.lean[1], bench.lean[0])
    _, across = local_grid(bench.scene.shape, spot, radius, lean)
    round_ = np.sqrt(np.clip(1 - across**2, 0.05, 1))
    shine = np.exp(-(((across - 0.35) / 0.12) ** 2)) * 0.35
    stripe = np.exp(-((np.abs(across + 0.45) / 0.2) ** 6)) * (not bare)
    side = sleeve * (0.35 + 0.75 * round_)[..., None] + stripe[..., None] * (0.55 * _INK - sleeve * 0.8)
    bench.paint([can], side + shine[..., None] * 0.5)
    _paint_can_top(rng, bench, top.mean(axis=0), radius, angle, sleeve, bare=bare)
    return True


def _paint_can_top(
    rng: np.random.Generator,
    bench: _Bench,
    center: np.ndarray,
    radius: float,
    angle: float,
    sleeve: np.ndarray,
    *,
    bare: bool,
) -> None:
    shape = bench.scene.shape
    rim = ellipse(center, radius, radius)
    bench.paint([rim], sleeve * 1.25 + 0.06)
    disc = ellipse(center, radius * 0.86, radius * 0.86)
    u, v = local_grid(shape, center, radius, angle)
    facing = u * bench.scene.light.direction[0] + v * bench.scene.light.direction[1]
    brushed = 0.92 + 0.16 * value_noise(rng, shape, 2, stretch=4)
    edge = np.exp(-(((np.hypot(u, v) - 0.8) / 0.07) ** 2))
    bench.paint([disc], _SILVER * ((0.85 + 0.3 * facing) * brushed - 0.35 * edge * facing)[..., None])
    if bare:
        turn = np.linspace(-0.95, 0.95, 24)
        segment = np.stack([0.84 * np.cos(turn), 0.84 * np.sin(turn)], 1)
        bench.paint([to_image(segment, center, radius, angle)], linear("#1a1a1c"))
        value = str(rng.choice(["100", "220", "47", "470"]))
        place = to_image(np.array([[-0.25, 0]]), center, radius, angle)[0]
        blend(bench.scene.image, 0.8 * text(value, place, radius * 0.42, angle, shape), linear("#202022"))
        return
    for score_angle in (angle, angle + np.pi / 2):
        arm = 0.55 * radius * np.array([np.cos(score_angle), np.sin(score_angle)])
        score = stroke(np.stack([center - arm, center + arm]), max(radius / 14, 0.8), shape)
        blend(bench.scene.image, 0.6 * score, _SILVER * 0.25)


def _add_connector(rng: np.random.Generator, bench: _Bench, spot: np.ndarray, size_px: float, angle: float) -> bool:
    """A socket with pins in its well, a row of screw terminals, or a metal shell."""
    half = size_px * rng.uniform(0.15, 0.25)
    short = rng.uniform(0.34, 0.5)
    tall = half * rng.uniform(0.35, 0.6)
    top, body = bench.lifted(to_image(box(-1, -short, 1, short, radius=0.04), spot, half, angle), tall)
    placed = bench.scene.place([Body([body], "connector")], min_inside=0.55, min_visible=0.92)
    if placed is None:
        return False
    bench.shadow(placed[0], tall)
    style = rng.integers(3)
    if style == 0:
        tone = linear(str(rng.choice(["#e8e2d2", "#f2efe6", "#c9b98c"])))
    elif style == 1:
        tone = linear(str(rng.choice(["#2c9a4b", "#2b62b8", "#e07a22"])))
    else:
        tone = _SILVER
    middle = top.mean(axis=0)
    u, v = local_grid(bench.scene.shape, middle, half, angle)
    bench.paint([body], tone * (0.42 + 0.08 * u)[..., None])
    light = bench.scene.light.direction
    slope = 0.88 + 0.12 * (u * light[0] + v * light[1]) + 0.08 * value_noise(rng, bench.scene.shape, 3, octaves=2)
    bench.paint([top], tone * slope[..., None])
    (_paint_socket, _paint_terminals, _paint_shell)[style](rng, bench, middle, half, short, angle, tone)
    return True


def _paint_socket(
    rng: np.random.Generator,
    bench: _Bench,
    middle: np.ndarray,
    half: float,
    short: float,
    angle: float,
    tone: np.ndarray,
) -> None:
    well = to_image(box(-0.88, -short * 0.6, 0.88, short * 0.72), middle, half, angle)
    _, v = local_grid(bench.scene.shape, middle, half, angle)
    bench.paint([well], tone * (0.3 + 0.25 * v / short)[..., None])
    count = int(rng.integers(3, 8))
    for place in np.linspace(-0.72, 0.72, count):
        size = min(0.07, 0.4 / count)
        pin = to_image(box(place - size, -size * 1.2, place + size, size * 1.2), middle, half, angle)
        bench.paint([pin + 0.05 * half], np.zeros(3, np.float32), opacity=0.5)
        bench.paint([pin], _GOLD)


def _paint_terminals(
    rng: np.random.Generator,
    bench: _Bench,
    middle: np.ndarray,
    half: float,
    short: float,
    angle: float,
    tone: np.ndarray,
) -> None:
    count = int(rng.integers(2, 5))
    for place in (np.arange(count) + 0.5) / count * 2 - 1:
        radius = min(0.75 / count, short * 0.62)
        well = to_image(ellipse((place, 0), radius, radius, points=40), middle, half, angle)
        bench.paint([well], tone * 0.25)
        screw = to_image(ellipse((place, 0), radius * 0.8, radius * 0.8, points=40), middle, half, angle)
        u, v = local_grid(bench.scene.shape, screw.mean(axis=0), radius * half, angle)
        light = bench.scene.light.direction
        bench.paint([screw], _SILVER * (0.75 + 0.35 * (u * light[0] + v * light[1]))[..., None])
        slot = np.array([[-0.7, 0], [0.7, 0]]) * radius @ _turn(rng.uniform(0, np.pi)) + [place, 0]
        blend(
            bench.scene.image,
            stroke(to_image(slot, middle, half, angle), max(0.2 * radius * half, 0.8), bench.scene.shape),
            _SILVER * 0.12,
        )
    for edge in (np.arange(1, count) / count) * 2 - 1:
        line = to_image(np.array([[edge, -short], [edge, short]]), middle, half, angle)
        blend(bench.scene.image, 0.7 * stroke(line, 1.0, bench.scene.shape), tone * 0.3)


def _paint_shell(
    rng: np.random.Generator,
    bench: _Bench,
    middle: np.ndarray,
    half: float,
    short: float,
    angle: float,
    tone: np.ndarray,
) -> None:
    u, v = local_grid(bench.scene.shape, middle, half, angle)
    bands = (
        0.62
        + 0.3 * np.sin(5 * v / short + rng.uniform(0, 6)) * np.cos(1.2 * u)
        + 0.1 * value_noise(rng, bench.scene.shape, 2, stretch=5)
    )
    plate = to_image(box(-0.95, -short * 0.93, 0.95, short * 0.93, radius=0.03), middle, half, angle)
    bench.paint([plate], tone * bands[..., None])
    for place in (-0.45, 0.45):
        spring = to_image(box(place - 0.16, -short * 0.4, place + 0.16, short * 0.5, radius=0.05), middle, half, angle)
        bench.paint([spring], tone * 0.12)
        leaf = to_image(box(place - 0.1, -short * 0.4, place + 0.1, short * 0.36, radius=0.05), middle, half, angle)
        bench.paint([leaf], tone * (bands * 1.1)[..., None])


def _add_crystal(rng: np.random.Generator, bench: _Bench, spot: np.ndarray, size_px: float, angle: float) -> bool:
    """A drawn metal can with round ends and its frequency stamped on it."""
    half = size_px * rng.uniform(0.11, 0.17)
    short = rng.uniform(0.38, 0.46)
    tall = 0.4 * half
    flange = to_image(box(-1, -short, 1, short, radius=short * 0.999), spot, half, angle)
    top, can = bench.lifted(
        to_image(box(-0.92, -short * 0.84, 0.92, short * 0.84, radius=short * 0.83), spot, half, angle), tall
    )
    placed = bench.scene.place([Body([can, flange], "crystal")], min_inside=0.6, min_visible=0.92)
    if placed is None:
        return False
    bench.shadow(placed[0], tall)
    bench.paint([flange], _SILVER * 0.5)
    middle = top.mean(axis=0)
    u, v = local_grid(bench.scene.shape, middle, half, angle)
    bench.paint([can], _SILVER * (0.32 + 0.25 * np.cos(3 * u))[..., None])
    bench.paint([top], _SILVER * 1.05)
    inner = to_image(box(-0.84, -short * 0.7, 0.84, short * 0.7, radius=short * 0.69), middle, half, angle)
    brushed = (
        0.72
        + 0.2 * value_noise(rng, bench.scene.shape, 2, stretch=3)
        + 0.22 * np.sin(2.5 * u + 2 * v + rng.uniform(0, 6))
    )
    bench.paint([inner], _SILVER * brushed[..., None])
    if half > 20:
        stamp = text(
            str(rng.choice(["16.000", "8.000", "12.000", "25.000", "32.768"])),
            middle,
            short * half * 0.5,
            angle,
            bench.scene.shape,
        )
        blend(bench.scene.image, 0.75 * stamp, _SILVER * 0.14)
    return True


def _add_wire(rng: np.random.Generator, bench: _Bench) -> None:
    """A jumper wire across the board, over whatever lies there."""
    height, width = bench.scene.shape
    for _ in range(5):
        start, end = np.array([rng.uniform(0, width), -12.0]), np.array([rng.uniform(0, width), height + 12.0])
        if rng.random() < 0.5:
            start, end = np.array([-12.0, rng.uniform(0, height)]), np.array([width + 12.0, rng.uniform(0, height)])
        bend = (start + end) / 2 + rng.normal(0, 0.22, 2) * (width, height)
        line, thick = curve(start, bend, end, points=60), rng.uniform(5, 9)
        placed = bench.scene.place([Body([ribbon(line, thick)])], min_visible=0.6)
        if placed is None:
            continue
        bench.shadow(placed[0], 9)
        tone = hsv(rng.choice([0.0, 0.14, 0.6, 0.33, 0.08]), 0.85, rng.uniform(0.5, 0.9))
        blend(bench.scene.image, placed[0], tone * 0.55)
        gleam = line + bench.scene.light.direction[:2] * thick * 0.28
        blend(bench.scene.image, 0.7 * stroke(gleam, thick * 0.3, bench.scene.shape, blur_px=0.8), tone * 0.8 + 0.2)
        return


def _paint_resistors(rng: np.random.Generator, bench: _Bench, count: int) -> None:
    """Small black chips with silver ends, too small and too plain to be labeled."""
    half = rng.uniform(4.0, 6.5)
    for _ in range(count):
        spot = bench.spot(rng, 10)
        angle = bench.angle + rng.integers(2) * np.pi / 2
        body = to_image(box(-1, -0.5, 1, 0.5), spot, half, angle)
        bench.shadow(fill([body], bench.scene.shape), 2)
        bench.paint([body], _SILVER * 0.8)
        bench.paint([to_image(box(-0.62, -0.5, 0.62, 0.5), spot, half, angle)], linear("#1b1b1e"))


def _paint_look_alike(rng: np.random.Generator, bench: _Bench) -> None:
    """Something as large as a component that is not one: a sticker, a mounting hole or an LED."""
    spot = bench.spot(rng, 0.1 * bench.scene.side_px)
    (_paint_sticker, _paint_hole, _paint_led)[rng.integers(3)](rng, bench, spot)


def _paint_sticker(rng: np.random.Generator, bench: _Bench, spot: np.ndarray) -> None:
    half = bench.scene.side_px * rng.uniform(0.08, 0.13)
    angle = bench.angle + rng.normal(0, 0.08)
    paper = to_image(box(-1, -0.55, 1, 0.55, radius=0.06), spot, half, angle)
    bench.shadow(fill([paper], bench.scene.shape), 1.5)
    tone = linear(str(rng.choice(["#eceae4", "#e6d34a", "#e9e9ee"]))) * 0.85
    bench.paint([paper], tone * (0.92 + 0.1 * value_noise(rng, bench.scene.shape, 20, octaves=3))[..., None])
    left = -0.8
    while left < 0.75:
        bar = rng.uniform(0.02, 0.07)
        bench.paint([to_image(box(left, -0.35, left + bar, 0.1), spot, half, angle)], linear("#222222"))
        left += bar + rng.uniform(0.03, 0.08)
    place = to_image(np.array([[0, 0.32]]), spot, half, angle)[0]
    serial = text(f"SN{rng.integers(10000, 99999)}", place, half * 0.2, angle, bench.scene.shape)
    blend(bench.scene.image, serial, linear("#2a2a2a"))


def _paint_hole(rng: np.random.Generator, bench: _Bench, spot: np.ndarray) -> None:
    radius = bench.scene.side_px * rng.uniform(0.035, 0.06)
    bench.paint([ellipse(spot, radius, radius)], _GOLD * 0.8)
    bench.paint([ellipse(spot, radius * 0.62, radius * 0.62)], linear("#15120f"))
    turn = rng.uniform(0, 1)
    for i in range(8):
        a = 2 * np.pi * (i + turn) / 8
        dot = spot + 0.81 * radius * np.array([np.cos(a), np.sin(a)])
        bench.paint([ellipse(dot, 0.9, 0.9, points=12)], linear("#3a2c10"))


def _paint_led(rng: np.random.Generator, bench: _Bench, spot: np.ndarray) -> None:
    radius = bench.scene.side_px * rng.uniform(0.025, 0.045)
    outline = ellipse(spot, radius, radius)
    cover = fill([outline], bench.scene.shape)
    bench.shadow(cover, radius)
    hue = rng.choice([0.0, 0.33, 0.12, 0.6])
    normals = dome_normals(outline, spot, bench.scene.shape)
    color = lit(normals, hsv(hue, 0.85, 0.9), bench.scene.light, wrap=0.5)
    color += 0.9 * glint(normals, bench.scene.light, sharpness=60)[..., None]
    if rng.random() < 0.5:
        bench.scene.image += (0.5 * blurred(cover, radius))[..., None] * hsv(hue, 0.8, 1.0)
        color = color + 0.5 * normals[..., 2:3] * hsv(hue, 0.45, 1.0)
    blend(bench.scene.image, cover, color)
