from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import treegym  # noqa: F401
from treegym.agents import DAPO, PPO
from treegym.agents.policies.lm import LMPolicy
from treegym.agents.policies.lm_episodes import by_length
from treegym.envs.free_text import FreeTextVectorEnv
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, MissingDependency
from treegym.models import load_model

torch.set_num_threads(1)


@pytest.fixture
def env() -> gym.vector.VectorEnv:
    return gym.make_vec("TokenTree-v0", num_envs=12, view="tokens", autoreset_mode="Disabled", max_tokens=24)


@pytest.fixture
def policy(env: gym.vector.VectorEnv) -> LMPolicy:
    return LMPolicy(env.single_observation_space, env.single_action_space, model="tiny-primary")


def _walked(policy: LMPolicy, env: gym.vector.VectorEnv, seed: int = 0) -> list[tuple[dict, np.ndarray, np.ndarray]]:
    """Returns rows, actions and log-probabilities of every step until each lane has ended."""
    rng = np.random.default_rng(seed)
    rows, _ = env.reset(seed=seed)
    active, steps = np.arange(env.num_envs), []
    world_rows = rows
    while len(active):
        here = {key: world_rows[key][active] for key in policy.needs}
        actions, log_probs, _ = policy.act(here, rng.random(len(active)), with_value=False)
        steps.append((here, actions, log_probs))
        full = np.zeros(env.num_envs, np.int64)
        full[active] = actions
        lanes = env.unwrapped.lanes
        done_before = lanes.done.copy()
        _, world_rows = lanes.step(np.where(done_before, -1, full), next_step_reset=False)
        active = np.flatnonzero(~lanes.done)
    return steps


def test_the_distribution_is_the_model_s_restricted_to_the_children(
    env: gym.vector.VectorEnv, policy: LMPolicy
) -> None:
    rows, _ = env.reset(seed=1)
    logits, _ = policy.infer({key: rows[key] for key in policy.needs}, with_value=False)
    model = load_model("tiny-primary")
    contexts = [row[row >= 0].tolist() for row in rows["context"]]
    expected = model.next_logprobs(contexts)
    for row, legal, children in zip(range(12), rows["action_mask"] == 1, rows["children"], strict=True):
        ours = torch.log_softmax(torch.from_numpy(logits[row][legal]), 0).numpy()
        theirs = torch.log_softmax(torch.from_numpy(expected[row][children[legal]]), 0).numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_walking_with_kept_keys_equals_reading_from_the_start(env: gym.vector.VectorEnv, policy: LMPolicy) -> None:
    for rows, actions, log_probs in _walked(policy, env):
        with torch.no_grad():
            judged = policy.evaluate(policy.tensors(rows), torch.from_numpy(actions), with_value=False)
        np.testing.assert_allclose(judged.log_prob.numpy(), log_probs, atol=2e-5)


def test_one_forward_pass_an_episode_judges_as_step_by_step(env: gym.vector.VectorEnv, policy: LMPolicy) -> None:
    """And so the first ratio of new to old probability is 1."""
    env.reset(seed=3)
    batch = DAPO(LMPolicy, env, seed=0, n_episodes=8, group_size=4, device="cpu")
    batch.learn(1)
    steps = _walked(policy, gym.make_vec("TokenTree-v0", num_envs=1, view="tokens", autoreset_mode="Disabled"))
    rows = {key: np.concatenate([step[0][key] for step in steps]) for key in policy.needs}
    actions = torch.from_numpy(np.concatenate([step[1] for step in steps]))
    old = np.concatenate([step[2] for step in steps])
    calls = []
    handle = policy.lm.base_model.register_forward_hook(lambda *_: calls.append(1))
    judged = policy.evaluate(policy.tensors(rows), actions, episode_lengths=np.array([len(actions)]))
    handle.remove()
    assert len(calls) == 1
    np.testing.assert_allclose(judged.log_prob.detach().numpy(), old, atol=2e-5)


