"""Drawing an episode: the module, the choices, and what is measured so far, as text or as an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.envs.selection.transition import ROOT, STEPS
from treegym.errors import require

__all__ = ["as_image", "as_text"]

_WIDTH, _HEIGHT = 960, 600
_PAPER, _INK, _FAINT, _BAR, _BASE = "#fbfaf7", "#22252b", "#9aa0a8", "#2563a8", "#b4531f"


def as_text(world: Any, state: np.ndarray) -> str:
    """Returns the module, a line for every action, and the measurements so far."""
    root = int(state[ROOT])
    lines = [f"{world.name}: {world.title(root)}, step {int(state[STEPS])} of {world.max_iterations}"]
    measured = {name: (metrics, fitness) for name, metrics, fitness in world.measured(state)}
    lines.append(f"{'action':>6}  {'speed':>6} {'memory':>6} {'accur.':>6} {'fitness':>7}  choice")
    for action, name in enumerate(world.action_names(state)):
        if not name:
            continue
        numbers = " " * 29
        if name in measured:
            (speed, memory, accuracy), fitness = measured[name]
            numbers = f"{speed:6.2f} {memory:6.2f} {accuracy:6.3f} {fitness:7.4f} "
        lines.append(f"{action:6d}  {numbers} {name}")
    lines.append(f"so far: {world.text(state)}; the original's fitness is {world.base_fitness:.4f}")
    return "\n".join(lines)


def as_image(world: Any, state: np.ndarray) -> np.ndarray:
    """Returns a picture ``[H, W, 3] uint8``: a bar of fitness for what is measured, a line for the original."""
    image_module = require("PIL.Image", extra="render", purpose="drawing images")
    draw_module = require("PIL.ImageDraw", extra="render", purpose="drawing images")
    font_module = require("PIL.ImageFont", extra="render", purpose="drawing images")
    image = image_module.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    draw = draw_module.Draw(image)
    fonts = {size: font_module.load_default(size=size) for size in (13, 20)}
    draw.text((24, 16), f"{world.name}: {world.title(int(state[ROOT]))}", fill=_INK, font=fonts[20])
    measured = {name: fitness for name, _, fitness in world.measured(state)}
    names = [name for name in world.action_names(state) if name]
    step = min(36.0, (_HEIGHT - 90) / max(len(names), 1))
    left, wide = 420, 480
    line = left + int(wide * world.base_fitness)
    draw.line((line, 60, line, 60 + int(step * len(names))), fill=_BASE)
    for row, name in enumerate(names):
        top = 64 + int(row * step)
        draw.text((24, top), name[:56], fill=_INK if name in measured else _FAINT, font=fonts[13])
        if name in measured:
            draw.rectangle((left, top, left + int(wide * measured[name]), top + int(step * 0.6)), fill=_BAR)
            draw.text((left + int(wide * measured[name]) + 6, top), f"{measured[name]:.3f}", fill=_INK, font=fonts[13])
    return np.asarray(image, np.uint8).copy()
