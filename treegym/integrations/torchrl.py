"""TorchRL: an environment of ours whose actions are masked, for its collectors, losses and trainers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

import treegym  # noqa: F401 (registers the ids)
from treegym.errors import require

__all__ = ["make_env"]


def make_env(env_id: str = "TokenTree-v0", *, seed: int | None = None, categorical: bool = False, **kwargs: Any) -> Any:
    """Returns a TorchRL environment with ``observations`` and a boolean ``action_mask``.

    Args:
        env_id: which environment of ours.
        seed: of the environment; TorchRL seeds by a reset, so its first episode is the one after ``reset(seed=seed)``.
        categorical: actions as numbers; else one-hot, which is TorchRL's own default.
        **kwargs: of the environment.
    """
    require("torchrl", extra="torchrl", purpose="an environment for TorchRL")
    import torch
    from torchrl.envs import ActionMask, Compose, DTypeCastTransform, GymWrapper, TransformedEnv

    # not GymEnv, which passes arguments of its own (frameskip) on to the environment
    base = GymWrapper(gym.make(env_id, **kwargs), categorical_action_encoding=categorical)
    mask = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
    env = TransformedEnv(base, Compose(mask, ActionMask()))
    if seed is not None:
        env.set_seed(seed)
    return env