@pytest.mark.parametrize("algorithm", [PPO, DAPO])
def test_learning_changes_the_model_and_raises_the_reward_of_one_prompt(algorithm: type) -> None:
    env = gym.make_vec("TokenTree-v0", num_envs=16, view="tokens", autoreset_mode="Disabled", split="train")
    env.unwrapped.world.pool = env.unwrapped.world.pool[:1]
    switches = {"group_size": 16} if algorithm is DAPO else {}
    agent = algorithm("LMPolicy", env, seed=0, n_episodes=64, learning_rate=1e-3, n_epochs=2, device="cpu", **switches)
    before = [parameter.detach().clone() for parameter in agent.policy.lm.parameters()]
    earned = []
    for _ in range(12):
        rollout_start = agent.num_timesteps
        agent.learn(1, reset_num_timesteps=rollout_start == 0)
        earned.append(np.mean([episode["r"] for episode in list(agent.ep_info_buffer)[-64:]]))
    assert any((a != b).any() for a, b in zip(before, agent.policy.lm.parameters(), strict=True))
    assert np.mean(earned[-3:]) > max(0.6, earned[0])


def test_a_value_trunk_of_its_own_shares_nothing(env: gym.vector.VectorEnv) -> None:
    policy = LMPolicy(env.single_observation_space, env.single_action_space, value_trunk="own")
    critic = {id(parameter) for parameter in policy.critic_parameters()}
    actor = {id(parameter) for parameter in policy.lm.parameters()}
    assert critic.isdisjoint(actor)
    assert len(critic) > 2


def test_adapters_train_few_weights(env: gym.vector.VectorEnv) -> None:
    pytest.importorskip("peft")
    policy = LMPolicy(env.single_observation_space, env.single_action_space, lora_rank=2)
    trained = sum(p.numel() for p in policy.lm.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in policy.lm.parameters())
    assert 0 < trained < 0.2 * everything
    rows, _ = env.reset(seed=0)
    assert np.isfinite(policy.infer({key: rows[key] for key in policy.needs})[0]).all()


def test_a_trained_model_is_written_and_loads_again(policy: LMPolicy, tmp_path: Path) -> None:
    with torch.no_grad():
        next(policy.lm.parameters()).add_(0.01)
    policy.save_model(tmp_path / "primary")
    again = load_model(str(tmp_path / "primary"))
    for a, b in zip(policy.lm.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b.detach())
    policy.save_model(tmp_path / "primary")
    assert [path.name for path in tmp_path.iterdir()] == ["primary"]


def test_wrong_spaces_vocabularies_and_settings(env: gym.vector.VectorEnv) -> None:
    plain = gym.make("TokenTree-v0")
    with pytest.raises(ConfigError, match="view="):
        LMPolicy(plain.observation_space, plain.action_space)
    with pytest.raises(ConfigError, match="must be one of"):
        LMPolicy(env.single_observation_space, env.single_action_space, value_trunk="none")
    with pytest.raises(ConfigError, match=r"no argument 'lora_ran'\. Did you mean 'lora_rank'"):
        LMPolicy(env.single_observation_space, env.single_action_space, lora_ran=2)
    synthetic = gym.make("TokenTree-v0", tree="synthetic:roots=4", view="tokens")
    with pytest.raises(ConfigError, match="vocabulary"):
        LMPolicy(synthetic.observation_space, synthetic.action_space)


def test_free_text_pays_for_a_right_ending_only() -> None:
    prompts = load_prompts("bundled:train=8", seed=0)
    tokenizer = load_model("tiny-primary").tokenizer
    env = FreeTextVectorEnv(2, prompts=prompts.roots, tokenizer=tokenizer, verify=prompts.verify)
    _, info = env.reset(seed=0, options={"roots": [5, 5]})
    assert info["root"].tolist() == [5, 5]
    right = [*tokenizer.encode(prompts.roots[5].answer + "."), tokenizer.eos_id]
    wrong = [tokenizer.encode("0")[0]] * (len(right) - 2) + right[-2:]
    for tokens in zip(right, wrong, strict=True):
        _, reward, terminated, truncated, info = env.step(tokens)
    assert env.text(0) == prompts.roots[5].answer + "."
    assert reward.tolist() == [1.0, 0.0]
    assert terminated.all()
    assert not truncated.any()
    assert info["is_success"].tolist() == [True, False]


