"""Moves within one root's tree: go down to a leaf, attach a node, carry a value back up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from treegym.search.kernels.codes import (
    BACKUP_MAX,
    BACKUP_MEAN,
    BACKUP_SOFT,
    INSTEAD,
    MODE_RAW,
    MODE_SORTED,
    NO_LEGAL_MOVE,
    NO_PRIOR,
    NOTHING_WRONG,
    RULE_GUMBEL,
    RULE_SOFT,
    UNUSABLE_LOGIT,
)
from treegym.search.kernels.numeric import FAR, LEAST, POSITIVE, exp32, inlined, unusable
from treegym.search.kernels.rules import chance_slot, select, select_narrow
from treegym.search.tree import CHANCE, EMPTY, PLAYER, SOLVED, TERMINAL

__all__ = [
    "Root",
    "Settings",
    "attach",
    "attach_chance",
    "backup",
    "counted",
    "descend",
    "exact_q",
    "fill_dense",
    "is_solved",
    "walked",
]


class Settings(NamedTuple):
    """Everything a kernel needs to know of the method; see `treegym.search.settings` for the meaning and defaults."""

    rule: int
    backup: int
    normalise: bool
    first_play: int
    first_value: float
    discount: float
    c_scale: float
    c_visit: float
    c_explore: float
    value_weight: float
    temperature: float
    epsilon: float
    relative: bool
    widen_factor: float
    widen_power: float
    solve: bool
    players: int
    max_depth: int
    outcomes: int
    seed: int
    explore: np.ndarray  # [S + 2] float32, sqrt(N) C(N) of PUCT by visits of the node
    shrink: np.ndarray  # [S + 2] float32, 1 / sqrt(n) by visits of a child, 1 where there are none
    halving: np.ndarray  # [M + 1, P, 3] int32, phases of sequential halving by actions considered


class Root(NamedTuple):
    """What is kept for a root besides its tree; inside the kernels without the leading B."""

    done: np.ndarray  # [B, 1] int32, simulations finished (or under way) since the root was set
    noisy: np.ndarray  # [B, W] float32, Gumbel noise + log prior of the root's slots
    before: np.ndarray  # [B, W] int32, visits the root's slots came with (from an earlier move's tree)
    stream: np.ndarray  # [B, 1] int64, the root's own stream of random numbers
    draws: np.ndarray  # [B, 1] int64, random numbers taken so far


@inlined
def descend(rule, plain, narrow, tree, settings, root, scores, path_node, path_slot):
    """Goes down from the root until a child that is not there, a terminal, a solved node or the depth limit.

    `rule`, `plain` and `narrow` are constants, see `select` and `select_narrow`. Writes the way into
    ``path_node``/``path_slot`` and returns its length; the last entry's child says what was met.
    """
    node, depth = np.int64(0), np.int64(0)
    while True:
        draw = 0
        if rule == RULE_SOFT:
            draw = root.draws[0]
            root.draws[0] += 1
        if narrow:
            slot = np.int64(select_narrow(rule, tree, settings, root, node)) & POSITIVE
        elif not plain and tree.status[node] & CHANCE:
            slot = np.int64(chance_slot(tree, node)) & POSITIVE
        else:
            slot = np.int64(select(rule, plain, tree, settings, root, node, scores, draw)) & POSITIVE
        path_node[depth] = node
        path_slot[depth] = slot
        if not plain:
            slot = walked(slot)
        depth += 1
        child = tree.child[node, slot]
        if child < 0:
            return depth
        if (tree.status[child] != 0) if plain else (tree.status[child] & (TERMINAL | SOLVED) != 0):
            return depth
        if not plain and depth >= settings.max_depth:
            return depth
        node = np.int64(child) & POSITIVE


@inlined
def attach(tree, node, slot, reward, value, terminal):
    """Adds a node below `slot` of `node` (below nothing when ``node < 0``) without its slots; returns its number."""
    new = np.int64(tree.size[0]) & POSITIVE
    tree.size[0] = new + 1
    tree.width[new] = 0
    tree.seen[new] = 1
    tree.value[new] = np.float32(0.0) if terminal else value
    tree.raw[new] = tree.value[new]
    tree.reward[new] = reward
    tree.status[new] = np.uint8(TERMINAL | SOLVED if terminal else 0)
    if node >= 0:
        tree.child[node, slot] = new
    return new


@inlined
def attach_chance(tree, node, slot, probability):
    """Adds what a move comes to: a node whose slots are the outcomes, in the order given; returns its number."""
    new = attach(tree, node, slot, np.float32(0.0), np.float32(0.0), False)
    tree.status[new] = np.uint8(CHANCE | (tree.status[node] & PLAYER))
    for k in range(len(probability)):
        tree.prior[new, k] = probability[k]
        tree.action[new, k] = k
        tree.visits[new, k] = 0
        tree.q[new, k] = np.float32(0.0)
        tree.child[new, k] = EMPTY
    tree.width[new] = len(probability)
    return new


@inlined
def fill_dense(tree, node, logits, legal, mode):
    """Packs the legal actions of one row of logits into the node's slots; returns what is wrong with the row, if any.

    `mode`: MODE_SORTED orders the slots by falling logit, MODE_RAW keeps the logits (for rules without a policy).
    """
    width = 0
    high = np.float32(-np.inf)
    actions = min(len(logits), len(legal))
    allowed = 0
    for a in range(actions):
        allowed += legal[a]
    if allowed == actions and not mode & MODE_SORTED:  # nothing to pack: loops without branches
        wrong = 0
        prior, action = tree.prior[node], tree.action[node]
        for a in range(actions):
            logit = logits[a]
            wrong += unusable(logit)
            high = max(high, logit)
            prior[a] = logit
            action[a] = a
        if wrong > 0:
            return UNUSABLE_LOGIT
        if high == np.float32(-np.inf):
            return NO_PRIOR
        finish_priors(tree, node, actions, high, mode & MODE_RAW)
        return NOTHING_WRONG
    for a in range(actions):
        if legal[a]:
            logit = logits[a]
            if unusable(logit):
                return UNUSABLE_LOGIT
            high = max(high, logit)
            tree.action[node, width] = a
            tree.prior[node, width] = logit
            width += 1
    if width == 0:
        return NO_LEGAL_MOVE
    if high == np.float32(-np.inf):
        return NO_PRIOR
    if mode & MODE_SORTED:
        sort_slots(tree.prior[node], tree.action[node], width)
    finish_priors(tree, node, width, high, mode & MODE_RAW)
    return NOTHING_WRONG


@inlined
def sort_slots(prior, action, width):
    """Orders the slots by falling logit (insertion sort: stable, and widths are small)."""
    for i in range(1, width):
        logit, name = prior[i], action[i]
        j = i - 1
        while j >= 0 and prior[j] < logit:
            prior[j + 1] = prior[j]
            action[j + 1] = action[j]
            j -= 1
        prior[j + 1] = logit
        action[j + 1] = name


@inlined
def finish_priors(tree, node, width, high, raw):
    """Turns the logits in a node's slots into probabilities, unless `raw`, and clears the slots' statistics."""
    prior = tree.prior[node]
    mass = 0.0  # float64, see `rules.completed`
    for k in range(width):
        weight = exp32(prior[k] - high)
        prior[k] = prior[k] if raw else weight
        mass += np.float64(weight)
    scale = np.float32(1.0 / mass)
    visits, q, child = tree.visits[node], tree.q[node], tree.child[node]
    for k in range(width):
        prior[k] = prior[k] if raw else max(prior[k] * scale, LEAST)
        visits[k] = 0
        q[k] = np.float32(0.0)
        child[k] = EMPTY
    tree.width[node] = width


@inlined
def backup(plain, tree, settings, path_node, path_slot, depth, value):
    """Carries `value` of the path's end to the root: visits, Q of each step, the value of each node on the way."""
    for d in range(depth - 1, -1, -1):
        node, slot = np.int64(path_node[d]) & POSITIVE, np.int64(path_slot[d]) & POSITIVE
        instead = np.int64(-1)
        if not plain:
            instead, slot = counted(slot), walked(slot)
        child = np.int64(tree.child[node, slot]) & POSITIVE
        reward, discount = tree.reward[child], onward(plain, tree, settings, node, child)
        value = reward + discount * value
        tree.q[node, slot] = reward + discount * tree.value[child]
        if instead < 0:
            tree.visits[node, slot] += 1
        else:
            count_instead(tree, settings, node, slot, instead, 1)
            value = tree.q[node, instead]
        count = tree.seen[node]
        tree.seen[node] = count + 1
        if not plain and tree.status[node] & CHANCE:
            value = tree.value[node] = _expected(tree, node)
        elif plain or settings.backup == BACKUP_MEAN:
            tree.value[node] = (tree.value[node] * np.float32(count) + value) / np.float32(count + 1)
        elif settings.backup == BACKUP_MAX:
            tree.value[node] = _best_value(tree, node)
        else:
            tree.value[node] = _soft_value(tree, settings, node)
        if not plain and settings.solve and _close(tree, settings, node) and settings.backup != BACKUP_SOFT:
            value = tree.value[node]  # from here up, what is proven counts, not what this simulation happened on


