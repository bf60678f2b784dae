"""Methods that walk whole paths with the policy: greedy, sampling, best-of-N, lookahead."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import comb
from typing import Any, Unpack

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import from_zero, positive
from treegym.search.paths import log_policy
from treegym.search.plan import Limits, Plan
from treegym.search.simulator import SearchResult, Simulator
from treegym.search.states import StateStore, take

__all__ = ["best_of_n", "best_of_policy", "greedy", "lookahead", "sample"]


def greedy(
    simulator: Simulator, states: Any, *, num_simulations: int = 1, seed: int = 0, answers: int = 0, **_: Any
) -> SearchResult:
    """Plays the most likely move; judges nothing but the root, so that its one answer is to stay there."""
    plan = Plan(simulator, states, num_simulations, answers=answers)
    found = plan.result(np.exp(plan.prior))
    return found._replace(value=plan.given.value.copy())


def sample(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int = 1,
    seed: int = 0,
    root_ids: np.ndarray | None = None,
    temperature: float = 1.0,
    answers: int = 0,
    **_: Any,
) -> SearchResult:
    """Samples a move from the policy at a temperature."""
    found = greedy(simulator, states, num_simulations=num_simulations, answers=answers)
    if from_zero("temperature", temperature, math.inf) == 0:
        return found
    plan = Plan(simulator, states, num_simulations, seed=seed, root_ids=root_ids)
    noise = np.stack([stream.gumbel(size=plan.actions) for stream in plan.streams])
    return found._replace(action=(plan.prior / temperature + noise).argmax(1).astype(np.int32))


def best_of_policy(scores: np.ndarray, actions: np.ndarray, *, best_of: int, num_actions: int) -> np.ndarray:
    """Returns the first-move distribution of best-of-k over n scored samples, float64 [A]: a training target.

    Sample with rank r (1 the worst) is the best of k drawn without replacement with probability
    C(r - 1, k - 1) / C(n, k); equal scores share. k = n is the single best sample, k = 1 the policy itself.
    """
    samples = len(scores)
    size = min(best_of, samples)
    order = np.argsort(scores, kind="stable")
    chance = np.array([comb(rank, size - 1) for rank in range(samples)], np.float64) / comb(samples, size)
    share = np.empty(samples)
    share[order] = chance
    _, group = np.unique(scores, return_inverse=True)
    share = (np.bincount(group, weights=share) / np.bincount(group))[group]
    return np.bincount(actions, weights=share, minlength=num_actions)


def best_of_n(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    temperature: float = 1.0,
    lanes: int = 8,
    horizon: int = 256,
    best_of: int | None = None,
    rerank: Callable[[Any, np.ndarray], np.ndarray] | None = None,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Samples paths with the policy until `num_simulations` states per root were judged; plays the best path's move.

    A path cut by the budget or the horizon is worth its rewards and the value of where it stopped.

    Args:
        lanes: paths of one root walked together.
        horizon: longest path.
        best_of: k of the target policy (see `best_of_policy`); all samples unless given.
        rerank: ``rerank(last states, returns) -> scores`` ranks finished paths by something else than their return.
        **limits: see `treegym.search.plan.Limits`.
    """
    lanes, horizon = positive("lanes", lanes), positive("horizon", horizon)
    temperature = from_zero("temperature", temperature, math.inf)
    plan = Plan(simulator, states, num_simulations, **limits)
    size, budget, tally = plan.size, plan.budget, plan.tally
    scores: list[list[float]] = [[] for _ in range(size)]
    firsts: list[list[int]] = [[] for _ in range(size)]
    while (tally.evaluations < budget).any() and sum(map(len, scores)) < size * budget:
        if plan.world.spent and scores[0]:  # every root has at least one path
            break
        # a step costs one evaluation at most, and a path that ends at once none: both bounds are kept
        room = np.minimum(np.minimum(budget - tally.evaluations, budget - np.array([len(s) for s in scores])), lanes)
        owners = np.repeat(np.arange(size), np.maximum(room, 0))
        if not len(owners):
            break
        walked = walk(plan, take(states, owners), owners, horizon=horizon, temperature=temperature)
        ranked = walked.returns if rerank is None else np.asarray(rerank(walked.states, walked.returns), np.float64)
        if ranked.shape != walked.returns.shape or np.isnan(ranked).any():
            raise ConfigError(f"rerank gave shape {ranked.shape} or NaN; expected {walked.returns.shape} numbers")
        for owner, first, score in zip(owners, walked.first, ranked, strict=True):
            scores[owner].append(float(score))
            firsts[owner].append(int(first))
            tally.add(int(owner), int(first), float(score))
    policy = np.stack(
        [
            best_of_policy(np.array(s), np.array(f), best_of=best_of or len(s), num_actions=plan.actions)
            for s, f in zip(scores, firsts, strict=True)
        ]
    )
    return plan.result(policy)


