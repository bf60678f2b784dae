"""A skill rating over agents from prompt-by-prompt comparisons (openskill's Plackett-Luce model).

Every prompt is a match that all agents play: whoever scored higher on it ranks higher, equal scores tie. A rating says
who would win on a random prompt, whatever the margin; it complements the leaderboard's means and does not rank it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import numpy as np

__all__ = ["rate"]

MATCHES = 600  # sampled with the seed where there are more: ratings settle well before that


def rate(scores: Mapping[str, Mapping[str, np.ndarray]], *, seed: int) -> dict[str, dict[str, float]]:
    """Returns ``{agent: {"mu", "sigma", "low"}}``, or nothing when openskill is not installed.

    Args:
        scores: environment -> agent -> ``[N runs, P prompts]``. The n-th runs of all agents meet each other.
        seed: shuffles the order of the matches, which an online rating depends on.
    """
    agents = sorted(set.intersection(*(set(by_agent) for by_agent in scores.values()))) if scores else []
    if len(agents) < 2 or importlib.util.find_spec("openskill") is None:
        return {}
    from openskill.models import PlackettLuce

    rng = np.random.default_rng(seed)
    rows = []  # each [matches, agents] float64
    for by_agent in scores.values():
        runs = min(len(by_agent[agent]) for agent in agents)
        rows.append(np.stack([by_agent[agent][:runs].ravel() for agent in agents], axis=1))
    matches = np.concatenate(rows)
    matches = matches[rng.permutation(len(matches))[:MATCHES]]
    model = PlackettLuce()
    ratings = [[model.rating(name=agent)] for agent in agents]
    for match in matches:
        if np.ptp(match) > 0:  # a prompt on which all do equally well says nothing about who is better
            ratings = model.rate(ratings, scores=match.tolist())
    return {
        agent: {"mu": round(r.mu, 3), "sigma": round(r.sigma, 3), "low": round(r.mu - 3 * r.sigma, 3)}
        for agent, (r,) in zip(agents, ratings, strict=True)
    }
