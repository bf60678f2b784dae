"""Drawing an episode: the module, the choices, and what is measured so far, as text or as an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.envs.drawing import BAR, FAINT, HEIGHT, INK, MARK, Sheet
from treegym.envs.selection.transition import ROOT, STEPS

__all__ = ["as_image", "as_text"]


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
    sheet = Sheet(f"{world.name}: {world.title(int(state[ROOT]))}")
    draw, fonts = sheet.draw, sheet.fonts
    measured = {name: fitness for name, _, fitness in world.measured(state)}
    names = [name for name in world.action_names(state) if name]
    step = min(36.0, (HEIGHT - 90) / max(len(names), 1))
    left, wide = 420, 480
    line = left + int(wide * world.base_fitness)
    draw.line((line, 60, line, 60 + int(step * len(names))), fill=MARK)
    for row, name in enumerate(names):
        top = 64 + int(row * step)
        draw.text((24, top), name[:56], fill=INK if name in measured else FAINT, font=fonts[13])
        if name in measured:
            draw.rectangle((left, top, left + int(wide * measured[name]), top + int(step * 0.6)), fill=BAR)
            draw.text((left + int(wide * measured[name]) + 6, top), f"{measured[name]:.3f}", fill=INK, font=fonts[13])
    return sheet.pixels()
