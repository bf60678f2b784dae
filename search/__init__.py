"""Planning: tree search over any world that implements `Simulator`.

result = search(simulator, states, method="gumbel", num_simulations=64, seed=0, discount=1.0)
result = search_closed(first_child=..., child_count=..., terminal=..., reward=..., prior_logits=..., value=...,
                       roots=..., num_simulations=64)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

if TYPE_CHECKING:
    from treegym.search.api import names, register, search
    from treegym.search.closed import search_closed
    from treegym.search.planner import Planner
    from treegym.search.session import Session
    from treegym.search.settings import Options
    from treegym.search.simulator import Evaluation, Outcomes, SearchResult, Simulator, Transition

__all__ = [
    "Evaluation",
    "Options",
    "Outcomes",
    "Planner",
    "SearchResult",
    "Session",
    "Simulator",
    "Transition",
    "names",
    "register",
    "search",
    "search_closed",
]

# The kernels are loaded only when they are asked for: importing the package stays cheap.
__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Evaluation": "simulator",
        "Options": "settings",
        "Outcomes": "simulator",
        "Planner": "planner",
        "SearchResult": "simulator",
        "Session": "session",
        "Simulator": "simulator",
        "Transition": "simulator",
        "names": "api",
        "register": "api",
        "search": "api",
        "search_closed": "closed",
    },
)
