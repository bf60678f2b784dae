"""Where an episode ends: detectors and their composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.rewards.terminal.base import Detector, Terminal, build_terminal

__all__ = ["Detector", "Terminal", "build_terminal"]

__getattr__, __dir__ = lazy_face(__name__, {"Detector": "base", "Terminal": "base", "build_terminal": "base"})
