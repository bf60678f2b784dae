r"""`ChildPolicy`: scores each child from its features and a summary of all; the order of the children does not matter.

Only legal children are computed: trees have few of them, and most states but one.

Letters: B states, K children, S state features, F child features, H hidden units.

    e_i = relu(W c_i + U s)                      each child, given the state
    m   = [mean_i e_i, max_i e_i]                a summary, over the legal children
    score_i = w . relu(A e_i + B m) + l . c_i    equivariant: permuting children permutes scores
    V   = v . relu(C m' + G s)                   invariant; e', m' from an encoder of its own
    Q_i = q . relu(D e'_i + E m')                what choosing child i is worth: equivariant

Actor and critic share nothing, so that a value can be pretrained without touching the policy (VAPO).
The critic alone (V and Q) may also read a memory of the path (`treegym.agents.planning.memory`), appended to s.
The linear term l starts as the primary's own log-probability, so that learning starts at what the model would say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from treegym.agents.masking import MASK
from treegym.agents.policies.base import MEMORY, ChildScorer, Observations
from treegym.errors import ConfigError

__all__ = ["ChildPolicy"]


class _Set(NamedTuple):
    """The legal children of a batch of states, without padding. C: legal children in all, k: most of one state."""

    state: torch.Tensor  # [B, S] float32
    children: torch.Tensor  # [C, F] float32
    row: torch.Tensor  # [C] int64, the state of each
    slot: torch.Tensor  # [C] int64, its place among the K actions
    count: torch.Tensor  # [B] int64, legal children of each state
    width: int  # k


class _Encoder(nn.Module):
    """Children, each in the light of the state, and their summary."""

    def __init__(self, state: int, child: int, hidden: int) -> None:
        super().__init__()
        self.child = nn.Linear(child, hidden)
        self.state = nn.Linear(state, hidden, bias=False) if state else None

    def forward(self, batch: _Set) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns encoded children ``[C, H]`` and the summary of each state's ``[B, 2H]``."""
        encoded = self.child(batch.children)
        if self.state is not None:
            encoded = encoded + self.state(batch.state)[batch.row]
        encoded = torch.relu(encoded)
        # relu makes 0 the least value, so zeros in the gaps leave both sum and maximum to the legal children
        table = encoded.new_zeros(len(batch.count), batch.width, encoded.shape[1])
        table = table.index_put((batch.row, batch.slot), encoded)
        mean = table.sum(1) / batch.count.clamp(min=1)[:, None]
        return encoded, torch.cat([mean, table.amax(1)], dim=1)


