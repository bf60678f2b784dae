"""A sheet of paper for pictures of episodes: colours, fonts and a title."""

from __future__ import annotations

import numpy as np

from treegym.errors import require

__all__ = ["BAR", "FAINT", "HEIGHT", "INK", "MARK", "PAPER", "WIDTH", "Sheet"]

WIDTH, HEIGHT = 960, 600
PAPER, INK, FAINT, BAR, MARK = "#fbfaf7", "#22252b", "#9aa0a8", "#2563a8", "#b4531f"


class Sheet:
    """A picture in the making; `draw` is Pillow's, `fonts` are by size."""

    def __init__(self, title: str) -> None:
        image, draw, font = (
            require(f"PIL.{name}", extra="render", purpose="drawing images")
            for name in ("Image", "ImageDraw", "ImageFont")
        )
        self._image = image.new("RGB", (WIDTH, HEIGHT), PAPER)
        self.draw = draw.Draw(self._image)
        self.fonts = {size: font.load_default(size=size) for size in (13, 16, 20)}
        self.draw.text((24, 16), title, fill=INK, font=self.fonts[20])

    def pixels(self) -> np.ndarray:
        """Returns the picture ``[H, W, 3] uint8``."""
        return np.asarray(self._image, np.uint8).copy()
