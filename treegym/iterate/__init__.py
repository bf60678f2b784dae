"""The founding loop: collect on trees, reward, update child weights, train the primary, evaluate, repeat."""

from treegym.iterate.evaluate import evaluate_model
from treegym.iterate.loop import iterate
from treegym.iterate.settings import IterateSettings

__all__ = ["IterateSettings", "evaluate_model", "iterate"]
