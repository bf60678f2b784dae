"""The network of `search_network` for one state, inside the search kernel. A row of states has room for h behind s."""

from __future__ import annotations

import numpy as np

from treegym.search.compiled import compiled_model
from treegym.search.kernels.numeric import inlined

__all__ = ["network"]

_STATE, _HIDDEN = 16, 32
_V = _STATE * _HIDDEN  # where the weights of each layer start in `params`
_R = _V + _HIDDEN * _STATE
_VALUE = _R + _HIDDEN
_U = _VALUE + _STATE


@inlined
def _add_product(out, x, params, start, rows, columns):  # type: ignore[no-untyped-def]
    """Adds ``x @ weights`` to `out`; eight rows at a time, so that `out` travels through memory eight times less."""
    for i in range(0, rows, 8):
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        x4, x5, x6, x7 = x[i + 4], x[i + 5], x[i + 6], x[i + 7]
        weights = params[start + i * columns : start + (i + 8) * columns]
        for j in range(columns):
            near = (x0 * weights[j] + x1 * weights[columns + j]) + (
                x2 * weights[2 * columns + j] + x3 * weights[3 * columns + j]
            )
            far = (x4 * weights[4 * columns + j] + x5 * weights[5 * columns + j]) + (
                x6 * weights[6 * columns + j] + x7 * weights[7 * columns + j]
            )
            out[j] += near + far


@compiled_model
def network(params, states, parent, action, new, logits, legal, told):  # type: ignore[no-untyped-def]
    """Steps row `parent` of `states` by `action` into row `new` and judges it."""
    actions = len(logits) & 0xFFFF  # a bound the compiler can see: indices are not negative, loops can be vectorised
    bias = params[_U + (action & 0xFFFF) * _HIDDEN :]
    after, hidden = states[new, :_STATE], states[new, _STATE:]
    for j in range(_HIDDEN):
        hidden[j] = bias[j]
    _add_product(hidden, states[parent], params, 0, _STATE, _HIDDEN)
    reward = np.float32(0.0)
    for j in range(_HIDDEN):
        h = max(hidden[j], np.float32(0.0))
        hidden[j] = h
        reward += h * params[_R + j]
    for i in range(_STATE):
        after[i] = np.float32(0.0)
    _add_product(after, hidden, params, _V, _HIDDEN, _STATE)
    estimate = np.float32(0.0)
    for i in range(_STATE):
        s = after[i] / (np.float32(1.0) + abs(after[i]))
        after[i] = s
        estimate += s * params[_VALUE + i]
    for a in range(actions):
        logits[a] = np.float32(0.0)
    _add_product(logits, after, params, _U + actions * _HIDDEN, _STATE, actions)
    told[0] = reward
    told[1] = estimate / (np.float32(1.0) + abs(estimate))
