"""The network of `search_network` for one state, inside the search kernel. A row of states has room for h behind s."""

from __future__ import annotations

import numpy as np

from treegym.search.compiled import compiled_model, dense, dot

__all__ = ["network"]

_STATE, _HIDDEN = 16, 32
_V = _STATE * _HIDDEN  # where the weights of each layer start in `params`
_R = _V + _HIDDEN * _STATE
_VALUE = _R + _HIDDEN
_U = _VALUE + _STATE


@compiled_model
def network(params, states, parent, action, new, logits, legal, told):  # type: ignore[no-untyped-def]
    """Steps row `parent` of `states` by `action` into row `new` and judges it. `params` end in zeros: no bias."""
    actions = len(logits)
    policy = _U + actions * _HIDDEN
    none = params[policy + _STATE * actions :]
    after, hidden = states[new, :_STATE], states[new, _STATE:]
    bias = params[_U + action * _HIDDEN : _U + (action + 1) * _HIDDEN]
    dense(states[parent, :_STATE], params[:_V].reshape(_STATE, _HIDDEN), bias, hidden, True)
    told[0] = dot(hidden, params[_R:_VALUE])
    dense(hidden, params[_V:_R].reshape(_HIDDEN, _STATE), none, after, False)
    for i in range(_STATE):
        after[i] /= np.float32(1.0) + abs(after[i])
    dense(after, params[policy : policy + _STATE * actions].reshape(_STATE, actions), none, logits, False)
    estimate = dot(after, params[_VALUE:_U])
    told[1] = estimate / (np.float32(1.0) + abs(estimate))
