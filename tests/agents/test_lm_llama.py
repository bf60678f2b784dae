"""The layers of a Llama on packed tokens: the same states and gradients as `transformers` gives, padded."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from treegym.agents.fast.llama import Llama
from treegym.agents.fast.llama_walk import LlamaWalk
from treegym.agents.fast.packing import Packed
from treegym.agents.policies.lm import LMPolicy

torch.set_num_threads(1)


def _llama(groups: int = 4, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings: dict = {
        "vocab_size": 24, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": groups, "max_position_embeddings": 48, **changes,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _episodes(count: int = 18, width: int = 22) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns contexts ``[E, L]``, lengths of the first and of the last context; threes begin alike."""
    rng = np.random.default_rng(3)
    first = np.repeat(rng.integers(2, 7, size=count // 3), 3)
    last = first + rng.integers(0, 12, size=count)
    contexts = np.full((count, width), -1, np.int32)
    for episode in range(count):
        contexts[episode, : last[episode]] = rng.integers(0, 24, size=last[episode])
        if episode % 3:
            contexts[episode, : first[episode]] = contexts[episode - 1, : first[episode]]
    return contexts, first, last


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_states_and_gradients_are_those_of_transformers(groups: int) -> None:
    model = _llama(groups)
    llama = Llama.of(model.base_model)
    assert llama is not None
    contexts, first, last = _episodes()
    packed, where = Packed.of_episodes(contexts, first, last)
    assert len(packed.ids) == last.sum() - 2 * first.sum() // 3  # beginnings are read once
    episode = np.repeat(np.arange(len(last)), last - first + 1)
    place = np.concatenate([np.arange(a - 1, b) for a, b in zip(first, last, strict=True)])
    pull = torch.randn(len(place), 64)
    padded = torch.from_numpy(contexts.astype(np.int64)).clamp(min=0)
    found = []
    for states in (
        llama.states(packed)[torch.from_numpy(where[episode, place])],
        model.base_model(input_ids=padded, use_cache=False).last_hidden_state[episode, place],
    ):
        model.zero_grad()
        (states * pull).sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.base_model.named_parameters() if p.grad is not None}
        found.append((states.detach(), gradients))
    (ours, by_ours), (theirs, by_theirs) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert by_ours.keys() == by_theirs.keys()
    for name, gradient in by_theirs.items():
        torch.testing.assert_close(by_ours[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1))


def test_weights_that_are_frozen_get_no_gradient() -> None:
    model = _llama()
    model.base_model.embed_tokens.weight.requires_grad_(False)
    model.base_model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    llama = Llama(model.base_model)
    llama.states(Packed.of([np.arange(5)])).sum().backward()
    assert model.base_model.embed_tokens.weight.grad is None
    assert model.base_model.layers[0].mlp.up_proj.weight.grad is None
    assert model.base_model.layers[0].mlp.gate_proj.weight.grad is not None


def test_a_walk_gives_the_states_of_whole_contexts_while_rows_leave() -> None:
    model = _llama(2)
    llama = Llama(model.base_model)
    walk = LlamaWalk()
    rng = np.random.default_rng(1)
    length = np.array([3, 5, 3, 4, 3])
    contexts = np.full((5, 20), -1, np.int32)
    for row, n in enumerate(length):
        contexts[row, :n] = rng.integers(0, 24, size=n)
    contexts[2, :3] = contexts[0, :3]  # read once
    for step in range(9):
        assert walk.can_advance(llama, contexts)
        assert walk._goes_on == (step > 0)
        found = walk.advance(llama)
        padded = torch.from_numpy(contexts.astype(np.int64)).clamp(min=0)
        with torch.no_grad():
            expected = model.base_model(input_ids=padded, use_cache=False).last_hidden_state
        torch.testing.assert_close(found, expected[np.arange(len(length)), length - 1], rtol=1e-4, atol=1e-5)
        keep = rng.random(len(length)) > 0.15
        keep[0] = True
        contexts, length = contexts[keep].copy(), length[keep]
        contexts[np.arange(len(length)), length] = rng.integers(0, 24, size=len(length))
        length = length + 1


def test_what_does_not_fit_goes_through_the_model_itself() -> None:
    assert Llama.of(_llama().base_model) is not None
    assert Llama.of(_llama(attention_bias=True).base_model) is None
    assert Llama.of(_llama(hidden_act="gelu").base_model) is None
    assert Llama.of(_llama(rope_parameters={"rope_type": "linear", "factor": 2.0}).base_model) is None
    assert Llama.of(_llama().to(torch.bfloat16).base_model) is None
    assert Llama.of(GPT2LMHeadModel(GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2)).base_model) is None
    listened = _llama()
    listened.base_model.layers[1].mlp.register_forward_hook(lambda *_: None)
    assert Llama.of(listened.base_model) is None


def test_weights_that_are_no_numbers_are_not_hidden() -> None:
    model = _llama()
    with torch.no_grad():
        model.base_model.layers[1].self_attn.q_proj.weight[0, 0] = float("nan")
        assert Llama(model.base_model).states(Packed.of([np.arange(6)])).isnan().any()


@pytest.mark.parametrize("value_trunk", ["shared", "own"])
def test_values_of_episodes_move_the_critic_alone(value_trunk: str) -> None:
    env = gym.make_vec("TokenTree-v0", num_envs=1, view="tokens", autoreset_mode="Disabled", split="train")
    policy = LMPolicy(env.single_observation_space, env.single_action_space, value_trunk=value_trunk)
    with torch.no_grad():
        policy.value_head.weight.normal_()
    rows, _ = env.reset(seed=1)
    seen, done = [], False
    while not done:
        seen.append({key: rows[key].copy() for key in policy.needs})
        rows, _, terminated, truncated, _ = env.step(policy.best(seen[-1]))
        done = bool(terminated[0] or truncated[0])
    obs = policy.tensors({key: np.concatenate([row[key] for row in seen]) for key in policy.needs})
    values = policy.episode_values(obs, np.array([len(seen)]))
    torch.testing.assert_close(values, policy.values(obs), rtol=1e-4, atol=1e-5)
    values.sum().backward()
    critic = {id(parameter) for parameter in policy.critic_parameters()}
    assert all((parameter.grad is not None) <= (id(parameter) in critic) for parameter in policy.parameters())


def test_an_update_reads_every_token_once() -> None:
    contexts, first, last = _episodes()
    packed, _ = Packed.of_episodes(contexts, first, last)
    shared = len({contexts[episode, :n].tobytes() for episode, n in enumerate(first)})
    assert shared == 6
    assert len(packed.ids) == first[::3].sum() + (last - first).sum()
    assert packed.place.max() == last.max() - 1