@inlined
def onward(plain, tree, settings, node, child):
    """Returns what a child's value is multiplied by to count for its parent: the discount, less than 0 for opponents.

    Rewards are those of the player who moved, values those of the player to move. Between a move and what comes of it
    no time passes: the outcome is discounted, not the move.
    """
    discount = np.float32(settings.discount)
    if not plain and tree.status[child] & CHANCE:
        return np.float32(1.0)
    if not plain and (tree.status[node] ^ tree.status[child]) & PLAYER:
        return -discount
    return discount


@inlined
def walked(entry):
    """Returns the slot that a path went through; see `INSTEAD`."""
    return entry & np.int64((1 << INSTEAD) - 1)


@inlined
def counted(entry):
    """Returns the solved slot that is counted in the place of the one a path went through, -1 where there is none."""
    return (entry >> np.int64(INSTEAD)) - np.int64(1)


@inlined
def count_instead(tree, settings, node, slot, instead, change):
    """Counts a visit of a solved slot that the rule chose (or takes one back), and the first of the slot walked.

    The first one, so that rules see what is known of it; at a root with sequential halving not even that, because
    halving plans every visit.
    """
    tree.visits[node, instead] += change
    if tree.visits[node, slot] == 0 and change > 0 and not (settings.rule == RULE_GUMBEL and node == 0):
        tree.visits[node, slot] = 1


