"""What a finished search says about its roots: visits, Q, the improved policy, the move to play."""

from __future__ import annotations

import numpy as np

from treegym.search.kernels.batch import root_of, tree_of
from treegym.search.kernels.codes import DRAWS_OF_MOVES, DRAWS_OF_RULES, RULE_GUMBEL
from treegym.search.kernels.numeric import EPSILON, FAR, exp32, inlined, kernel, uniform
from treegym.search.kernels.rules import completed, gumbel_root
from treegym.search.kernels.walk import exact_q, is_solved
from treegym.search.tree import SOLVED

__all__ = ["perturb", "perturb_one", "summarise", "summarise_one"]


@kernel
def perturb_one(tree, root, seed, root_noise, gumbel_scale, gammas):
    """Sets one root up: Gumbel noise + log prior, visits brought along, Dirichlet noise mixed into the prior."""
    width = tree.width[0]
    root.done[0] = 0
    root.draws[0] = DRAWS_OF_RULES
    if root_noise > 0.0:
        mass = gammas[:width].sum()
        for k in range(width):
            noise = np.float32(gammas[k] / mass)
            tree.prior[0, k] = (np.float32(1.0) - root_noise) * tree.prior[0, k] + root_noise * noise
    for k in range(width):
        root.before[k] = tree.visits[0, k]
        if gumbel_scale >= 0.0:
            gumbel = 0.0
            if gumbel_scale > 0.0:
                gumbel = -gumbel_scale * np.log(-np.log(uniform(seed, root.stream[0], k)))
            root.noisy[k] = np.float32(gumbel) + np.log(tree.prior[0, k])


@kernel
def perturb(trees, roots, seed, noise):
    """Sets every root up for a search; see `perturb_one`."""
    for b in range(len(roots.done)):
        gammas = noise.gammas[min(b, len(noise.gammas) - 1)]
        perturb_one(tree_of(trees, b), root_of(roots, b), seed, noise.share, noise.gumbel, gammas)


@inlined
def proven_best(tree, settings):
    """Returns the best proven Q of the root's children, -FAR where none is proven or nothing is to be proven."""
    best = -FAR
    if settings.solve:
        for k in range(tree.width[0]):
            if is_solved(tree, 0, k):
                best = max(best, exact_q(tree, settings, 0, k))
    return best


@inlined
def is_beaten(tree, settings, slot, best):
    """Returns whether a child of the root is proven to be worse than another one, which is worth `best`."""
    return settings.solve and is_solved(tree, 0, slot) and exact_q(tree, settings, 0, slot) < best


@kernel
def summarise_one(tree, root, settings, temperature, scores, out, b):
    """Writes one root's results into row b of `out`, whose rows over all actions are filled for illegal ones.

    With `solve`, a move that is proven to be worse than another is neither played nor part of the policy.
    """
    policy, visits, q = out.policy[b], out.visits[b], out.q[b]
    width = tree.width[0]
    best_proven = proven_best(tree, settings)
    solved = settings.solve and tree.status[0] & SOLVED
    for k in range(width):
        name = tree.action[0, k]
        visits[name] = tree.visits[0, k]
        if settings.solve and is_solved(tree, 0, k):
            q[name] = exact_q(tree, settings, 0, k)
        elif tree.visits[0, k] > 0:
            q[name] = tree.q[0, k]
    out.value[b] = best_proven if solved else tree.value[0]
    total = np.float32(0.0)
    if settings.rule == RULE_GUMBEL and not solved:
        completed(False, tree, settings, 0, width, scores)
        for k in range(width):
            share = tree.prior[0, k] * exp32(scores[k])
            policy[tree.action[0, k]] = np.float32(0.0) if is_beaten(tree, settings, k, best_proven) else share
            total += policy[tree.action[0, k]]
        most = np.int32(0)
        for k in range(width):
            if not is_beaten(tree, settings, k, best_proven):
                most = max(most, tree.visits[0, k] - root.before[k])
        gumbel_root(False, tree, settings, width, scores, root.noisy, root.before, most)
    else:
        low, high = tree.value[0], tree.value[0]
        for k in range(width):
            if tree.visits[0, k] > 0:
                low, high = min(low, tree.q[0, k]), max(high, tree.q[0, k])
        for k in range(width):  # visits decide, Q breaks ties; where everything is proven, Q decides
            known = (tree.q[0, k] - low) / max(high - low, EPSILON) if tree.visits[0, k] > 0 else 0.0
            scores[k] = np.float32(tree.visits[0, k]) + np.float32(0.5) * np.float32(known)
            if solved:
                scores[k] = exact_q(tree, settings, 0, k)
            counted = tree.visits[0, k] if not is_beaten(tree, settings, k, best_proven) else np.int32(0)
            policy[tree.action[0, k]] = np.float32(counted)
            total += np.float32(counted)
        if total == 0:
            for k in range(width):
                policy[tree.action[0, k]] = tree.prior[0, k]
                total = np.float32(1.0)
    best = -1
    for k in range(width):
        if not is_beaten(tree, settings, k, best_proven) and (best < 0 or scores[k] > scores[best]):
            best = k
    out.action[b] = tree.action[0, best]
    for k in range(width):
        name = tree.action[0, k]
        if solved:
            policy[name] = np.float32(1.0) if k == best else np.float32(0.0)
        else:
            policy[name] = policy[name] / total
    if settings.rule != RULE_GUMBEL and temperature > 0.0 and not solved:
        _draw_move(tree, root, settings, temperature, best_proven, out, b)


@inlined
def _draw_move(tree, root, settings, temperature, best_proven, out, b):
    """Draws the move with probabilities visits ** (1 / temperature) instead."""
    most, weight = np.int32(1), 0.0
    for k in range(tree.width[0]):
        most = max(most, tree.visits[0, k])
    for k in range(tree.width[0]):
        if not is_beaten(tree, settings, k, best_proven):
            weight += (np.float64(tree.visits[0, k]) / most) ** (1.0 / temperature)
    if weight == 0.0:
        return
    rest = weight * uniform(settings.seed, root.stream[0], DRAWS_OF_MOVES)
    for k in range(tree.width[0]):
        if tree.visits[0, k] > 0 and not is_beaten(tree, settings, k, best_proven):
            rest -= (np.float64(tree.visits[0, k]) / most) ** (1.0 / temperature)
            if rest <= 0.0:
                out.action[b] = tree.action[0, k]
                break


@kernel
def summarise(trees, roots, settings, temperature, scores, out):
    """Writes the results of every root; see `summarise_one`."""
    for b in range(len(out.value)):
        summarise_one(tree_of(trees, b), root_of(roots, b), settings, temperature, scores, out, b)
