"""Every learner has a space of settings, of switches that it has, and a study over it runs."""

from __future__ import annotations

import gymnasium as gym
import pytest

from treegym.agents.registry import AGENTS, agent_class, make_agent
from treegym.errors import ConfigError
from treegym.integrations.optuna import SPACES, suggest_settings

optuna = pytest.importorskip("optuna")
WORLD = "synthetic:roots=8,depth=3,branching=3,width=3,seed=0"


def test_every_learner_has_a_space() -> None:
    learners = {name for name in AGENTS.table if getattr(agent_class(name), "learns", True)
                and hasattr(agent_class(name), "learn")}  # fmt: skip
    assert learners == set(SPACES)
    with pytest.raises(ConfigError, match="Did you mean 'dapo'"):
        suggest_settings(None, "dapoo")


@pytest.mark.parametrize("agent", SPACES)
def test_what_is_suggested_is_a_setting(agent: str) -> None:
    env = gym.make("TokenTree-v0", tree=WORLD, split="all")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        made = make_agent(agent, env, seed=0, **suggest_settings(study.ask(), agent))
        assert set(SPACES[agent]) <= set(vars(made.settings))


@pytest.mark.slow
def test_a_study_finds_settings_that_learn() -> None:
    from treegym.agents.play.evaluation import play_roots, vector_world

    def objective(trial: optuna.Trial) -> float:
        world = vector_world("TokenTree-v0", 32, split="train")
        settings = {**suggest_settings(trial, "dapo"), "n_episodes": 64, "batch_size": 256, "n_epochs": 2}
        agent = make_agent("dapo", world, seed=0, **settings)
        agent.learn(3_000)
        return float(play_roots(agent, world, world.roots()[:60]).returns.mean())

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=2)
    world = vector_world("TokenTree-v0", 32, split="train")
    chance = float(play_roots(make_agent("random", world, seed=0), world, world.roots()[:60]).returns.mean())
    assert study.best_value > chance