def lookahead(
    simulator: Simulator,
    states: Any,
    *,
    num_simulations: int,
    temperature: float = 0.0,
    horizon: int = 8,
    candidates: int = 16,
    **limits: Unpack[Limits],
) -> SearchResult:
    """Simulates each candidate move for `horizon` steps of the policy and takes the one that is worth the most.

    A candidate is worth its rewards and the value of where it was at the horizon; with a temperature, the mean of as
    many such walks as the budget allows. `limits` as in `treegym.search.plan.Limits`.
    """
    horizon, temperature = positive("horizon", horizon), from_zero("temperature", temperature, math.inf)
    plan = Plan(simulator, states, num_simulations, **limits)
    budget, tally, actions = plan.budget, plan.tally, plan.actions
    total = np.zeros((plan.size, actions))
    order = np.argsort(-plan.prior, axis=1, kind="stable")[:, : min(positive("candidates", candidates), actions)]
    open_ = np.isfinite(np.take_along_axis(plan.prior, order, 1))
    rounds = 0
    while (tally.evaluations < budget).any() and (rounds == 0 or temperature > 0) and rounds < budget:
        if plan.world.spent and rounds:
            break
        rounds += 1
        within = open_.cumsum(1) <= (budget - tally.evaluations)[:, None]  # a step costs one evaluation at most
        owners, column = np.nonzero(open_ & within)
        forced = order[owners, column]
        walked = walk(plan, take(states, owners), owners, horizon=horizon, temperature=temperature, first=forced)
        for owner, action, value in zip(owners, walked.first, walked.returns, strict=True):
            tally.visits[owner, action] += 1
            total[owner, action] += value
    seen = tally.visits > 0
    tally.best = np.where(seen, total / np.maximum(tally.visits, 1), -np.inf)
    return plan.result()


class Walked:
    """What became of L walks."""

    def __init__(self, states: Any, returns: np.ndarray, first: np.ndarray) -> None:
        self.states, self.returns, self.first = states, returns, first  # [L], [L] float64, [L] int64


def walk(
    plan: Plan,
    states: Any,
    owners: np.ndarray,
    *,
    horizon: int,
    temperature: float,
    first: np.ndarray | None = None,
) -> Walked:
    """Walks L paths from roots with the policy until they end; each new state costs its owner one evaluation.

    An owner that cannot pay a further step of all its walks has the last of them
    stopped where they are; it must be able to pay the first one.
    """
    world, evaluations, lanes = plan.world, plan.tally.evaluations, len(owners)
    store = StateStore(states, lanes)
    store.put(np.arange(lanes), states)
    returns, weight = np.zeros(lanes), np.ones(lanes)
    worth = plan.given.value[owners].astype(np.float64)  # value of where each walk stands, 0 once it ended
    moves = np.full(lanes, -1, np.int64)
    policy = plan.prior[owners]
    alive, at = np.arange(lanes), owners.copy()  # [L], numbers of where they are on the trail
    for depth in range(horizon):
        if depth:
            alive = alive[_rank(owners[alive]) < (plan.budget - evaluations)[owners[alive]]]
            if not len(alive):
                break
        if depth or first is None:
            noise = np.stack([plan.streams[owners[i]].gumbel(size=plan.actions) for i in alive]) if temperature else 0.0
            chosen = (policy[alive] / (temperature or 1.0) + noise).argmax(1)
        else:
            chosen = first[alive]
        if not depth:
            moves[alive] = chosen
        moved = world.step(store.get(alive), chosen.astype(np.int32))
        ended = moved.terminated
        store.put(alive, moved.states)
        returns[alive] += weight[alive] * moved.reward
        weight[alive] *= plan.discount
        worth[alive[ended]] = 0.0
        gone, alive = alive, alive[~ended]
        given = world.expand(store.get(alive)) if len(alive) else None
        if plan.trail is not None:
            found = np.zeros(len(gone))
            if given is not None:
                found[~ended] = given.value
            at[gone] = plan.trail.add(at[gone], chosen, moved, found)
        if given is None:
            break
        np.add.at(evaluations, owners[alive], 1)
        policy[alive] = log_policy(given)
        worth[alive] = given.value
        if world.spent:
            break
    return Walked(store.get(np.arange(lanes)), returns + weight * worth, moves)


def _rank(owners: np.ndarray) -> np.ndarray:
    """Returns how many entries before it are the same, for each of ``owners [L]`` in rising order."""
    return np.arange(len(owners)) - np.searchsorted(owners, owners)
