"""The transition function of TestTimeCompute, for one lane or thousands: look-up in a pool of chains, compiled.

Actions: 0 opens a branch, 1 answers, then M each go on with branch i, probe it, prune it, fork it. A lane's place is a
row of integers: five columns, then six blocks of M. Chains of a lane's prompt are drawn without replacement.

Letters: B lanes, Q prompts, C chains, J segments, A answers, M branches, K = 2 + 4 M actions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.envs.token_tree.transition import random_root

__all__ = [
    "ACTIVE", "AGGREGATES", "ANSWER", "BRANCH", "COUNT", "EMPTY", "FINISHED", "FIXED", "KINDS", "NOTHING", "PRICE",
    "PRUNED", "ROOT", "SPENT", "STEPS", "Cells", "advance", "aggregate", "begin", "block", "legal_actions", "width",
]  # fmt: skip

ROOT, STEPS, SPENT, COUNT, PRICE = range(5)  # PRICE: which of the prices of a token the episode is played at
FIXED = 5
CHAIN, DEPTH, SHOWN, STATUS, PROBED, USED = range(6)  # blocks; USED: the chains that were drawn, rising
EMPTY, ACTIVE, FINISHED, PRUNED = range(4)  # of a branch
NOTHING = -2  # a branch that shows no answer yet; -1: its text states none
BRANCH, ANSWER = 0, 1
KINDS = ("branch", "answer", "continue", "probe", "prune", "fork")
CONTINUE, PROBE, PRUNE, FORK = range(4)  # of the actions per branch
AGGREGATES = ("plurality", "weighted", "best")
PLURALITY, WEIGHTED, BEST = range(3)
_OF_PRICES = np.uint64(0x632BE59BD9B4E019)  # prices are drawn with another key than prompts and chains


class Cells(NamedTuple):
    """A pool and the rules, as the kernels read them."""

    start: np.ndarray  # [Q + 1] int64
    length: np.ndarray  # [C] int64
    answer: np.ndarray  # [C] int64
    score: np.ndarray  # [C] float32
    likelihood: np.ndarray  # [C, J] float32
    right: np.ndarray  # [Q, A] bool
    probe: np.ndarray  # [C, J] int64
    low: np.ndarray  # [C, J + 1] int64
    high: np.ndarray  # [C, J + 1] int64
    starts: np.ndarray  # [.] int64, prompts that episodes start at
    segment: int
    probe_cost: int  # tokens
    budget: int  # tokens
    rates: np.ndarray  # [P] float64, what a token may cost: an episode draws one of them
    dear: np.ndarray  # [P] float32, the same on a scale of powers of ten, in 0..1
    penalty: float
    rule: int  # of AGGREGATES
    unit: float  # tokens that the vector reward counts in
    longest: float  # tokens of the longest chain


def width(branches: int) -> int:
    """Returns the columns of a place with so many branches."""
    return FIXED + 6 * branches


def block(place: np.ndarray, number: int, branches: int) -> np.ndarray:
    """Returns one block of places ``[..., width]`` as a view ``[..., M]``."""
    first = FIXED + number * branches
    return place[..., first : first + branches]


@numba.njit(cache=True)
def begin(which: Any, forced: Any, cells: Any, place: Any, done: Any, key: Any, episode: Any) -> None:
    """Starts an episode in every lane of `which`, at the forced prompt or, where that is -1, at a random one."""
    for b in range(len(which)):
        if which[b]:
            root = forced[b]
            if root < 0:
                root = cells.starts[random_root(key[b], episode[b], len(cells.starts))]
            _start(place[b], root, cells, key[b], episode[b])
            episode[b] += 1
            done[b] = False


@numba.njit(cache=True)
def _start(lane: Any, root: Any, cells: Any, key: Any, episode: Any) -> None:
    branches = (len(lane) - FIXED) // 6
    lane[:] = 0
    lane[ROOT] = root
    lane[PRICE] = random_root(key ^ _OF_PRICES, episode, len(cells.rates))
    for i in range(branches):
        lane[FIXED + SHOWN * branches + i] = NOTHING
        lane[FIXED + PROBED * branches + i] = -1


@numba.njit(cache=True)
def _draw(lane: Any, low: Any, high: Any, key: Any, episode: Any) -> Any:
    """Returns a chain of low..high - 1 that the lane has not drawn, each with the same chance, and notes it."""
    branches = (len(lane) - FIXED) // 6
    used = FIXED + USED * branches
    count = lane[COUNT]
    free = high - low
    for i in range(count):
        if low <= lane[used + i] < high:
            free -= 1
    # A number of its own per lane, episode and step.
    chain = low + random_root(key + np.uint64(lane[STEPS]) * np.uint64(0xD1B54A32D192ED03), episode, free)
    for i in range(count):  # skips what is drawn: they are in rising order
        if low <= lane[used + i] <= chain:
            chain += 1
    at = count
    while at > 0 and lane[used + at - 1] > chain:
        lane[used + at] = lane[used + at - 1]
        at -= 1
    lane[used + at] = chain
    return chain


@numba.njit(cache=True)
def _free(lane: Any, low: Any, high: Any) -> Any:
    """Returns whether some chain of low..high - 1 is not drawn yet."""
    used = FIXED + USED * ((len(lane) - FIXED) // 6)
    count = high - low
    for i in range(lane[COUNT]):
        if low <= lane[used + i] < high:
            count -= 1
    return count > 0


@numba.njit(cache=True)
def _fork_depth(lane: Any, i: Any, branches: Any) -> Any:
    """Returns the segments that a fork of branch i would share: what is said, of a finished one all but the last."""
    depth = lane[FIXED + DEPTH * branches + i]
    return depth - 1 if lane[FIXED + STATUS * branches + i] == FINISHED else depth


@numba.njit(cache=True)
def legal_actions(lane: Any, cells: Any, mask: Any) -> None:
    """Writes which actions are legal ``[K] int8``: answering always is, others while the budget covers a segment."""
    branches = (len(lane) - FIXED) // 6
    left = cells.budget - lane[SPENT]
    affordable = left >= cells.segment
    room = lane[COUNT] < branches and affordable
    root = lane[ROOT]
    mask[:] = 0
    mask[BRANCH] = room and _free(lane, cells.start[root], cells.start[root + 1])
    mask[ANSWER] = 1
    for i in range(lane[COUNT]):
        status = lane[FIXED + STATUS * branches + i]
        chain = lane[FIXED + CHAIN * branches + i]
        depth = lane[FIXED + DEPTH * branches + i]
        if status == ACTIVE:
            mask[2 + CONTINUE * branches + i] = affordable
            mask[2 + PROBE * branches + i] = left >= cells.probe_cost and lane[FIXED + PROBED * branches + i] != depth
            mask[2 + PRUNE * branches + i] = 1
        if room and status != PRUNED:
            shared = _fork_depth(lane, i, branches)
            if shared > 0:
                mask[2 + FORK * branches + i] = _free(lane, cells.low[chain, shared], cells.high[chain, shared])


@numba.njit(cache=True)
def _go_on(lane: Any, i: Any, cells: Any) -> Any:
    """Says the next segment of branch i and returns its tokens; a text that ends shows its answer."""
    branches = (len(lane) - FIXED) // 6
    chain = lane[FIXED + CHAIN * branches + i]
    said = lane[FIXED + DEPTH * branches + i] * cells.segment
    lane[FIXED + DEPTH * branches + i] += 1
    if said + cells.segment >= cells.length[chain]:
        lane[FIXED + STATUS * branches + i] = FINISHED
        lane[FIXED + SHOWN * branches + i] = cells.answer[chain]
        return cells.length[chain] - said
    return cells.segment


@numba.njit(cache=True)
def _open(lane: Any, low: Any, high: Any, shared: Any, cells: Any, key: Any, episode: Any) -> Any:
    """Opens a branch on a chain of a range, its first segments there already, and returns the tokens of the next."""
    branches = (len(lane) - FIXED) // 6
    i = lane[COUNT]
    lane[FIXED + CHAIN * branches + i] = _draw(lane, low, high, key, episode)
    lane[COUNT] += 1
    lane[FIXED + DEPTH * branches + i] = shared
    lane[FIXED + STATUS * branches + i] = ACTIVE
    return _go_on(lane, i, cells)


@numba.njit(cache=True)
def aggregate(lane: Any, cells: Any) -> Any:
    """Returns the answer that the branches give together, -1 for none; of equals the one that was opened first.

    Plurality counts every answer shown on branches that were not pruned; the others go by the scores of finished texts.
    """
    branches = (len(lane) - FIXED) // 6
    best, best_weight = np.int64(-1), -1.0
    for i in range(lane[COUNT]):
        mine = lane[FIXED + SHOWN * branches + i]
        status = lane[FIXED + STATUS * branches + i]
        if mine < 0 or status == PRUNED or (cells.rule != PLURALITY and status != FINISHED):
            continue
        weight = 0.0
        for j in range(lane[COUNT]):
            state = lane[FIXED + STATUS * branches + j]
            if lane[FIXED + SHOWN * branches + j] != mine or state == PRUNED:
                continue
            if cells.rule == PLURALITY:
                weight += 1.0
            elif state == FINISHED:
                score = cells.score[lane[FIXED + CHAIN * branches + j]]
                weight = weight + score if cells.rule == WEIGHTED else max(weight, score)
        if weight > best_weight:
            best, best_weight = mine, weight
    return best


@numba.njit(cache=True)
def advance(
    actions: Any, cells: Any, limit: Any, next_step_reset: Any, place: Any, done: Any, key: Any, episode: Any,
    outcome: Any,
) -> None:  # fmt: skip
    """Moves every lane one step; lanes that are done begin anew (``next_step_reset``) or stand still."""
    branches = (place.shape[1] - FIXED) // 6
    mask = np.empty(2 + 4 * branches, np.int8)
    for b in range(len(actions)):
        lane = place[b]
        if done[b]:
            if next_step_reset:
                root = cells.starts[random_root(key[b], episode[b], len(cells.starts))]
                _start(lane, root, cells, key[b], episode[b])
                episode[b] += 1
                done[b] = False
            continue
        action = actions[b]
        lane[STEPS] += 1
        tokens = np.int64(0)
        legal = 0 <= action < len(mask)
        if legal and action != ANSWER:
            legal_actions(lane, cells, mask)
            legal = mask[action] != 0
        if not legal:
            outcome.illegal[b] = True
            outcome.reward[b] = -cells.penalty
        elif action == ANSWER:
            said = aggregate(lane, cells)
            right = said >= 0 and cells.right[lane[ROOT], said]
            outcome.terminated[b] = True
            outcome.success[b] = right
            outcome.vector[b, 0] = right
            outcome.reward[b] = 1.0 if right else 0.0
        elif action == BRANCH:
            root = lane[ROOT]
            tokens = _open(lane, cells.start[root], cells.start[root + 1], 0, cells, key[b], episode[b])
        else:
            what, i = (action - 2) // branches, (action - 2) % branches
            chain = lane[FIXED + CHAIN * branches + i]
            if what == CONTINUE:
                tokens = _go_on(lane, i, cells)
            elif what == PROBE:
                depth = lane[FIXED + DEPTH * branches + i]
                lane[FIXED + PROBED * branches + i] = depth
                lane[FIXED + SHOWN * branches + i] = cells.probe[chain, depth - 1]
                tokens = cells.probe_cost
            elif what == PRUNE:
                lane[FIXED + STATUS * branches + i] = PRUNED
            else:
                shared = _fork_depth(lane, i, branches)
                tokens = _open(
                    lane, cells.low[chain, shared], cells.high[chain, shared], shared, cells, key[b], episode[b]
                )
        lane[SPENT] += tokens
        outcome.vector[b, 1] = -tokens / cells.unit
        outcome.reward[b] -= cells.rates[lane[PRICE]] * tokens
        outcome.truncated[b] = not outcome.terminated[b] and lane[STEPS] >= limit
        done[b] = outcome.terminated[b] or outcome.truncated[b]
