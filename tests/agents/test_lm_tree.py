"""Reading episodes as trees: the loss and its gradient are those of the episodes read one by one, in float64."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import treegym
from treegym.agents.gradient_settings import GradientSettings
from treegym.agents.lesson import Lesson, Whole
from treegym.agents.losses import loss
from treegym.agents.policies.lm import LMPolicy
from treegym.agents.policies.lm_tree import Shape, context_trees, tree_states
from treegym.errors import ConfigError

torch.set_num_threads(1)


def _contexts(count: int = 14, width: int = 12, tokens: int = 5, seed: int = 0) -> np.ndarray:
    """Returns contexts that share much: few tokens, so that many beginnings are the same, some contexts wholly so."""
    rng = np.random.default_rng(seed)
    contexts = np.full((count, width), -1, np.int32)
    for e in range(count):
        length = rng.integers(2, width + 1)
        contexts[e, :length] = rng.integers(0, tokens, size=length)
        if e % 3:
            kept = rng.integers(1, width + 1)
            contexts[e, :kept] = contexts[e - 1, :kept]
            contexts[e, (contexts[e] < 0).argmax() if (contexts[e] < 0).any() else width :] = -1
    return contexts


def test_a_tree_by_hand() -> None:
    # "ab", "abc", "ad" and "b": a, b, c below a; d below a; b by itself.
    contexts = np.array([[0, 1, 2], [1, -1, -1], [0, 3, -1], [0, 1, -1]], np.int32)
    first, second = context_trees(contexts)
    assert first.ids.tolist() == [0, 1, 2, 3]
    assert first.depth.tolist() == [0, 1, 2, 1]
    assert first.stop.tolist() == [4, 3, 3, 4]
    assert first.rows.tolist() == [3, 0, 2]
    assert first.where.tolist() == [[0, 1, -1], [0, 1, 2], [0, 3, -1]]
    assert second.ids.tolist() == [1]


@pytest.mark.parametrize("limit", [8, 20, 10_000])
def test_every_prefix_is_there_once_and_its_ancestors_are_its_text(limit: int) -> None:
    contexts = _contexts(60)
    seen = 0
    for tree in context_trees(contexts, limit=limit):
        prefixes = set()
        for e, row in enumerate(tree.rows):
            text = contexts[row][contexts[row] >= 0]
            for n, node in enumerate(tree.where[e, : len(text)]):
                above = [k for k in range(node + 1) if k <= node < tree.stop[k]]
                assert tree.ids[above].tolist() == text[: n + 1].tolist()
                assert tree.depth[node] == n
                prefixes.add(tuple(text[: n + 1]))
            seen += 1
        assert len(prefixes) == len(tree.ids)
        assert len(tree.ids) <= max(limit, 12)
    assert seen == 60


def _models() -> dict[str, Any]:
    torch.manual_seed(0)
    small = {"vocab_size": 8, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}  # fmt: skip
    return {
        "llama": LlamaForCausalLM(LlamaConfig(**small)),
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**small, head_dim=8)),
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=32, n_layer=2, n_head=4, n_positions=32,
                                           resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
    }  # fmt: skip


def _in_float64(model: Any) -> Any:
    """Returns the model in float64; the norms of `transformers` would compute in float32 all the same."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, torch.nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon))
    return model.double().eval()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_loss_and_gradient_are_those_of_single_sequences(name: str) -> None:
    """With clipping, KL and entropy, where one token's advantages differ in sign between the texts that share it."""
    model = _in_float64(_models()[name])
    contexts = _contexts()
    lengths = (contexts >= 0).sum(1) - 1  # each token but the first is an action
    episode = np.repeat(np.arange(len(contexts)), lengths)
    at = np.concatenate([np.arange(n) for n in lengths])
    action = torch.from_numpy(contexts[episode, at + 1].astype(np.int64))
    rng = np.random.default_rng(1)
    steps = len(at)
    advantages = np.repeat(rng.normal(size=len(contexts)), lengths)
    assert (advantages > 0).any()
    assert (advantages < 0).any()
    settings = GradientSettings(clip_range=0.2, clip_range_high=0.28, dual_clip=3.0, kl_in="loss", kl_coef=0.1)
    lesson = Lesson(
        {}, action, torch.from_numpy(rng.normal(-1.6, 0.5, size=steps)), torch.from_numpy(advantages),
        torch.zeros(steps), torch.zeros(steps), torch.from_numpy(rng.normal(-1.6, 0.5, size=steps)),
        torch.zeros(steps, dtype=torch.bool), torch.from_numpy(np.repeat(lengths, lengths)), lengths,
    )  # fmt: skip
    whole = Whole(steps, len(contexts), 0, 0.2, 0.28, 0.01, 0.0)
    found = []
    for packed in (True, False):
        model.zero_grad()
        text = torch.from_numpy(contexts.astype(np.int64))
        if packed:
            shape = Shape(model.config, torch.float64)
            states = tree_states(text, episode, at, layers=model.base_model, shape=shape, limit=30)
        else:
            each = [model.base_model(input_ids=row[row >= 0][None]).last_hidden_state[0] for row in text]
            states = torch.cat([s[:n] for s, n in zip(each, lengths, strict=True)])
        log_probs = torch.log_softmax(model.get_output_embeddings()(states), -1)
        entropy = -(log_probs.exp() * log_probs).sum(1)
        total, figures = loss(
            log_probs.gather(1, action[:, None])[:, 0], entropy, None, lesson, whole, settings, kl_beta=0.1
        )
        total.backward()
        found.append((total.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
        assert 0.0 < figures["clip_fraction"] < 1.0
    (ours, by_ours), (theirs, by_theirs) = found
    assert ours == pytest.approx(theirs, abs=1e-10)
    assert by_ours.keys() == by_theirs.keys()
    for key, gradient in by_theirs.items():
        torch.testing.assert_close(by_ours[key], gradient, rtol=0, atol=1e-10)


def test_the_policy_judges_alike_with_both_packings() -> None:
    assert treegym.__version__
    env = gym.make_vec("TokenTree-v0", num_envs=12, view="tokens", autoreset_mode="Disabled", max_tokens=24)
    rng = np.random.default_rng(0)
    rows, _ = env.reset(seed=0, options={"roots": np.repeat(env.unwrapped.world.pool[:3], 4)})
    lanes, kept, taken = env.unwrapped.lanes, [[] for _ in range(12)], [[] for _ in range(12)]
    while not lanes.done.all():
        action = (rng.random(rows["action_mask"].shape) * rows["action_mask"]).argmax(1)
        for lane in np.flatnonzero(~lanes.done):
            kept[lane].append({key: rows[key][lane] for key in ("context", "children", "action_mask")})
            taken[lane].append(action[lane])
        _, rows = lanes.step(np.where(lanes.done, -1, action), next_step_reset=False)
    steps = [step for lane in kept for step in lane]
    obs = {key: torch.from_numpy(np.stack([step[key] for step in steps])) for key in steps[0]}
    actions = torch.from_numpy(np.concatenate(taken))
    lengths = np.array([len(lane) for lane in kept])
    spaces = env.single_observation_space, env.single_action_space
    for trunk in ("shared", "own"):
        judged = []
        for packing in ("episodes", "trees"):
            policy = LMPolicy(*spaces, model="tiny-primary", packing=packing, value_trunk=trunk)
            policy = _in_float64(policy)
            with policy.plainly():
                judged.append(policy.evaluate(obs, actions, episode_lengths=lengths))
        for one, other in zip(*judged, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10, check_dtype=False)
    with pytest.raises(ConfigError, match="packing is 'tree'"):
        LMPolicy(*spaces, model="tiny-primary", packing="tree")
