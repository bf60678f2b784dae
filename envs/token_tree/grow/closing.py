"""Candidates for siblings, and their closing: the primary's greedy continuation to a real end.

Candidates of all prompts of a shard are closed in one batched call before any is accepted, so the cost of a sibling
in nodes is known exactly when the budget decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treegym.envs.token_tree.grow.settings import Voice
from treegym.envs.token_tree.grow.sprout import Sprout

__all__ = ["PRIMARY", "Candidate", "accept", "close"]

PRIMARY = 0  # the primary's place among the voices, and its provenance bit


@dataclass(frozen=True)
class Candidate:
    """A token that may become a new child of a context."""

    plot: int  # which prompt of the shard
    node: int  # the context
    token: int
    bits: int  # voices that offer it


def accept(
    sprouts: Sequence[Sprout],
    candidates: Sequence[Candidate],
    primary: Voice,
    begins: Sequence[tuple[int, ...]],
    max_nodes: int,
) -> set[int]:
    """Closes candidates and adds, prompt by prompt, the cheapest that fit its budget; returns which prompts grew."""
    payable = [c for c in candidates if sprouts[c.plot].size + 2 <= max_nodes]  # the root counts too
    endings = _closings(sprouts, payable, primary, begins)
    grown: set[int] = set()
    for index in sorted(range(len(payable)), key=lambda i: (len(endings[i]), i)):
        candidate, ending = payable[index], endings[index]
        sprout = sprouts[candidate.plot]
        if sprout.size + 2 + len(ending) > max_nodes:
            continue
        child = sprout.add(candidate.node, candidate.token, bits=candidate.bits)
        sprout.add_path(child, ending, bits=1 << PRIMARY, greedy=True)
        grown.add(candidate.plot)
    return grown


def close(
    sprouts: Sequence[Sprout],
    frontier: Sequence[tuple[int, int]],
    primary: Voice,
    begins: Sequence[tuple[int, ...]],
) -> None:
    """Goes on from nodes where a text stopped without an end, given as (prompt, node), by the primary's choice."""
    if not frontier:
        return
    contexts = [[*begins[plot], *sprouts[plot].path(node)] for plot, node in frontier]
    room = [sprouts[plot].room(node) for plot, node in frontier]
    made = primary.model.generate(contexts, max_new_tokens=max(room))
    for (plot, node), continuation, left in zip(frontier, made, room, strict=True):
        ending = sprouts[plot].finished(continuation, room=left)
        sprouts[plot].add_path(node, ending, bits=1 << PRIMARY, greedy=True)


def _closings(
    sprouts: Sequence[Sprout],
    candidates: Sequence[Candidate],
    primary: Voice,
    begins: Sequence[tuple[int, ...]],
) -> list[list[int]]:
    """Returns the primary's greedy continuation after each candidate; an end needs none."""
    endings: list[list[int]] = [[] for _ in candidates]
    going = [i for i, c in enumerate(candidates) if c.token != sprouts[c.plot].eos_id]
    if not going:
        return endings
    contexts = [
        [*begins[c.plot], *sprouts[c.plot].path(c.node), c.token] for c in (candidates[index] for index in going)
    ]
    room = [sprouts[candidates[i].plot].room(candidates[i].node) - 1 for i in going]
    made = primary.model.generate(contexts, max_new_tokens=max(*room, 1))
    for index, continuation in zip(going, made, strict=True):
        candidate = candidates[index]
        sprout = sprouts[candidate.plot]
        endings[index] = sprout.finished(continuation, room=sprout.room(candidate.node) - 1)
    return endings
