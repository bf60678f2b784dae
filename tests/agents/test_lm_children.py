"""Children of several tokens: scores by hand, the same in sampling and learning, and an agent that learns with them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from treegym.agents import PPO
from treegym.agents.policies.lm import LMPolicy
from treegym.models import load_model

torch.set_num_threads(1)
K, W, L, VOCABULARY = 3, 3, 20, 24
TOKENIZER = load_model("tiny-primary").tokenizer


class Phrases(gym.Env[Any, Any]):
    """Two choices among runs of one to three tokens; the shortest is worth a reward each time."""

    observation_space = spaces.Dict(
        {
            "action_mask": spaces.Box(0, 1, (K,), np.int8),
            "context": spaces.Box(-1, VOCABULARY - 1, (L,), np.int32),
            "children": spaces.Box(-1, VOCABULARY - 1, (K, W), np.int32),
        }
    )
    action_space = spaces.Discrete(K)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.text = TOKENIZER.encode("12+34=")
        self.moves = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        child = self.children[int(action)]
        self.text += child[child >= 0].tolist()
        self.moves += 1
        return self._observe(), float((child >= 0).sum() == 1), self.moves == 2, False, {}

    def _observe(self) -> dict[str, np.ndarray]:
        self.children = np.full((K, W), -1, np.int32)
        for row, text in enumerate(("46.", "4", "5-")):
            self.children[row, : len(text)] = TOKENIZER.encode(text)
        context = np.full(L, -1, np.int32)
        context[: len(self.text)] = self.text
        return {"action_mask": np.ones(K, np.int8), "context": context, "children": self.children}


def _rows(count: int = 1) -> dict[str, np.ndarray]:
    env = Phrases()
    observation, _ = env.reset()
    return {key: np.repeat(value[None], count, 0) for key, value in observation.items()}


def test_scores_are_log_probabilities_of_whole_children() -> None:
    policy = LMPolicy(Phrases.observation_space, Phrases.action_space)
    found, _ = policy.infer(_rows())
    model, prompt = load_model("tiny-primary"), TOKENIZER.encode("12+34=")
    texts = [TOKENIZER.encode(text) for text in ("46.", "4", "5-")]
    expected = [float(scores.sum()) for scores in model.score([prompt] * 3, texts)]
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_learning_judges_as_sampling_did() -> None:
    policy, env, rng = LMPolicy(Phrases.observation_space, Phrases.action_space), Phrases(), np.random.default_rng(0)
    observation, _ = env.reset()
    seen, actions, old = [], [], []
    for _ in range(2):
        rows = {key: value[None] for key, value in observation.items()}
        action, log_prob, _ = policy.act(rows, rng.random(1))
        seen.append(rows)
        actions.append(int(action[0]))
        old.append(float(log_prob[0]))
        observation, *_ = env.step(action[0])
    obs = policy.tensors({key: np.concatenate([rows[key] for rows in seen]) for key in seen[0]})
    judged = policy.evaluate(obs, torch.tensor(actions), episode_lengths=np.array([2]))
    np.testing.assert_allclose(judged.log_prob.detach().numpy(), old, atol=2e-5)


def test_one_token_children_choose_the_same_in_either_shape() -> None:
    wide, rows = LMPolicy(Phrases.observation_space, Phrases.action_space), _rows()
    rows["children"] = np.where(np.arange(W) == 0, rows["children"], -1)
    plain_space = spaces.Dict({**Phrases.observation_space.spaces, "children": spaces.Box(-1, 23, (K,), np.int32)})
    plain = LMPolicy(plain_space, Phrases.action_space)
    scores, _ = wide.infer(rows)
    logits, _ = plain.infer({**rows, "children": rows["children"][..., 0]})
    np.testing.assert_allclose(scores - scores[:, :1], logits - logits[:, :1], atol=1e-4)


def test_an_agent_learns_which_phrase_pays() -> None:
    env = gym.vector.SyncVectorEnv([Phrases] * 8, autoreset_mode=gym.vector.AutoresetMode.DISABLED)
    agent = PPO("LMPolicy", env, seed=0, device="cpu", n_episodes=32, n_epochs=2, learning_rate=2e-3, gamma=1.0)
    agent.learn(600)
    assert agent.choose(_rows(), deterministic=True)[0] == 1
