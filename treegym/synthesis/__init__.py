"""Data that models make for themselves: new prompts, critiques and revisions, judged pairs."""

from treegym.synthesis.constitution import constitution
from treegym.synthesis.preferences import preferences
from treegym.synthesis.self_instruct import InstructSettings, Screens, self_instruct
from treegym.synthesis.writer import Writer

__all__ = ["InstructSettings", "Screens", "Writer", "constitution", "preferences", "self_instruct"]
