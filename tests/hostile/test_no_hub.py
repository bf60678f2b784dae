"""Item 12: no checkpoint makes `load` ask a network for a model."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from treegym.agents import PPO
from treegym.errors import ConfigError, DataError, TreeGymError


@pytest.mark.parametrize("key", ["model", "reference"])
@pytest.mark.parametrize("name", ["nobody/no-such-model", "http://127.0.0.1:1/v1", "../nowhere"])
def test_a_checkpoint_that_names_a_model_of_a_hub(
    tmp_path: Path, apart: Any, monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    env = gym.make("TokenTree-v0", view="tokens")
    PPO("LMPolicy", env, n_envs=2, n_episodes=2, seed=0).save(tmp_path / "good.zip")
    bad = apart(tmp_path / "good.zip")
    bad.data["policy_kwargs"][key] = name
    asked: list[Any] = []

    def refuse(*where: Any, **_: Any) -> Any:
        asked.append(where)
        raise OSError("no network here")

    for call in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, call, refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda self, *where: refuse(*where))
    with pytest.raises((ConfigError, DataError, TreeGymError)):
        PPO.load(bad.written(), env=env)
    assert asked == []
