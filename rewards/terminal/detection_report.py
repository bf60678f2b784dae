"""How well a terminal detector finds the true ends of a tree, and what its filters save in model calls."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from treegym.rewards.terminal.base import Detector, Terminal, Then
from treegym.tree.flags import EOS, EXPANDED
from treegym.tree.token_tree import TokenTree

__all__ = ["detection_report", "fit_threshold"]


class Graded(Protocol):
    """A detector that gives a probability."""

    def probability(self, source: TokenTree, nodes: np.ndarray) -> np.ndarray: ...


def fit_threshold(detector: Graded, source: TokenTree, nodes: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Returns the threshold whose verdicts agree best with the true ends of some nodes ``[B] bool``, and how well.

    Fit it on one split and report on another.
    """
    given = detector.probability(source, nodes)
    order = np.argsort(-given, kind="stable")
    ended = np.cumsum(true[order])  # true ends among the k most probable
    total = int(true.sum())
    wrong = np.arange(1, len(order) + 1) - ended + (total - ended)  # found but not true, true but not found
    last = np.append(np.diff(given[order]) != 0, True)  # equal probabilities are decided alike
    best = int(np.argmin(np.where(last, wrong, len(order) + total + 1)))
    if total <= wrong[best]:  # nothing ends: no threshold does better
        return 1.0, 1.0 - total / max(1, len(order))
    return float(given[order][best]), 1.0 - float(wrong[best]) / len(order)


def detection_report(terminal: Terminal, source: TokenTree) -> dict[str, Any]:
    """Returns agreement with the true ends and the nodes each detector was asked about.

    Looked at are the expanded nodes below the roots that are not end-of-sequence themselves. A true end is such a node
    after which some model ended the text (an end-of-sequence child).
    """
    flags, depth = np.asarray(source.flags), np.asarray(source.depth)
    nodes = np.nonzero(((flags & EOS) == 0) & ((flags & EXPANDED) != 0) & (depth > 0))[0]
    eos_nodes = np.nonzero((flags & EOS) != 0)[0]
    truth = np.zeros(source.size, bool)
    truth[np.asarray(source.parent)[eos_nodes]] = True
    if terminal.detector is not None:
        for detector in _all(terminal.detector):
            detector.asked = 0
    found, true = terminal.on(source, nodes), truth[nodes]
    hits = int((found & true).sum())
    report: dict[str, Any] = {
        "nodes": len(nodes),
        "true_ends": int(true.sum()),
        "found_ends": int(found.sum()),
        "agreement": float((found == true).mean()) if len(nodes) else 1.0,
        "precision": hits / max(1, int(found.sum())),
        "recall": hits / max(1, int(true.sum())),
        "asked": {},
    }
    if terminal.detector is None:
        return report
    for detector in _all(terminal.detector):
        if not detector.parts():
            report["asked"][detector.kind or "function"] = detector.asked
        if isinstance(detector, Then) and len(detector.parts()) > 1:
            first, last = detector.parts()[0], detector.parts()[-1]
            report["calls_saved"] = 1.0 - last.asked / max(1, first.asked)
    return report


def _all(detector: Detector) -> list[Detector]:
    return [detector, *(inner for part in detector.parts() for inner in _all(part))]
