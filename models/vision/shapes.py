"""Drawn shapes and their captions: a world small enough that a tiny model can learn to see it.

A picture shows one coloured shape, or two of which the first stands left of or above the second; so every picture has
one right caption.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

__all__ = [
    "COLOURS",
    "FORMS",
    "QUESTION",
    "RELATIONS",
    "SIDE",
    "Scene",
    "captions",
    "draw",
    "png_of",
    "scenes",
    "wrong_captions",
]

SIDE = 32  # pixels
QUESTION = " shows"  # what follows a picture in a prompt
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 200, 40),
    "black": (30, 30, 30),
}
FORMS = ("circle", "ring", "triangle", "bar")
RELATIONS = {"left of": (-1, 0), "above": (0, -1)}  # where the first is, seen from the middle
SHARES = {"test": range(0, 20), "validation": range(20, 30), "train": range(30, 100)}  # of captions, by their hash

Thing = tuple[str, str]  # colour, form


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    first: Thing
    relation: str | None = None
    second: Thing | None = None

    @property
    def caption(self) -> str:
        if self.second is None:
            return " ".join(self.first)
        return f"{' '.join(self.first)} {self.relation} {' '.join(self.second)}"


@cache
def scenes(split: str) -> tuple[Scene, ...]:
    """Returns the scenes of a split: no caption is in two of them; single shapes are all for training."""
    things = list(itertools.product(COLOURS, FORMS))
    found = [Scene(thing) for thing in things] if split == "train" else []
    for first, relation, second in itertools.product(things, RELATIONS, things):
        scene = Scene(first, relation, second)
        place = int.from_bytes(hashlib.blake2b(scene.caption.encode(), digest_size=4).digest(), "little") % 100
        if first != second and place in SHARES[split]:
            found.append(scene)
    return tuple(found)


def captions() -> list[str]:
    """Returns every caption there is."""
    return [scene.caption for split in SHARES for scene in scenes(split)]


def wrong_captions(scene: Scene) -> dict[str, list[str]]:
    """Returns captions that differ in one thing, by what it is: a colour, a form, or the order or relation."""
    (colour, form), relation, second = scene.first, scene.relation, scene.second
    colours = [Scene((other, form), relation, second) for other in COLOURS if other != colour]
    forms = [Scene((colour, other), relation, second) for other in FORMS if other != form]
    orders = []
    if second is not None:
        colour, form = second
        colours += [Scene(scene.first, relation, (other, form)) for other in COLOURS if other != colour]
        forms += [Scene(scene.first, relation, (colour, other)) for other in FORMS if other != form]
        orders = [Scene(scene.first, other, second) for other in RELATIONS if other != relation]
        orders += [Scene(second, relation, scene.first)]
    kinds = {"colour": colours, "form": forms, "order": orders}
    return {kind: [s.caption for s in found if s.first != s.second] for kind, found in kinds.items() if found}


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Returns a picture of a scene ``[SIDE, SIDE, 3] uint8``; sizes and places within it are drawn at random."""
    canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
    if scene.second is None or scene.relation is None:
        _paint(canvas, scene.first, rng.uniform(8, SIDE - 8, 2), rng.uniform(5, 7.5))
        return canvas
    towards = np.array(RELATIONS[scene.relation], float)
    middle, apart = rng.uniform(SIDE / 2 - 1, SIDE / 2 + 1, 2), rng.uniform(7.5, 8.5)
    aside = towards[::-1] * rng.uniform(-2, 2)  # they need not stand quite in line
    _paint(canvas, scene.first, middle + towards * apart + aside, rng.uniform(4.5, 6.5))
    _paint(canvas, scene.second, middle - towards * apart - aside, rng.uniform(4.5, 6.5))
    return canvas


def _paint(canvas: np.ndarray, thing: Thing, centre: np.ndarray, radius: float) -> None:
    down, across = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    x, y = across - centre[0], down - centre[1]
    colour, form = thing
    if form == "circle":
        inside = x**2 + y**2 <= radius**2
    elif form == "ring":
        inside = (x**2 + y**2 <= radius**2) & (x**2 + y**2 >= (0.55 * radius) ** 2)
    elif form == "triangle":
        inside = (abs(y) <= radius) & (abs(x) <= (y + radius) / 2)
    else:
        inside = (abs(x) <= radius) & (abs(y) <= 0.3 * radius)
    canvas[inside] = COLOURS[colour]


def png_of(pixels: np.ndarray) -> bytes:
    """Returns pixels ``[H, W, 3] uint8`` as a plain PNG."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
