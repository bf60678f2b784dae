"""AdamW for weights of low precision, with float32 copies that keep what is learned.

An update of 1e-5 of a weight is lost in bfloat16, whose steps are 1/256 of it. So every such weight has a float32 copy
that takes the steps, and the weight itself is that copy, rounded (mixed-precision training, Micikevicius et al. 2018,
https://arxiv.org/abs/1710.03740). Weights of float32 are stepped as `torch.optim.AdamW` steps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["MasterAdamW"]

LOW = (torch.bfloat16, torch.float16)


class MasterAdamW(torch.optim.AdamW):
    """AdamW with decoupled weight decay (https://arxiv.org/abs/1711.05101) on float32 copies of low-precision weights.

    A copy is made of a weight at its first step, and lives in the optimizer's state (``master``).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, group)
        return loss

    def _step(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(weight, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(weight, dtype=torch.float32)
        if weight.dtype in LOW and "master" not in state:
            state["master"] = weight.detach().float()
        master = state.get("master", weight)
        torch._fused_adamw_(  # one pass over the weight; foreach takes ten
            [master], [weight.grad.float()], [state["exp_avg"]], [state["exp_avg_sq"]], [], [state["step"].add_(1)],
            lr=float(group["lr"]), beta1=group["betas"][0], beta2=group["betas"][1],
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip
        if master is not weight:
            weight.copy_(master)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back a state; torch itself would round it to the precision of the weights."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, entry in state_dict["state"].items():
            weight = weights[index]
            if weight.dtype in LOW:
                self.state[weight] = {key: value.to(weight.device).float() for key, value in entry.items()}