def test_free_text_refuses_bad_settings() -> None:
    prompts = load_prompts("bundled:train=4", seed=0)
    tokenizer = load_model("tiny-primary").tokenizer
    for changes, message in (({"prompts": []}, "no prompts"), ({"max_tokens": 0}, "max_tokens")):
        settings = {"prompts": prompts.roots, "tokenizer": tokenizer, "verify": prompts.verify, **changes}
        with pytest.raises(ConfigError, match=message):
            FreeTextVectorEnv(2, **settings)
    env = FreeTextVectorEnv(2, prompts=prompts.roots, tokenizer=tokenizer, verify=prompts.verify)
    with pytest.raises(ConfigError, match="out of range"):
        env.reset(options={"roots": [0, 9]})
    with pytest.raises(ConfigError, match="ended"):
        env.step([0, 0])


def test_states_are_the_same_read_in_parts_by_length(policy: LMPolicy) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 20, size=45)  # more than the smallest part: read in three
    contexts = torch.full((45, 24), -1)
    for row, length in enumerate(lengths.tolist()):
        contexts[row, :length] = torch.from_numpy(rng.integers(2, 20, size=length))
    episode = torch.from_numpy(np.repeat(np.arange(45), 2))
    at = torch.from_numpy(np.stack([lengths - 2, lengths - 1], axis=1).reshape(-1))
    with torch.no_grad():
        found = by_length(policy.hidden, contexts, episode, at)
        torch.testing.assert_close(found, policy.hidden(contexts)[episode, at], rtol=1e-4, atol=1e-5)


def test_another_tokenizer_than_the_trees_is_refused() -> None:
    class Other:
        """The model's vocabulary with two characters exchanged: as many tokens, other text."""

        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokenizer, name)

        def pieces(self) -> list[bytes]:
            pieces = self._tokenizer.pieces()
            return [*pieces[:3], pieces[4], pieces[3], *pieces[5:]]

    prompts = load_prompts("bundled:train=4", seed=0)
    tokenizer: Any = Other(load_model("tiny-primary").tokenizer)
    env = FreeTextVectorEnv(2, prompts=prompts.roots, tokenizer=tokenizer, verify=prompts.verify)
    with pytest.raises(ConfigError, match="token 3 is '1' to the model and '2' there"):
        PPO("LMPolicy", env, device="cpu")


def test_a_reference_model_of_ones_own(env: gym.vector.VectorEnv, policy: LMPolicy, tmp_path: Path) -> None:
    with torch.no_grad():
        policy.lm.base_model.norm.weight.mul_(0.5)
    policy.save_model(tmp_path / "other")
    agent = PPO(
        "LMPolicy", env, device="cpu", seed=0, kl_coef=0.1, n_episodes=16, n_epochs=1,
        policy_kwargs={"reference": str(tmp_path / "other")},
    )  # fmt: skip
    assert agent.reference is not None
    torch.testing.assert_close(agent.reference.lm.base_model.norm.weight, policy.lm.base_model.norm.weight)
    assert len(list(agent.policy.lm.parameters())) + 2 == len(list(agent.policy.parameters()))
    before = agent.reference.lm.base_model.norm.weight.clone()
    agent.learn(1, log_interval=0)  # a log that is written is emptied
    assert agent.logger.name_to_value["train/kl_to_reference"] != 0.0
    assert torch.equal(agent.reference.lm.base_model.norm.weight, before)


