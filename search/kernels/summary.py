"""What a finished search says about its roots: visits, Q, the improved policy, the move to play."""

from __future__ import annotations

import numpy as np

from treegym.search.kernels.batch import root_of, tree_of
from treegym.search.kernels.codes import DRAWS_OF_MOVES, DRAWS_OF_RULES, RULE_GUMBEL
from treegym.search.kernels.numeric import EPSILON, exp32, kernel, uniform
from treegym.search.kernels.rules import completed, gumbel_root
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


@kernel
def summarise_one(tree, root, settings, temperature, scores, out, b):
    """Writes one root's results into row b of `out`, whose rows over all actions are filled for illegal ones."""
    policy, visits, q = out.policy[b], out.visits[b], out.q[b]
    width = tree.width[0]
    for k in range(width):
        name = tree.action[0, k]
        visits[name] = tree.visits[0, k]
        if tree.visits[0, k] > 0:
            q[name] = tree.q[0, k]
    out.value[b] = tree.value[0]
    solved = settings.solve and tree.status[0] & SOLVED
    if solved:
        for k in range(width):
            scores[k] = tree.q[0, k]
    elif settings.rule == RULE_GUMBEL:
        completed(False, tree, settings, 0, width, scores)
        mass = np.float32(0.0)
        for k in range(width):
            scores[k] = tree.prior[0, k] * exp32(scores[k])
            mass += scores[k]
        for k in range(width):
            policy[tree.action[0, k]] = scores[k] / mass
        most = np.int32(0)
        for k in range(width):
            most = max(most, tree.visits[0, k] - root.before[k])
        slot = gumbel_root(False, tree, settings, width, scores, root.noisy, root.before, most)
        out.action[b] = tree.action[0, slot]
        return
    else:
        low, high = tree.value[0], tree.value[0]
        for k in range(width):
            if tree.visits[0, k] > 0:
                low, high = min(low, tree.q[0, k]), max(high, tree.q[0, k])
        for k in range(width):  # visits decide, Q breaks ties
            known = (tree.q[0, k] - low) / max(high - low, EPSILON) if tree.visits[0, k] > 0 else 0.0
            scores[k] = np.float32(tree.visits[0, k]) + np.float32(0.5) * np.float32(known)
    best = 0
    for k in range(width):
        if scores[k] > scores[best]:
            best = k
    total = np.float32(0.0)
    for k in range(width):
        total += np.float32(tree.visits[0, k])
    for k in range(width):
        name = tree.action[0, k]
        if solved:
            policy[name] = np.float32(1.0) if k == best else np.float32(0.0)
        elif total > 0:
            policy[name] = np.float32(tree.visits[0, k]) / total
        else:
            policy[name] = tree.prior[0, k]
    out.action[b] = tree.action[0, best]
    if temperature > 0.0 and total > 0 and not solved:
        most = np.int32(1)
        for k in range(width):
            most = max(most, tree.visits[0, k])
        weight = 0.0
        for k in range(width):
            weight += (np.float64(tree.visits[0, k]) / most) ** (1.0 / temperature)
        rest = weight * uniform(settings.seed, root.stream[0], DRAWS_OF_MOVES)
        for k in range(width):
            rest -= (np.float64(tree.visits[0, k]) / most) ** (1.0 / temperature)
            if rest <= 0.0 and tree.visits[0, k] > 0:
                out.action[b] = tree.action[0, k]
                break


@kernel
def summarise(trees, roots, settings, temperature, scores, out):
    """Writes the results of every root; see `summarise_one`."""
    for b in range(len(out.value)):
        summarise_one(tree_of(trees, b), root_of(roots, b), settings, temperature, scores, out, b)
