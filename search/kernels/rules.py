"""Selection rules: which child of a node to look at next. Formulas in the docstrings.

Letters: n(k) visits of child k, N visits of the node, P prior, Q value of a child, V of the node.
"""

from __future__ import annotations

import numpy as np

from treegym.search.kernels.codes import (
    FIRST_FIXED,
    FIRST_PARENT,
    HALVING_OVER,
    INSTEAD,
    RULE_GUMBEL,
    RULE_PUCT,
    RULE_SIMILARITY,
    RULE_UCT,
)
from treegym.search.kernels.numeric import EPSILON, FAR, argmax, exp32, inlined, position, strict, uniform
from treegym.search.kernels.simd import narrow
from treegym.search.tree import PENDING, SOLVED

__all__ = ["chance_slot", "completed", "considered_next", "gumbel_root", "select", "select_narrow"]


@inlined
def _range(visits, q, width, low, high):
    """Returns the least and greatest Q of the visited children, widened from [low, high]."""
    for k in range(width):
        seen = visits[k] > 0
        low = min(low, q[k] if seen else low)
        high = max(high, q[k] if seen else high)
    return low, high


@inlined
def puct(plain, tree, settings, node, width, scores):
    """argmax Q + P sqrt(N) C(N) / (1 + n), C(N) = c_init + ln((N + c_base + 1) / c_base), Q scaled to [0, 1].

    N counts the node's own evaluation too. ``settings.explore[N]`` holds sqrt(N) C(N). https://arxiv.org/abs/1911.08265
    """
    prior, visits, q = tree.prior[node], tree.visits[node], tree.q[node]
    value = tree.value[node]
    if plain or settings.normalise:
        low, high = _range(visits, q, width, value, value)
        scale = np.float32(1.0) / max(high - low, EPSILON)
    else:
        low, scale = np.float32(0.0), np.float32(1.0)
    first = np.float32(0.0)
    if not plain and settings.first_play == FIRST_PARENT:
        first = (value - low) * scale
    elif not plain and settings.first_play == FIRST_FIXED:
        first = (np.float32(settings.first_value) - low) * scale
    explore = settings.explore[min(tree.seen[node], len(settings.explore) - 1)]
    best = -FAR
    for k in range(width):
        n = visits[k]
        score = explore * prior[k]
        if n > 0:  # a branch, because most children of most nodes are unvisited and need no division
            score = (q[k] - low) * scale + score / np.float32(n + 1)
        else:
            score += first
        scores[k] = score
        best = max(best, score)
    return position(scores, width, best)


@inlined
def completed(plain, tree, settings, node, width, scores):
    """Writes sigma(Q) - max sigma(Q) into `scores`, Q completed by the mixed value; returns the visits of all children.

    sigma(Q) = (c_visit + max n) c_scale Q with Q rescaled to [0, 1]; an unvisited child has
    v_mix = (v + sum n * sum_visited(P Q) / sum_visited(P)) / (1 + sum n).
    """
    prior, visits, q = tree.prior[node], tree.visits[node], tree.q[node]
    total, most, unseen = np.int32(0), np.int32(0), np.int32(0)
    mass, weighted = 0.0, 0.0  # float64, so that the order in which vector units add up does not matter
    low, high = FAR, -FAR
    for k in range(width):
        n = visits[k]
        seen = n > 0
        total += n
        most = max(most, n)
        unseen += np.int32(0) if seen else np.int32(1)
        share = np.float64(prior[k]) if seen else 0.0
        mass += share
        weighted += share * np.float64(q[k]) if seen else 0.0
        low = min(low, q[k] if seen else low)
        high = max(high, q[k] if seen else high)
    mixed = tree.raw[node]
    if total > 0:
        mixed = np.float32((np.float64(mixed) + total * (weighted / mass)) / (total + 1))
    if unseen > 0:
        low, high = min(low, mixed), max(high, mixed)
    scale = np.float32(settings.c_scale) * np.float32(settings.c_visit + most)
    if plain or settings.normalise:
        scale = scale / max(high - low, EPSILON)
    for k in range(width):
        scores[k] = _gain(q[k] if visits[k] > 0 else mixed, high, scale)
    return total


@strict
def _gain(q, high, scale):
    return (q - high) * scale


@strict
def _weight(prior, gain):
    return prior * exp32(gain)


@strict
def _behind(weight, scale, visits, share):
    return weight * scale - np.float32(visits) * share


@strict
def _bound(gain, scale, spread, shrink):
    return gain * scale + spread * shrink


@inlined
def gumbel(plain, tree, settings, node, width, scores):
    """argmax pi'(k) - n(k) / (1 + sum n), pi' = softmax(logits + sigma(completed Q)).

    Danihelka et al. 2022, section 5: https://openreview.net/forum?id=bERaNdoegnO
    """
    total = completed(plain, tree, settings, node, width, scores)
    prior, visits = tree.prior[node], tree.visits[node]
    mass = 0.0
    for k in range(width):
        scores[k] = _weight(prior[k], scores[k])
        mass += np.float64(scores[k])
    scale, share = np.float32(1.0 / mass), np.float32(1.0) / np.float32(total + 1)
    best = -FAR
    for k in range(width):
        score = _behind(scores[k], scale, visits[k], share)
        scores[k] = score
        best = max(best, score)
    return position(scores, width, best)


