"""Drawing an episode: the path so far and the children that may be chosen, as text or as an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.envs.drawing import BAR, FAINT, HEIGHT, INK, MARK, PAPER, WIDTH, Sheet
from treegym.envs.token_tree.world import TreeWorld

__all__ = ["as_image", "as_text"]

_TEACHERS = ("#2a9d6f", "#c9622f", "#6d5bd0", "#c23b75", "#8a7a12", "#1f8ea3", "#7a4a2a", "#4a6b8a")


def _label(world: TreeWorld, node: int) -> str:
    token = int(world.tree.token[node])
    if token == world.tree.eos_id:
        return "end"
    text = world.tree.text_of([token]).replace("\n", "\\n").replace(" ", "_") or f"<{token}>"
    return text if len(text) <= 9 else text[:8] + "…"


def _children(world: TreeWorld, node: int) -> np.ndarray:
    return world.tree.children(node) if not world.tables.ends[node] else np.arange(0)


def as_text(world: TreeWorld, node: int) -> str:
    """Returns the prompt, the text so far and a table of the children with their features."""
    tree = world.tree
    root = int(world.tables.root_index[node])
    lines = [f"prompt: {tree.prompts[root]}", f"text:   {tree.text(node)!r} ({tree.depth[node]} tokens)"]
    children = _children(world, node)
    if not len(children):
        return "\n".join([*lines, "the end"])
    names = world.layout.child
    lines.append("  ".join([" action", "token", *(name.rjust(max(len(name), 6)) for name in names)]))
    for action, child in enumerate(children):
        values = (f"{v:.2f}".rjust(max(len(n), 6)) for n, v in zip(names, world.tables.features[child], strict=True))
        lines.append("  ".join([f"{action:7d}", _label(world, child).rjust(5), *values]))
    return "\n".join(lines)


def as_image(world: TreeWorld, node: int) -> np.ndarray:
    """Returns a picture of the tree around the path ``[H, W, 3] uint8``.

    The path runs down the middle; at every step the siblings that were not taken hang faintly beside it; below it
    stand the children, with a bar for the primary's probability and a dot for every teacher that proposes one.
    """
    tree = world.tree
    root = int(world.tables.root_index[node])
    sheet = Sheet(f"{tree.prompts[root]}  {tree.text(node)}"[:90])
    draw, fonts = sheet.draw, sheet.fonts
    for m, name in enumerate(tree.teachers):
        colour = _TEACHERS[m % len(_TEACHERS)]
        draw.ellipse((26, 56 + 20 * m, 36, 66 + 20 * m), fill=colour)
        draw.text((44, 53 + 20 * m), name[:22], fill=FAINT, font=fonts[13])
    _draw_path(world, node, draw, fonts)
    return sheet.pixels()


def _draw_path(world: TreeWorld, node: int, draw: Any, fonts: dict[int, Any]) -> None:
    tree = world.tree
    root = int(world.root_node[int(world.tables.root_index[node])])
    path = [root, *tree.path_nodes(node)]
    shown = path[-7:]  # the last steps; the text above holds the rest
    children = _children(world, node)
    step = (HEIGHT - 210) / max(len(shown), 2)
    middle = WIDTH / 2
    at = (middle, 78.0)
    _node(draw, at, "..." if len(path) > len(shown) else "", BAR, fonts)
    for level, here in enumerate(shown[1:], start=1):
        below = (middle, 78.0 + level * step)
        siblings = tree.children(shown[level - 1])
        position = int(here - siblings[0])
        apart = min(64.0, (middle - 30) / max(1, position, len(siblings) - 1 - position))  # all within the picture
        for other, sibling in enumerate(siblings):
            if sibling != here:
                side = (middle + (other - position) * apart, below[1])
                draw.line([(at[0], at[1] + 15), (side[0], side[1] - 10)], fill="#dcdad3", width=1)
                draw.text(side, _label(world, int(sibling)), fill=FAINT, font=fonts[13], anchor="mm")
        draw.line([(at[0], at[1] + 15), below], fill=BAR, width=3)
        _node(draw, below, _label(world, here), MARK if world.tables.ends[here] else BAR, fonts)
        at = below
    widest = max((draw.textlength(_label(world, int(child)), font=fonts[13]) for child in children), default=0.0)
    spacing = min(max(56, widest + 24), (WIDTH - 80) / max(len(children), 1))
    for action, child in enumerate(children):
        _draw_child(world, int(child), at, (middle + (action - (len(children) - 1) / 2) * spacing, 470.0), draw, fonts)


def _draw_child(
    world: TreeWorld,
    child: int,
    above: tuple[float, float],
    at: tuple[float, float],
    draw: Any,
    fonts: dict[int, Any],
) -> None:
    tree, (x, y) = world.tree, at
    draw.line([(above[0], above[1] + 14), (x, y - 14)], fill="#b9b6ab", width=1)
    _node(draw, at, _label(world, child), MARK if world.tables.ends[child] else INK, fonts)
    height = 60 * float(np.exp(tree.prior[child]))
    draw.rectangle((x - 9, y + 80 - height, x + 9, y + 80), fill="#a9c3dd")
    draw.line([(x - 12, y + 80), (x + 12, y + 80)], fill=FAINT)
    for m in range(tree.num_teachers):
        if int(tree.proposers[child]) >> (m + 1) & 1:
            left, top = x - 4 + 10 * (m // 4), y + 88 + 10 * (m % 4)
            draw.ellipse((left, top, left + 8, top + 8), fill=_TEACHERS[m % len(_TEACHERS)])


def _node(draw: Any, at: tuple[float, float], label: str, colour: str, fonts: dict[int, Any]) -> None:
    (x, y), font = at, fonts[16 if len(label) < 3 else 13]
    half = max(15.0, draw.textlength(label, font=font) / 2 + 8)  # a word is wider than a letter
    draw.rounded_rectangle((x - half, y - 15, x + half, y + 15), 15, fill=PAPER, outline=colour, width=2)
    draw.text((x, y), label, fill=colour, font=font, anchor="mm")