@inlined
def _best_value(tree, node):
    """Returns the largest Q of the visited children: exact for one agent in a deterministic world."""
    best = -FAR
    for k in range(tree.width[node]):
        if tree.visits[node, k] > 0:
            best = max(best, tree.q[node, k])
    return best


@inlined
def _expected(tree, node):
    """Returns sum P Q / sum P over the visited outcomes of a move: its expectation, once there is one of each."""
    mass, weighted = np.float32(0.0), np.float32(0.0)
    for k in range(tree.width[node]):
        if tree.visits[node, k] > 0:
            mass += tree.prior[node, k]
            weighted += tree.prior[node, k] * tree.q[node, k]
    return weighted / mass


@inlined
def _soft_value(tree, settings, node):
    """Returns tau ln sum P exp(Q / tau) (RENTS; P uniform 1 for MENTS); an unvisited child is worth `raw`."""
    tau = np.float32(settings.temperature)
    high = tree.raw[node]
    for k in range(tree.width[node]):
        if tree.visits[node, k] > 0:
            high = max(high, tree.q[node, k])
    mass = np.float32(0.0)
    for k in range(tree.width[node]):
        known = tree.q[node, k] if tree.visits[node, k] > 0 else tree.raw[node]
        weight = tree.prior[node, k] if settings.relative else np.float32(1.0)
        mass += weight * exp32((known - high) / tau)
    return high + tau * np.log(mass)


@inlined
def exact_q(tree, settings, node, slot):
    """Returns the proven Q of a slot whose child is solved.

    Soft backups keep the soft value of a solved node, so that its siblings are compared like with like; what is proven
    of it stands where the evaluator's opinion was (``raw``), which nothing asks a solved node for.
    """
    child = tree.child[node, slot]
    known = tree.raw[child] if settings.backup == BACKUP_SOFT else tree.value[child]
    return tree.reward[child] + onward(False, tree, settings, node, child) * known


@inlined
def is_solved(tree, node, slot):
    """Returns whether the child of a slot is solved."""
    child = tree.child[node, slot]
    return child >= 0 and tree.status[child] & SOLVED != 0


@inlined
def _close(tree, settings, node):
    """Marks `node` solved, with the value of its best child, once every child is solved; returns whether it is.

    A move whose outcomes are all solved is worth their expectation.
    """
    chance = tree.status[node] & CHANCE
    best = np.float32(0.0) if chance else -FAR
    for k in range(tree.width[node]):
        if not is_solved(tree, node, k):
            return False
        known = exact_q(tree, settings, node, k)
        best = best + tree.prior[node, k] * known if chance else max(best, known)
    if settings.backup == BACKUP_SOFT:
        tree.raw[node] = best
    else:
        tree.value[node] = best
        for k in range(tree.width[node]):
            tree.q[node, k] = exact_q(tree, settings, node, k)  # one that was proven on another way here, too
    tree.status[node] |= np.uint8(SOLVED)
    return True
