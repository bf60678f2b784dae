"""Candidates for siblings, and their closing: the primary's greedy continuation to a real end.

Candidates of a shard's prompts are closed together, before any is accepted, so the cost of a sibling in nodes is known
exactly when the budget decides. All are written token by token in step, so those with the shortest endings, which are
accepted first, are known first: what can no longer fit its prompt's budget is dropped on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treegym.envs.token_tree.grow.settings import Voice
from treegym.envs.token_tree.grow.sprout import Sprout
from treegym.models.tree_scores import Reading

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
    *,
    reading: Reading | None = None,
) -> set[int]:
    """Closes candidates and adds, prompt by prompt, the cheapest that fit its budget; returns which prompts grew.

    Args:
        sprouts: the growing trees.
        candidates: what may be added, in order of preference.
        primary: who closes.
        begins: how the primary's texts begin, by prompt.
        max_nodes: a prompt's nodes, its root among them.
        reading: the sprouts as the primary has read them, where it keeps what it reads; nodes of candidates are in it.
    """
    payable = [c for c in candidates if sprouts[c.plot].size + 2 <= max_nodes]  # the root counts too
    if reading is None:
        endings = _closings(sprouts, payable, primary, begins)
    else:
        endings = _closings_read(sprouts, payable, reading, max_nodes)
    grown: set[int] = set()
    for index in _cheapest_first(endings):
        candidate, ending = payable[index], endings[index]
        sprout = sprouts[candidate.plot]
        if sprout.size + 2 + len(ending) > max_nodes:
            continue
        child = sprout.add(candidate.node, candidate.token, bits=candidate.bits)
        sprout.add_path(child, ending, bits=1 << PRIMARY, greedy=True)
        grown.add(candidate.plot)
    return grown


def _cheapest_first(endings: Mapping[int, Sequence[int]]) -> list[int]:
    return sorted(endings, key=lambda index: (len(endings[index]), index))


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
) -> dict[int, list[int]]:
    """Returns the primary's greedy continuation after each candidate; an end needs none."""
    endings: dict[int, list[int]] = {index: [] for index in range(len(candidates))}
    going = _going(sprouts, candidates)
    if not going:
        return endings
    contexts = [
        [*begins[c.plot], *sprouts[c.plot].path(c.node), c.token] for c in (candidates[index] for index in going)
    ]
    room = [_room(sprouts, candidates[index]) for index in going]
    made = primary.model.generate(contexts, max_new_tokens=max(*room, 1))
    for index, continuation, left in zip(going, made, room, strict=True):
        endings[index] = sprouts[candidates[index].plot].finished(continuation, room=left)
    return endings


def _going(sprouts: Sequence[Sprout], candidates: Sequence[Candidate]) -> list[int]:
    return [index for index, c in enumerate(candidates) if c.token != sprouts[c.plot].eos_id]


def _room(sprouts: Sequence[Sprout], candidate: Candidate) -> int:
    """Returns how many tokens may follow a candidate, its end among them."""
    return sprouts[candidate.plot].room(candidate.node) - 1


def _closings_read(
    sprouts: Sequence[Sprout], candidates: Sequence[Candidate], reading: Reading, max_nodes: int
) -> dict[int, list[int]]:
    """Returns what `_closings` does, without the ones that cannot be accepted, from paths that are read already."""
    endings: dict[int, list[int]] = {
        index: [] for index, c in enumerate(candidates) if c.token == sprouts[c.plot].eos_id
    }
    going = sorted(_going(sprouts, candidates), key=lambda index: (candidates[index].plot, index))
    chosen = [candidates[index] for index in going]
    room = [_room(sprouts, candidate) for candidate in chosen]

    def finished(row: int, continuation: list[int]) -> list[int]:
        return sprouts[chosen[row].plot].finished(continuation, room=room[row])

    def hopeless(written: int, ended: Mapping[int, list[int]]) -> set[int]:
        """Returns the rows of prompts whose budget is spent once all endings of up to `written` tokens are in."""
        known = {**endings, **{going[row]: finished(row, said) for row, said in ended.items()}}
        size = {plot: sprouts[plot].size for plot in {candidate.plot for candidate in chosen}}
        for index in _cheapest_first(known):
            plot, cost = candidates[index].plot, 1 + len(known[index])
            if len(known[index]) <= written and plot in size and size[plot] + 1 + cost <= max_nodes:
                size[plot] += cost
        return {row for row, c in enumerate(chosen) if size[c.plot] + 2 + written + 1 > max_nodes}

    made = reading.greedy(
        [(c.plot, c.node) for c in chosen],
        [c.token for c in chosen],
        limits=[left - 1 for left in room],  # the last token is the end
        stops=sprouts[0].closed_by if sprouts else frozenset(),
        hopeless=hopeless,
    )
    for row, continuation in enumerate(made):
        if continuation is not None:
            endings[going[row]] = finished(row, continuation)
    return endings