@inlined
def gumbel_root(plain, tree, settings, width, scores, noisy, before, considered):
    """Sequential halving at the root: argmax g + logit + sigma(Q) among the children with `considered` new visits."""
    completed(plain, tree, settings, 0, width, scores)
    visits = tree.visits[0]
    for k in range(width):
        score = max(np.float32(-1e9), noisy[k] + scores[k])
        scores[k] = score if visits[k] - before[k] == considered else -FAR
    return argmax(scores, width)


@inlined
def uct(tree, settings, node, width, scores):
    """argmax Q + c sqrt(ln N / n), Q scaled to [0, 1]; unvisited children first, in order of their prior.

    ``settings.shrink[n]`` holds 1 / sqrt(n): roots taken eight at a time round differently from one alone, which broke
    ties between equal children in favour of the last ones of a wide node.
    """
    prior, visits, q = tree.prior[node], tree.visits[node], tree.q[node]
    low, high = np.float32(0.0), np.float32(1.0)
    if settings.normalise:
        low, high = _range(visits, q, width, tree.value[node], tree.value[node])
    scale = np.float32(1.0) / max(high - low, EPSILON)
    spread = np.float32(settings.c_explore) * np.sqrt(np.log(np.float32(tree.seen[node])))
    last = len(settings.shrink) - 1
    for k in range(width):
        n = visits[k]
        seen = _bound(q[k] - low, scale, spread, settings.shrink[min(n, last)])
        scores[k] = seen if n > 0 else np.float32(1e6) + prior[k]
    return argmax(scores, width)


@inlined
def similarity(tree, settings, node, width, scores):
    """argmax S + c sqrt(ln N / (1 + n)) + w Q, S = child weight * cosine (held in `prior`), Q scaled to [0, 1].

    With w = 0 visits follow S alone, whatever the ends found are worth: on the bundled tree, with the verifier in the
    loop, accuracy fell from 0.62 at 16 simulations to 0.42 at 1,024; with w = 1 it rises to 1.00.
    """
    prior, visits, q = tree.prior[node], tree.visits[node], tree.q[node]
    low, high = np.float32(0.0), np.float32(1.0)
    if settings.normalise:
        low, high = _range(visits, q, width, tree.value[node], tree.value[node])
    scale = np.float32(settings.value_weight) / max(high - low, EPSILON)
    spread = np.float32(settings.c_explore) * np.sqrt(np.log(np.float32(tree.seen[node])))
    last = len(settings.shrink) - 1
    for k in range(width):
        n = visits[k]
        known = (q[k] - low) * scale if n > 0 else np.float32(0.0)
        scores[k] = prior[k] + _bound(known, np.float32(1.0), spread, settings.shrink[min(n + 1, last)])
    return argmax(scores, width)


@inlined
def soft(tree, settings, node, width, scores, draw):
    """Samples from (1 - l) pi + l uniform, pi = softmax(Q / tau) (MENTS) or P softmax(Q / tau) (RENTS).

    l = epsilon * width / ln(N + 1), so that exploration decays. An unvisited child is worth what the evaluator said of
    the node. https://proceedings.neurips.cc/paper/2019/hash/7ffb4e0ece07869880d51662a2234143-Abstract.html,
    https://arxiv.org/abs/2007.00391
    """
    visits, q, prior = tree.visits[node], tree.q[node], tree.prior[node]
    high = -FAR
    for k in range(width):
        scores[k] = q[k] if visits[k] > 0 else tree.raw[node]
        high = max(high, scores[k])
    mass = np.float32(0.0)
    for k in range(width):
        weight = prior[k] if settings.relative else np.float32(1.0)
        scores[k] = weight * exp32((scores[k] - high) / np.float32(settings.temperature))
        mass += scores[k]
    explore = min(1.0, settings.epsilon * width / np.log(tree.seen[node] + 1.0))
    rest = draw
    for k in range(width):
        rest -= (1.0 - explore) * scores[k] / mass + explore / width
        if rest <= 0.0:
            return k
    return width - 1


