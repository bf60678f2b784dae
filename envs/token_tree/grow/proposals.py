"""Who proposes what after a context: likely and unlikely tokens of every voice, taken in turn."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from treegym.envs.token_tree.grow.settings import GrowSettings

__all__ = ["Proposal", "in_turn", "proposals_at", "ranked_offers"]

Proposal = tuple[int, int]  # token, bits of the voices that offer it


def ranked_offers(best_ids: np.ndarray, worst_ids: np.ndarray) -> list[int]:
    """Returns one voice's offers at one context: its likeliest token, then likely and unlikely ones alternately."""
    likely = [int(token) for token in best_ids if token >= 0]
    unlikely = [int(token) for token in worst_ids if token >= 0]
    offers, rest = likely[:1], likely[1:]
    for rank in range(max(len(rest), len(unlikely))):
        offers += rest[rank : rank + 1] + unlikely[rank : rank + 1]
    return list(dict.fromkeys(offers))  # in a small vocabulary the likely and the unlikely meet


def in_turn(offers: Sequence[Sequence[int]], *, limit: int, first: int = 0) -> list[Proposal]:
    """Returns distinct tokens by round-robin over the voices, at most `limit`.

    Args:
        offers: each voice's tokens, best first; voice v has provenance bit v.
        limit: how many tokens to take; a voice whose offer is taken already adds its bit and has had its turn.
        first: the voice that begins.
    """
    bits: dict[int, int] = {}
    for rank in range(max((len(voice) for voice in offers), default=0)):
        if len(bits) >= limit:
            break
        for turn in range(len(offers)):
            voice = (first + turn) % len(offers)
            if rank < len(offers[voice]):
                token = offers[voice][rank]
                if token in bits or len(bits) < limit:
                    bits[token] = bits.get(token, 0) | 1 << voice
    return list(bits.items())


def proposals_at(
    opinions: Sequence[tuple[np.ndarray, np.ndarray]],
    standing: Collection[int],
    *,
    depth: int,
    settings: GrowSettings,
) -> list[Proposal]:
    """Returns what the voices propose after a context, so that it never gets more than `max_children`.

    Args:
        opinions: each voice's likeliest and unlikeliest next tokens.
        standing: tokens of the children that are there already; they keep their places.
        depth: the context's depth; the voice that begins changes with it.
        settings: how many tokens each voice offers, and how many children a context may have.
    """
    limit = settings.max_children + len(standing)  # no voice comes to its offers beyond this rank
    right, wrong = min(settings.right, limit), min(settings.wrong, limit)
    offers = [ranked_offers(best[:right], worst[:wrong])[:limit] for best, worst in opinions]
    taken: list[Proposal] = []
    room = settings.max_children - len(standing)
    for token, bits in in_turn(offers, limit=limit, first=depth % len(offers)):
        if token not in standing:
            if room <= 0:
                continue
            room -= 1
        taken.append((token, bits))
    return taken
