"""What each lane sees of its branches, written by a compiled kernel into flat rows.

Nothing tells which answer is right, how long a chain will be, or what other chains say: answers are known by the order
of the branches that show them. Letters: B lanes, M branches, K actions, F features of an action, S of the state.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from treegym.envs.compute import transition
from treegym.envs.compute.transition import FIXED, KINDS, legal_actions

__all__ = ["CHILD", "STATE", "confidences", "observe"]

CHILD = (
    *KINDS, "depth", "active", "finished", "pruned", "shown", "share", "leads", "score", "label", "fresh", "prior",
    "tokens", "likelihood",
)  # fmt: skip
STATE = (
    "steps_left", "budget_left", "spent", "opened", "active", "finished", "top", "second", "distinct", "answers",
    "confidence", "token_cost", "top_score", "second_score", "log_cost", "said_votes", "said_score", "said_likelihood",
    "said_tokens", "rival_score", "mean_score",
)  # fmt: skip
_CHAIN, _DEPTH, _SHOWN, _STATUS, _PROBED = range(5)
_ACTIVE, _FINISHED, _PRUNED = transition.ACTIVE, transition.FINISHED, transition.PRUNED
_FEATURES, _KNOWN_FROM = len(CHILD), len(STATE)
_SHARE, _TOKENS, _LIKELIHOOD = CHILD.index("share"), CHILD.index("tokens"), CHILD.index("likelihood")
_LOG_COST, _SAID = STATE.index("log_cost"), STATE.index("said_votes")


def confidences(branches: int) -> np.ndarray:
    """Returns adaptive consistency's confidence ``[M + 1, M + 1] float32`` by the votes of the first and the second.

    1 - F(1/2) of Beta(v1 + 1, v2 + 1) (https://arxiv.org/abs/2305.11860), which is the chance that of v1 + v2 + 1 fair
    coins at most v1 show heads.
    """
    table = np.zeros((branches + 1, branches + 1))
    for first in range(branches + 1):
        for second in range(branches + 1):
            n = first + second + 1
            table[first, second] = sum(math.comb(n, k) for k in range(first + 1)) / 2**n
    return table.astype(np.float32)


@numba.njit(cache=True)
def observe(place: Any, cells: Any, limit: Any, known: Any, confidence: Any, scale: Any, out: Any, masks: Any) -> None:
    """Writes observations ``[B, S + D + K F] float32`` and masks ``[B, K] int8``.

    Args:
        place: where the lanes stand.
        cells: the pool and the rules.
        limit: steps of an episode.
        known: ``[Q, D] float32`` what is known of each prompt.
        confidence: what `confidences` returns.
        scale: tokens that count as everything spent.
        out: observations to be written.
        masks: masks to be written.
    """
    branches = (place.shape[1] - FIXED) // 6
    dims = known.shape[1]
    features = _FEATURES
    labels = np.empty(branches, np.int64)
    votes = np.empty(branches, np.int64)
    weights = np.empty(branches, np.float64)
    ended = np.empty(branches, np.int64)  # finished branches of each answer, and below of their scores the best
    bests = np.empty(branches, np.float64)
    told = np.empty(branches, np.float64)  # what each branch has said, as a share of the longest chain
    heard = np.empty(branches, np.float64)  # how likely the model found a token of it
    lengths = np.empty(branches, np.float64)  # sums of these over the branches of each answer
    likely = np.empty(branches, np.float64)
    share_of_longest = 1.0 / cells.longest
    segments = np.float32(1.0 / cells.probe.shape[1])
    share_of = np.float32(1.0 / branches)
    for b in range(len(place)):
        lane, row, mask = place[b], out[b], masks[b]
        legal_actions(lane, cells, mask)
        row[:] = 0.0
        count = lane[transition.COUNT]
        distinct, shown, active, finished = 0, 0, 0, 0
        scores = 0.0
        for i in range(count):
            status, mine = lane[FIXED + _STATUS * branches + i], lane[FIXED + _SHOWN * branches + i]
            active += status == _ACTIVE
            finished += status == _FINISHED
            labels[i] = -1
            chain, depth = lane[FIXED + _CHAIN * branches + i], lane[FIXED + _DEPTH * branches + i]
            told[i] = min(depth * cells.segment, cells.length[chain]) * share_of_longest
            heard[i] = cells.likelihood[chain, depth - 1]
            if mine < 0 or status == _PRUNED:
                continue
            shown += 1
            for j in range(i):
                if labels[j] >= 0 and lane[FIXED + _SHOWN * branches + j] == mine:
                    labels[i] = labels[j]
                    break
            if labels[i] < 0:
                labels[i] = distinct
                votes[distinct] = 0
                weights[distinct] = 0.0
                ended[distinct] = 0
                bests[distinct] = 0.0
                lengths[distinct] = 0.0
                likely[distinct] = 0.0
                distinct += 1
            votes[labels[i]] += 1
            lengths[labels[i]] += told[i]
            likely[labels[i]] += heard[i]
            if status == _FINISHED:
                score = cells.score[chain]
                weights[labels[i]] += score
                ended[labels[i]] += 1
                bests[labels[i]] = max(bests[labels[i]], score)
                scores += score
        lead, top, second = -1, 0, 0
        best, next_best = 0.0, 0.0
        for k in range(distinct):
            if votes[k] > top:
                lead, second, top = k, top, votes[k]
            elif votes[k] > second:
                second = votes[k]
            if weights[k] > best:
                next_best, best = best, weights[k]
            elif weights[k] > next_best:
                next_best = weights[k]
        row[0] = max(1.0 - lane[transition.STEPS] / limit, 0.0)
        row[1] = max(1.0 - lane[transition.SPENT] / cells.budget, 0.0)
        row[2] = min(lane[transition.SPENT] / scale, 1.0)
        row[3] = count * share_of
        row[4] = active * share_of
        row[5] = finished * share_of
        row[6] = top * share_of
        row[7] = second * share_of
        row[8] = distinct * share_of
        row[9] = shown * share_of
        row[10] = confidence[top, second]
        price = cells.rates[lane[transition.PRICE]] * cells.unit
        row[11] = min(price, 1.0)
        row[12] = min(best * share_of, 1.0)
        row[13] = min(next_best * share_of, 1.0)
        row[_LOG_COST] = cells.dear[lane[transition.PRICE]]
        said = _would_say(cells.rule, distinct, votes, weights, ended, bests)
        if said >= 0:
            row[_SAID] = votes[said] * share_of
            row[_SAID + 1] = bests[said]
            row[_SAID + 2] = likely[said] / votes[said]
            row[_SAID + 3] = lengths[said] / votes[said]
            for k in range(distinct):
                if k != said:
                    row[_SAID + 4] = max(row[_SAID + 4], bests[k])
        row[_SAID + 5] = scores / max(finished, 1)
        at = _KNOWN_FROM
        for d in range(dims):
            row[at + d] = known[lane[transition.ROOT], d]
        at += dims
        row[at] = 1.0  # opens a branch
        row[at + features + 1] = 1.0  # answers
        row[at + features + _SHARE] = top / max(shown, 1)
        # What self-consistency would do, for those who start from a habit: finish what is open, open what there is.
        habit = 0 if mask[0] else 1
        for i in range(count - 1, -1, -1):
            if lane[FIXED + _STATUS * branches + i] == _ACTIVE:
                habit = 2 + i if mask[2 + i] else 1
        row[at + habit * features + 16] = 1.0
        for kind in range(4):
            for i in range(count):
                cell = at + (2 + kind * branches + i) * features
                if mask[2 + kind * branches + i] == 0 and kind != 0:
                    continue
                status = lane[FIXED + _STATUS * branches + i]
                row[cell + 2 + kind] = 1.0
                row[cell + 6] = lane[FIXED + _DEPTH * branches + i] * segments
                row[cell + 7] = status == _ACTIVE
                row[cell + 8] = status == _FINISHED
                row[cell + 9] = status == _PRUNED
                row[cell + 15] = lane[FIXED + _PROBED * branches + i] == lane[FIXED + _DEPTH * branches + i]
                row[cell + _TOKENS] = told[i]
                row[cell + _LIKELIHOOD] = heard[i]
                if labels[i] >= 0:
                    row[cell + 10] = 1.0
                    row[cell + 11] = votes[labels[i]] / shown
                    row[cell + 12] = labels[i] == lead
                    row[cell + 14] = (labels[i] + 1) * share_of
                if status == _FINISHED:
                    row[cell + 13] = cells.score[lane[FIXED + _CHAIN * branches + i]]


@numba.njit(cache=True)
def _would_say(rule: Any, distinct: Any, votes: Any, weights: Any, ended: Any, bests: Any) -> Any:
    """Returns the label of the answer that the branches would give, -1 for none (`transition.aggregate`)."""
    said, most = -1, -1.0
    for k in range(distinct):
        if rule != transition.PLURALITY and ended[k] == 0:
            continue
        if rule == transition.PLURALITY:
            weight = float(votes[k])
        elif rule == transition.WEIGHTED:
            weight = weights[k]
        else:
            weight = bests[k]
        if weight > most:
            said, most = k, weight
    return said
