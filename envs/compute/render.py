"""Drawing an episode: one line or bar per branch, how far it is, what it says, and what all say together."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.envs.compute import transition
from treegym.envs.compute.transition import CHAIN, DEPTH, SHOWN, STATUS, block
from treegym.envs.drawing import BAR, FAINT, HEIGHT, INK, Sheet

__all__ = ["as_image", "as_text"]

_DROPPED = "#c9ccd1"
_WORDS = ("", "open", "finished", "pruned")


def _branches(world: Any, place: np.ndarray) -> list[tuple[str, float, str, int]]:
    """Returns state, share of the longest text, answer and status of every branch."""
    rows = []
    for i in range(int(place[transition.COUNT])):
        chain, depth, shown, status = (
            int(block(place, which, world.branches)[i]) for which in (CHAIN, DEPTH, SHOWN, STATUS)
        )
        answer = "" if shown == transition.NOTHING else "no answer" if shown < 0 else f"answer {shown}"
        if status == transition.FINISHED:
            answer += f", score {world.chains.score[chain]:.2f}"
        rows.append((_WORDS[status], depth / world.chains.num_segments, answer, status))
    return rows


def as_text(world: Any, place: np.ndarray) -> str:
    """Returns the prompt, a line per branch, and the answer that would be given."""
    lines = [f"{world.name}: step {int(place[transition.STEPS])} of {world.max_iterations}, {world.text(place)}"]
    for i, (state, share, answer, _) in enumerate(_branches(world, place)):
        lines.append(f"{i:3d}  {'#' * round(20 * share):<20}  {state:<9} {answer}")
    said = int(transition.aggregate(place, world.cells))
    lines.append(f"would answer: {'nothing' if said < 0 else said}")
    return "\n".join(lines)


def as_image(world: Any, place: np.ndarray) -> np.ndarray:
    """Returns a picture ``[H, W, 3] uint8``: a bar per branch."""
    sheet = Sheet(f"{world.name}: {world.text(place)}"[:80])
    draw, fonts = sheet.draw, sheet.fonts
    rows = _branches(world, place)
    step = min(48.0, (HEIGHT - 120) / max(len(rows), 1))
    for i, (state, share, answer, status) in enumerate(rows):
        top = 64 + int(i * step)
        dropped = status == transition.PRUNED
        draw.text((24, top), f"{i}  {state}", fill=FAINT if dropped else INK, font=fonts[13])
        draw.rectangle((140, top, 140 + int(500 * share), top + int(step * 0.6)), fill=_DROPPED if dropped else BAR)
        draw.text((650, top), answer, fill=FAINT if dropped else INK, font=fonts[13])
    said = int(transition.aggregate(place, world.cells))
    draw.text((24, HEIGHT - 40), f"would answer: {'nothing' if said < 0 else said}", fill=INK, font=fonts[20])
    return sheet.pixels()
