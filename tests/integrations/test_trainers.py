"""Trainers that speak Gymnasium: TorchRL with its ActionMask, Tianshou with its masks, each training on TokenTree."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 (registers the ids)

WORLD = {"tree": "synthetic:roots=8,depth=3,branching=3,width=3,seed=0", "split": "all"}


def test_torchrl_walks_by_its_mask_and_its_rewards_are_ours() -> None:
    pytest.importorskip("torchrl")
    from treegym.integrations.torchrl import make_env

    env = make_env("TokenTree-v0", seed=0, **WORLD)
    ours = gym.make("TokenTree-v0", **WORLD)
    data = env.rollout(200, break_when_any_done=False)
    assert data["action_mask"].dtype.is_floating_point is False
    chosen = data["action"].argmax(-1) if data["action"].ndim > 1 else data["action"]
    assert data["action_mask"].gather(-1, chosen[:, None].long()).all()  # never a child that is not there
    # the same actions in an environment of ours pay the same
    ours.reset(seed=0)  # TorchRL seeds by a reset, and the rollout begins with another
    first_seen, _ = ours.reset()
    np.testing.assert_array_equal(data["observations"][0].numpy(), first_seen["observations"])
    starts = [0, *(np.flatnonzero(data["next", "done"].numpy().ravel()) + 1)]
    first = range(starts[0], starts[1])
    paid = [ours.step(int(chosen[i]))[1] for i in first]
    np.testing.assert_allclose(paid, data["next", "reward"].numpy().ravel()[: len(paid)], atol=1e-6)


def test_torchrls_ppo_loss_learns_from_it() -> None:
    torchrl = pytest.importorskip("torchrl")
    import torch
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    from treegym.integrations.torchrl import make_env

    assert torchrl.__version__
    torch.manual_seed(0)
    env = make_env("TokenTree-v0", seed=0, categorical=True, **WORLD)
    wide, actions = env.observation_spec["observations"].shape[-1], env.action_spec.space.n
    net = torch.nn.Sequential(torch.nn.Linear(wide, 32), torch.nn.Tanh(), torch.nn.Linear(32, actions))
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["observations"], out_keys=["logits"]),
        in_keys={"logits": "logits", "mask": "action_mask"}, distribution_class=MaskedCategorical, return_log_prob=True,
        spec=env.action_spec,
    )  # fmt: skip
    critic = ValueOperator(torch.nn.Linear(wide, 1), in_keys=["observations"])
    loss, gae = ClipPPOLoss(actor, critic), GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    rewards = []
    collector = Collector(env, actor, frames_per_batch=128, total_frames=512)
    for batch in collector:
        gae(batch)
        for _ in range(2):
            parts = loss(batch)
            total = parts["loss_objective"] + parts["loss_critic"] + parts["loss_entropy"]
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
        rewards.append(float(batch["next", "reward"].mean()))
    collector.shutdown()
    assert len(rewards) == 4
    assert all(np.isfinite(rewards))
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_tianshou_collects_by_the_mask() -> None:
    pytest.importorskip("tianshou")
    from tianshou.data import Batch
    from tianshou.env import DummyVectorEnv

    from treegym.integrations.tianshou import masked

    envs = DummyVectorEnv([lambda: masked(gym.make("TokenTree-v0", **WORLD)) for _ in range(2)])
    envs.seed([0, 1])
    seen, _ = envs.reset()
    batch = Batch(obs=seen)
    assert batch.obs.mask.shape == (2, envs.action_space[0].n)
    assert batch.obs.obs.shape[0] == 2
    for _ in range(5):
        actions = np.array([int(np.flatnonzero(mask)[0]) for mask in np.stack([o["mask"] for o in seen])])
        seen, rewards, terminated, truncated, infos = envs.step(actions)
        assert not any(info["illegal_action"] for info in infos)
        done = np.flatnonzero(terminated | truncated)
        if len(done):
            seen[done] = envs.reset(done)[0]
        assert np.isfinite(rewards).all()
