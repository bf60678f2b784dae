"""The network of `search_network` for one state, inside the search kernel. A row of states has room for h behind s.

Slices, because an index that numba cannot prove positive keeps loops from being vectorised; four rows at a time, so
that a layer's output travels through memory four times less.
"""

from __future__ import annotations

import numpy as np

from treegym.search.compiled import compiled_model
from treegym.search.kernels.numeric import inlined

__all__ = ["network"]

_STATE, _HIDDEN = 16, 64


@inlined
def _add_product(out, x, weights, rows, columns):  # type: ignore[no-untyped-def]
    """Adds ``x @ weights`` to `out`; weights [rows, columns] row by row, rows a multiple of 4."""
    for i in range(0, rows, 4):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        block = weights[i * columns : (i + 4) * columns]
        w0, w1 = block[:columns], block[columns : 2 * columns]
        w2, w3 = block[2 * columns : 3 * columns], block[3 * columns :]
        for j in range(columns):
            out[j] += (x0 * w0[j] + x1 * w1[j]) + (x2 * w2[j] + x3 * w3[j])


@compiled_model
def network(params, states, parent, action, new, logits, legal, told):  # type: ignore[no-untyped-def]
    """Steps row `parent` of `states` by `action` into row `new` and judges it."""
    actions = len(logits)
    u = _STATE * _HIDDEN  # where the weights of each layer start in `params`
    v = u + actions * _HIDDEN
    r = v + _HIDDEN * _STATE
    p = r + _HIDDEN
    value = p + _STATE * actions
    after, hidden = states[new, :_STATE], states[new, _STATE:]
    bias, to_reward, to_value = params[u + action * _HIDDEN :], params[r:], params[value:]
    for j in range(_HIDDEN):
        hidden[j] = bias[j]
    _add_product(hidden, states[parent, :_STATE], params, _STATE, _HIDDEN)
    reward = np.float32(0.0)
    for j in range(_HIDDEN):
        h = max(hidden[j], np.float32(0.0))
        hidden[j] = h
        reward += h * to_reward[j]
    for i in range(_STATE):
        after[i] = np.float32(0.0)
    _add_product(after, hidden, params[v:], _HIDDEN, _STATE)
    estimate = np.float32(0.0)
    for i in range(_STATE):
        s = after[i] / (np.float32(1.0) + abs(after[i]))
        after[i] = s
        estimate += s * to_value[i]
    for a in range(actions):
        logits[a] = np.float32(0.0)
    _add_product(logits, after, params[p:], _STATE, actions)
    told[0] = reward
    told[1] = estimate / (np.float32(1.0) + abs(estimate))