class ChildPolicy(ChildScorer, BasePolicy):
    """A permutation-equivariant policy over a set of children.

    Args:
        observation_space: Dict with "observations" and "action_mask".
        action_space: Discrete(K).
        lr_schedule: as SB3 passes it; unused, the agent owns the optimizer.
        layout: ``{"num_children": K, "state": [names], "child": [names]}`` (`ObservationLayout` as a dict).
        hidden: H.
        prior_weight: the initial weight of the child feature "prior" in the score (0: start uniform).
        memory: size of the path's memory that the critic reads, under the key "memory"; 0: none.
    """

    layout_needed = True
    # Chosen on generated worlds (benchmarks/robust_defaults.py); the algorithms' own defaults are for larger networks.
    suits: ClassVar[Mapping[str, Any]] = {
        "learning_rate": "linear:0.003:0.0003", "n_epochs": 8, "ent_coef": 0.01, "exploring_starts": 0.5,
        "dynamic_sampling": False,
    }  # fmt: skip
    takes_memory = True
    needs = ("observations", MASK)

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any = None,
        *,
        layout: Mapping[str, Any],
        hidden: int = 64,
        prior_weight: float = 0.25,
        memory: int = 0,
        **kwargs: Any,
    ) -> None:
        BasePolicy.__init__(self, observation_space, action_space, **kwargs)
        self.num_children = int(layout["num_children"])
        state, child = _names(layout, "state"), _names(layout, "child")
        self.num_state, self.num_child = len(state), len(child)
        flat: Any = observation_space["observations"]  # type: ignore[index]
        size = flat.shape[0]
        if size != self.num_state + self.num_children * self.num_child:
            raise ConfigError(
                f"the layout describes {self.num_state} + {self.num_children} x {self.num_child} features, "
                f"the observation has {size}"
            )
        self.encoder = _Encoder(self.num_state, self.num_child, hidden)
        self.mix_child = nn.Linear(hidden, hidden)
        self.mix_summary = nn.Linear(2 * hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.linear = nn.Linear(self.num_child, 1, bias=False)
        self.memory = memory
        self.critic_encoder = _Encoder(self.num_state + memory, self.num_child, hidden)
        self.critic_summary = nn.Linear(2 * hidden + self.num_state + memory, hidden)
        self.critic_head = nn.Linear(hidden, 1)
        self.critic_child = nn.Linear(hidden, hidden)
        self.critic_mix = nn.Linear(2 * hidden, hidden, bias=False)
        self.critic_child_head = nn.Linear(hidden, 1)
        with torch.no_grad():
            self.score.weight.mul_(0.1)  # near the prior at first, not exactly: a zero layer would stop gradients below
            self.critic_head.weight.mul_(0.1)
            self.linear.weight.zero_()
            if "prior" in child:
                self.linear.weight[0, child.index("prior")] = prior_weight

    def logits(self, obs: Observations) -> torch.Tensor:
        whole = self._split(obs)
        # Where there is one legal child there is nothing to score: its probability is 1 whatever its logit.
        chosen = (whole.count > 1).nonzero().squeeze(1)
        part = self._split({key: obs[key][chosen] for key in self.needs if key in obs})
        encoded, summary = self.encoder(part)
        mixed = torch.relu(self.mix_child(encoded) + self.mix_summary(summary)[part.row])
        scores = (self.score(mixed) + self.linear(part.children)).squeeze(-1)
        blank = scores.new_zeros(len(whole.count), self.num_children)
        return blank.index_put((chosen[part.row], part.slot), scores)

    def values(self, obs: Observations) -> torch.Tensor:
        batch = self._remembering(obs)
        _, summary = self.critic_encoder(batch)
        hidden = torch.relu(self.critic_summary(torch.cat([summary, batch.state], dim=1)))
        return self.critic_head(hidden).squeeze(-1)

    def child_values(self, obs: Observations) -> torch.Tensor:
        batch = self._remembering(obs)
        encoded, summary = self.critic_encoder(batch)
        mixed = torch.relu(self.critic_child(encoded) + self.critic_mix(summary)[batch.row])
        worth = self.critic_child_head(mixed).squeeze(-1)
        return worth.new_zeros(len(batch.count), self.num_children).index_put((batch.row, batch.slot), worth)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        for name, parameter in self.named_parameters():
            if name.startswith("critic_"):
                yield parameter

    def _remembering(self, obs: Observations) -> _Set:
        batch = self._split(obs)
        if not self.memory:
            return batch
        if MEMORY not in obs:
            raise ConfigError(
                "this policy's critic reads the memory of a path, which only the lanes of a token tree know: use the "
                "environment without wrappers, or train with path_memory=False"
            )
        return batch._replace(state=torch.cat([batch.state, obs[MEMORY]], dim=1))

    def _split(self, obs: Observations) -> _Set:
        flat = obs["observations"].float()
        children = flat[:, self.num_state :].reshape(len(flat), self.num_children, self.num_child)
        legal = obs[MASK] != 0 if MASK in obs else torch.ones(children.shape[:2], dtype=torch.bool, device=flat.device)
        row, slot = legal.nonzero(as_tuple=True)
        width = int(slot.max()) + 1 if len(slot) else 1
        return _Set(flat[:, : self.num_state], children[row, slot], row, slot, legal.sum(1), width)


def _names(layout: Mapping[str, Any], key: str) -> Sequence[str]:
    names = layout.get(key)
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ConfigError(f"layout[{key!r}] must be a list of feature names, got {names!r}")
    return list(names)