def test_a_reference_model_of_another_vocabulary_is_refused(env: gym.vector.VectorEnv, tmp_path: Path) -> None:
    from treegym.models.local.saving import save_model
    from treegym.models.tokens.char_tokenizer import CharTokenizer

    model = load_model("tiny-primary").model
    model.resize_token_embeddings(30)
    save_model(model, CharTokenizer("0123456789+-*%=.?!,yn abcdef"), tmp_path / "other")
    with pytest.raises(ConfigError, match=r"reference model .* has another vocabulary"):
        LMPolicy(env.single_observation_space, env.single_action_space, reference=str(tmp_path / "other"))


def test_an_optimizer_of_8_bits_needs_its_package(env: gym.vector.VectorEnv) -> None:
    with pytest.raises(ConfigError, match="optimizer is 'adam8'"):
        PPO("LMPolicy", env, device="cpu", policy_kwargs={"optimizer": "adam8"})
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(MissingDependency, match=r"treegym\[8bit\]"):
            PPO("LMPolicy", env, device="cpu", policy_kwargs={"optimizer": "adamw8bit"})


def _on_text(**policy: Any) -> PPO:
    tokenizer, prompts = load_model("tiny-primary").tokenizer, load_prompts("bundled:train=40", seed=1)
    env = FreeTextVectorEnv(32, prompts=prompts.roots, tokenizer=tokenizer, verify=prompts.verify, max_tokens=12)
    policy = {"model": "tiny-primary", **policy}
    return PPO("LMPolicy", env, seed=0, device="cpu", policy_kwargs=policy, n_episodes=32, n_epochs=1, kl_coef=0.05)


@pytest.mark.parametrize("policy", [{"optimizer": "adamw8bit"}, {"dtype": "bfloat16"}, {"lora_rank": 4}])
def test_learning_goes_on_to_the_bit_after_a_checkpoint(policy: dict[str, Any], tmp_path: Path) -> None:
    if "optimizer" in policy:
        pytest.importorskip("bitsandbytes", reason="the extra 8bit is not installed")
    agent = _on_text(**policy)
    agent.learn(300)
    agent.save(tmp_path / "agent.zip")
    again = PPO.load(tmp_path / "agent.zip", env=agent.world.env, device="cpu")
    for each in (agent, again):
        each.learn(300, reset_num_timesteps=False)
    for ours, theirs in zip(agent.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_moments_of_8_bits_learn_as_others_do() -> None:
    pytest.importorskip("bitsandbytes", reason="the extra 8bit is not installed")
    agent, plain = _on_text(optimizer="adamw8bit"), _on_text()
    start = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    for each in (agent, plain):
        each.learn(600)
    kept = [state["state1"] for state in agent.optimizer.state.values()]
    assert all(moment.dtype == (torch.uint8 if moment.numel() >= 4096 else torch.float32) for moment in kept)
    assert sum(moment.dtype == torch.uint8 for moment in kept) > 10
    for old, ours, theirs in zip(start, agent.policy.parameters(), plain.policy.parameters(), strict=True):
        assert (ours - theirs).norm() < 0.5 * (theirs - old).norm() + 1e-6


@pytest.mark.parametrize("switches", [{"gradient_checkpointing": True}, {"dtype": "bfloat16"}])
def test_checkpointing_and_half_precision_give_about_the_same_gradients(
    env: gym.vector.VectorEnv, policy: LMPolicy, switches: dict[str, Any]
) -> None:
    other = LMPolicy(env.single_observation_space, env.single_action_space, **switches)
    assert other._llama is None  # both need the model's own layers
    steps = _walked(policy, env)
    lane = {key: np.concatenate([step[0][key][:1] for step in steps[:4]]) for key in policy.needs}
    actions = torch.from_numpy(np.concatenate([step[1][:1] for step in steps[:4]]))
    found = []
    for each in (policy, other):
        each.set_training_mode(True)
        judged = each.evaluate(each.tensors(lane), actions, episode_lengths=np.array([4]))
        judged.log_prob.sum().backward()
        found.append(each.lm.base_model.layers[0].mlp.up_proj.weight.grad.float())
    tolerance = 0.1 if "dtype" in switches else 1e-4
    torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance * float(found[0].abs().max()))
