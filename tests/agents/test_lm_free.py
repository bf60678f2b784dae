"""Free text over a large vocabulary: policies read contexts alone, and say what they say of all tokens laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from treegym.agents import DAPO, PPO
from treegym.agents.play.rollout import Collector, Trajectories, uncounted
from treegym.agents.policies import lm_checks
from treegym.envs.free_text import FreeTextVectorEnv
from treegym.errors import ConfigError
from treegym.models import load_model
from treegym.models.tokens.ends import ending_at
from treegym.tree.token_tree import Root

torch.set_num_threads(1)
PROMPTS = [Root("12+34=", "46", "train"), Root("7*8=", "56", "train"), Root("12+34+5=", "51", "train")]


def _right(root: Root, text: str) -> float:
    return float(text.endswith(root.answer))


def _digits(root: Root, text: str) -> float:
    return sum(character.isdigit() for character in text) / 8


def _env(lanes: int = 6, verify: Any = _right, **options: Any) -> FreeTextVectorEnv:
    tokenizer = load_model("tiny-primary").tokenizer
    return FreeTextVectorEnv(lanes, prompts=PROMPTS, tokenizer=tokenizer, verify=verify, max_tokens=8, **options)


def _episodes(agent: Any, count: int) -> Trajectories:
    agent.learn(0)
    world, rng = agent.world, np.random.default_rng(0)
    return Collector(world, agent.scorer, rng, with_value=False, on_step=uncounted).episodes(count)


def _agent(env: Any, kind: Any = DAPO, **switches: Any) -> Any:
    usual = {"n_episodes": 12, "n_epochs": 1, "batch_size": 64, "gamma": 1.0}
    if kind is DAPO:
        usual |= {"group_size": 2, "dynamic_sampling": False}
    return kind("LMPolicy", env, seed=0, device="cpu", policy_kwargs={"model": "tiny-primary"}, **usual | switches)


def test_what_is_read_of_contexts_alone_is_what_is_read_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    env = _env()
    laid_out = _agent(env)
    assert laid_out.policy.free is None
    monkeypatch.setattr(lm_checks, "FEW", 0)
    alone = _agent(_env())
    assert alone.policy.needs == ("context",)
    rollouts = [_episodes(agent, 12) for agent in (laid_out, alone)]
    assert set(rollouts[1].rows) == {"context"}
    rollout, few = rollouts[0], {"context": rollouts[0].rows["context"]}
    actions = torch.from_numpy(rollout.actions)
    judged = [
        agent.policy.evaluate(agent.policy.tensors(rows), actions, episode_lengths=rollout.lengths)
        for agent, rows in ((laid_out, rollout.rows), (alone, few))
    ]
    torch.testing.assert_close(judged[0].log_prob, judged[1].log_prob, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(judged[0].entropy, judged[1].entropy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(rollout.log_probs), judged[1].log_prob.detach(), rtol=1e-4, atol=1e-4)


def test_what_was_drawn_had_the_probability_it_is_learned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model with two ends and a barred token: as it sampled them, as it learns, and as the model itself says."""
    monkeypatch.setattr(lm_checks, "FEW", 0)
    model = load_model("tiny-primary")
    also, barred = model.tokenizer.encode("4")[0], model.tokenizer.encode("9")[0]
    agent = _agent(_env(ends=(model.tokenizer.eos_id, also), barred=(barred,)))
    rollout = _episodes(agent, 60)
    assert not np.isin(rollout.actions, [also, barred]).any()
    obs = agent.policy.tensors(rollout.rows)
    judged = agent.policy.evaluate(obs, torch.from_numpy(rollout.actions), episode_lengths=rollout.lengths)
    np.testing.assert_allclose(judged.log_prob.detach().numpy(), rollout.log_probs, rtol=1e-4, atol=1e-4)

    contexts = [row[row >= 0].tolist() for row in rollout.rows["context"]]
    p = np.exp(model.next_logprobs(contexts).astype(np.float64))
    p[:, model.tokenizer.eos_id] += p[:, also]
    p[:, [also, barred, model.tokenizer.pad_id]] = 0.0
    expected = np.log((p / p.sum(1, keepdims=True))[np.arange(len(p)), rollout.actions])
    np.testing.assert_allclose(rollout.log_probs, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [DAPO, PPO])
def test_agents_learn_from_contexts_alone(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_checks, "FEW", 0)
    agent = _agent(_env(verify=_digits), kind)
    before = [weight.detach().clone() for weight in agent.policy.lm.parameters()]
    agent.learn(400)
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.lm.parameters(), strict=True))


def test_the_likeliest_token_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ends together are one token: two that are second and third may be first."""
    monkeypatch.setattr(lm_checks, "FEW", 0)
    model = load_model("tiny-primary")
    first = model.tokenizer.encode("12")[0]
    agent = _agent(_env(ends=(model.tokenizer.eos_id, first)))
    rows, _ = _env().reset(seed=0)
    p = np.exp(model.next_logprobs([row[row >= 0].tolist() for row in rows["context"]]).astype(np.float64))
    p[:, model.tokenizer.eos_id] += p[:, first]
    p[:, [first, model.tokenizer.pad_id]] = 0.0
    assert agent.predict(rows, deterministic=True)[0].tolist() == p.argmax(1).tolist()


def _written(env: FreeTextVectorEnv, text: str) -> tuple[float, bool, bool, str]:
    """Returns reward, termination, truncation and text of the first lane, all lanes writing a text after prompt 0."""
    env.reset(seed=0, options={"roots": [0] * env.num_envs})
    for token in env.tokenizer.encode(text):
        _, reward, terminated, truncated, _ = env.step([token] * env.num_envs)
    return float(reward[0]), bool(terminated[0]), bool(truncated[0]), env.text(0)


def test_a_text_is_over_at_a_stop_string_and_judged_up_to_it() -> None:
    env = _env(stops=("=5",))
    assert _written(env, "46=5") == (1.0, True, False, "46")
    assert _written(env, "46=")[1] is False


def test_a_text_that_was_cut_is_judged_where_that_counts() -> None:
    text = "12345646"  # eight characters, as long as texts may be
    assert _written(_env(), text) == (0.0, False, True, text)
    assert _written(_env(cut_counts=True), text) == (1.0, False, True, text)


def test_prompts_longer_than_the_model_reads_are_refused_at_once() -> None:
    # the longest prompt has 8 characters, and 8 tokens may follow, of which the last is not read: 15
    _env(context_length=15)
    with pytest.raises(ConfigError, match="15 tokens, but the policy's model takes 14 at most"):
        _env(context_length=14)


def test_other_ends_of_a_model_cannot_be_chosen() -> None:
    model = load_model("tiny-primary")
    ending = ending_at(model, ("=",))
    env = _env(ends=ending.ends)
    mask = env.reset(seed=0)[0]["action_mask"][0]
    assert [token for token in ending.ends if mask[token]] == [model.tokenizer.eos_id]