@inlined
def open_slot(rule, tree, settings, node, width):
    """Returns the slot to look into where the rule chose a solved one; -1 where no open one is allowed.

    argmax of Q + P sqrt(N) C(N) / (1 + n), or, for rules without a policy, Q + c sqrt(ln N / (1 + n)), over children
    that are not solved. Here n counts all walks below the child, those that the rule did not ask for among them; an
    unvisited child is worth what the node is.
    """
    q, value = tree.q[node], tree.value[node]
    low, high = value, value
    walks = np.int32(1)
    for k in range(width):
        child = tree.child[node, k]
        if child >= 0:
            low, high = min(low, q[k]), max(high, q[k])
            walks += tree.seen[child]
    scale = np.float32(1.0) / max(high - low, EPSILON)
    by_prior = rule != RULE_UCT and rule != RULE_SIMILARITY
    spread = settings.explore[min(walks, len(settings.explore) - 1)]
    if not by_prior:
        spread = np.float32(settings.c_explore) * np.sqrt(np.log(np.float32(walks) + np.float32(1.0)))
    best, found = -FAR, -1
    for k in range(width):
        child = tree.child[node, k]
        if child == PENDING or (child >= 0 and tree.status[child] & SOLVED):
            continue
        n = np.float32(1 + (tree.seen[child] if child >= 0 else np.int32(0)))
        known = ((q[k] if child >= 0 else value) - low) * scale
        score = known + (spread * tree.prior[node, k] / n if by_prior else spread / np.sqrt(n))
        if score > best:
            best, found = score, k
    return found


@inlined
def chance_slot(tree, node):
    """Returns the outcome that is furthest behind its probability: argmax P (1 + N) - n.

    Over outcomes that are not solved, P brought to sum 1 and N the sum of n: what is known exactly needs no visit.
    Nothing is drawn: visits keep in step with the probabilities, more closely than draws would.
    """
    mass, total = np.float32(0.0), np.float32(1.0)
    for k in range(tree.width[node]):
        if not _is_known(tree, node, k):
            mass += tree.prior[node, k]
            total += np.float32(tree.visits[node, k])
    best, found = -FAR, 0
    for k in range(tree.width[node]):
        if not _is_known(tree, node, k):
            behind = tree.prior[node, k] / mass * total - np.float32(tree.visits[node, k])
            if behind > best:
                best, found = behind, k
    return found


@inlined
def _is_known(tree, node, slot):
    """Returns whether the outcome in a slot is solved."""
    child = tree.child[node, slot]
    return child >= 0 and tree.status[child] & SOLVED != 0


@inlined
def considered_next(width, settings, done):
    """Returns the new visits of the root's children that sequential halving considers next, or HALVING_OVER."""
    phases = settings.halving[min(width, settings.halving.shape[0] - 1)]
    at = 0
    while at + 1 < len(phases) and phases[at + 1, 0] <= done:
        at += 1
    return phases[at, 1] + np.int32(done - phases[at, 0]) // phases[at, 2]


@inlined
def select_narrow(rule, tree, settings, root, node):
    """Returns the slot of `node` to visit next: `select` with the usual settings, where no node has over 8 slots."""
    offset, width = np.int64(node * tree.prior.shape[1]), np.float32(tree.width[node])
    if rule == RULE_PUCT:
        explore = settings.explore[min(tree.seen[node], len(settings.explore) - 1)]
        asked = narrow.Asked(offset, width, tree.value[node], explore, np.float32(HALVING_OVER), root.noisy)
        return narrow.puct(tree, asked)
    considered = np.float32(considered_next(tree.width[0], settings, root.done[0]) if node == 0 else HALVING_OVER)
    asked = narrow.Asked(offset, width, tree.raw[node], np.float32(0), considered, root.noisy)
    return narrow.gumbel(tree, settings, asked)


@inlined
def select(rule, plain, tree, settings, root, node, scores, stream):
    """Returns the slot of `node` to visit next; with `solve`, what to look into and what to count, see `INSTEAD`.

    Where the rule chooses a solved child, it is counted as visited, since its value is known, and the simulation goes
    into the most promising open child: visits stay what the rule makes them, and no evaluation is spent on what is
    proven.

    `rule` and `plain` are constants of the kernel at hand, so what they rule out is not compiled. `plain` means the
    usual settings: Q normalised, unvisited children worth least, mean backups, no solving, widening or depth limit.
    """
    width = tree.width[node]
    if not plain and settings.widen_factor > 0.0:
        allowed = np.int32(np.ceil(settings.widen_factor * np.float64(tree.seen[node]) ** settings.widen_power))
        width = max(np.int32(1), min(width, allowed))
    if rule == RULE_PUCT:
        slot = puct(plain, tree, settings, node, width, scores)
    elif rule == RULE_GUMBEL:
        considered = considered_next(tree.width[0], settings, root.done[0]) if node == 0 else HALVING_OVER
        if considered >= 0:
            slot = gumbel_root(plain, tree, settings, tree.width[0], scores, root.noisy, root.before, considered)
        else:
            slot = gumbel(plain, tree, settings, node, width, scores)
    elif rule == RULE_UCT:
        slot = uct(tree, settings, node, width, scores)
    elif rule == RULE_SIMILARITY:
        slot = similarity(tree, settings, node, width, scores)
    else:
        slot = soft(tree, settings, node, width, scores, uniform(settings.seed, root.stream[0], stream))
    if not plain and settings.solve:
        child = tree.child[node, slot]
        if child >= 0 and tree.status[child] & SOLVED:
            other = open_slot(rule, tree, settings, node, width)
            if other >= 0:
                return other | (slot + 1) << INSTEAD
    return slot
