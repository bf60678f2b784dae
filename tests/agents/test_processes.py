"""Several processes learn as one would from all their episodes. Run as a script, this file is such a process."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import treegym  # noqa: F401
from treegym.agents import DAPO, PPO, VAPO, AlphaZero
from treegym.agents.play.rollout import Trajectories, join
from treegym.agents.processes import Processes, settle, whole
from treegym.envs.free_text import FreeTextVectorEnv
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError
from treegym.models import load_model

WHOLE: dict[str, Any] = {"batch_size": 10**9, "n_epochs": 2}
# name: learner, its switches, whether one process on the joint batch can be compared, whether the second learns nothing
CASES: dict[str, tuple[Any, dict[str, Any], bool, bool]] = {
    "dapo": (DAPO, {**WHOLE, "group_size": 4, "kl_coef": 0.05, "kl_in": "loss"}, True, False),
    "ppo": (PPO, {**WHOLE, "kl_coef": 0.1, "kl_target": 0.01, "micro_batch": 40}, True, False),
    "vapo": (VAPO, {**WHOLE, "group_size": 4, "value_pretraining": False}, True, False),
    "pretraining": (VAPO, {**WHOLE, "group_size": 4}, True, False),
    "minibatches": (PPO, {"batch_size": 30, "n_epochs": 2}, False, False),
    "one-sided": (DAPO, {**WHOLE, "group_size": 4, "max_resamples": 2}, True, True),
}
UPDATES, EPISODES = 2, 16


def learner(case: str, *, hopeless: bool = False) -> Any:
    kind, switches, _, _ = CASES[case]
    prompts = load_prompts("bundled:train=40", seed=1)
    env = FreeTextVectorEnv(
        EPISODES, prompts=prompts.roots, tokenizer=load_model("tiny-primary").tokenizer,
        verify=(lambda root, text: 0.0) if hopeless else prompts.verify, max_tokens=10,
    )  # fmt: skip
    return kind(
        "LMPolicy", env, seed=0, device="cpu", policy_kwargs={"model": "tiny-primary"}, n_episodes=EPISODES,
        learning_rate=1e-3, **switches,
    )  # fmt: skip


def weights(agent: Any) -> dict[str, np.ndarray]:
    return {name: whole(tensor).detach().clone().numpy() for name, tensor in agent.policy.state_dict().items()}


def process(folder: Path) -> None:
    """Learns every case; writes the episodes of each update and the weights after the last."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for case, (_, _, _, one_sided) in CASES.items():
        agent, update = learner(case, hopeless=one_sided and rank == 1), 0
        step = agent.update

        def keep(rollout: Trajectories, case: str = case, step: Any = step) -> None:
            nonlocal update
            fields = {f.name: getattr(rollout, f.name) for f in dataclasses.fields(rollout) if f.name != "rows"}
            rows = {f"rows.{key}": array for key, array in rollout.rows.items()}
            np.savez(folder / f"{case}-{rank}-{update}.npz", **fields, **rows)
            update += 1
            step(rollout)

        agent.update = keep
        while update < UPDATES:
            agent.learn(1, reset_num_timesteps=False)
            agent.save(folder / f"{case}.zip")
        np.savez(folder / f"{case}-{rank}.npz", **weights(agent))
        (folder / f"{case}-{rank}.json").write_text(json.dumps([agent.num_timesteps, agent.rng.random()]))
        agent.policy.save_model(folder / f"{case}-model")


def episodes(path: Path, first_group: int) -> Trajectories:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    rows = {name.removeprefix("rows."): arrays.pop(name) for name in list(arrays) if name.startswith("rows.")}
    arrays["groups"] = arrays["groups"] + first_group
    return Trajectories(rows=rows, **arrays)


@pytest.mark.parametrize("shards", ["false", "true"])
def test_two_processes_learn_as_one_from_all_their_episodes(shards: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    environment = {**os.environ, "ACCELERATE_USE_FSDP": shards, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, tmp_path],
        env=environment, check=True, timeout=280,
    )  # fmt: skip
    for case, (_, _, comparable, one_sided) in CASES.items():
        with np.load(tmp_path / f"{case}-0.npz") as first, np.load(tmp_path / f"{case}-1.npz") as second:
            assert list(first) == list(second)
            for name in first:
                np.testing.assert_array_equal(first[name], second[name], err_msg=f"{case}: {name}")
            joint = {name: first[name] for name in first}
        steps, streams = zip(
            *(json.loads((tmp_path / f"{case}-{rank}.json").read_text()) for rank in (0, 1)), strict=True
        )
        assert steps[0] == steps[1]
        assert streams[0] != streams[1], f"{case}: both drew the same episodes"
        alone = learner(case)
        before = weights(alone)
        alone.learn(0)
        for update in range(UPDATES):
            parts = [episodes(tmp_path / f"{case}-{rank}-{update}.npz", 1000 * rank) for rank in (0, 1)]
            assert (parts[1].episodes == 0) == one_sided
            alone.update(join([part for part in parts if part.episodes]))
        after = weights(alone)
        assert any(not np.array_equal(before[name], joint[name]) for name in joint), f"{case}: nothing was learned"
        for name in joint if comparable else ():
            moved = np.abs(after[name] - before[name]).max()
            apart = np.abs(after[name] - joint[name]).max()
            assert apart <= 0.02 * moved + 1e-7, (
                f"{case}: {name} is {apart} from one process's, which moved it by {moved}"
            )
        again = type(alone).load(tmp_path / f"{case}.zip", device="cpu")
        for name, array in weights(again).items():
            np.testing.assert_array_equal(array, joint[name])
        written = load_model(str(tmp_path / f"{case}-model")).model.state_dict()
        for name, tensor in written.items():
            np.testing.assert_array_equal(tensor.numpy(), joint[f"lm.{name}"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a thread does")
def test_the_end_waits_for_threads_at_work() -> None:
    """A thread that still drops tensors when the interpreter ends would abort the process."""
    began, done = threading.Event(), []

    def sums() -> None:
        ctypes.CDLL(None).prctl(15, b"pt_gloo_runloop", 0, 0, 0)  # the name that torch gives its threads
        began.set()
        done.append(hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000))  # half a second without the interpreter

    thread = threading.Thread(target=sums)
    thread.start()
    began.wait()
    settle()
    assert done
    thread.join()


def test_what_learns_in_one_process_says_so(monkeypatch: pytest.MonkeyPatch, tree_env: gym.Env) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    agent = AlphaZero("ChildPolicy", tree_env, seed=0)
    with pytest.raises(ConfigError, match="2 processes were launched"):
        agent.learn(10)


def test_alone_everything_is_as_it_came() -> None:
    alone = Processes(join=True)
    array = np.random.default_rng(0).normal(size=50).astype(np.float32)
    rng = np.random.default_rng(3)
    assert alone.alone
    assert alone.generator(rng) is rng
    assert alone.totals(1.5, 2) == [1.5, 2]
    assert alone.mean(array) == float(array.mean())
    np.testing.assert_array_equal(alone.standardised(array), (array - array.mean()) / (array.std(ddof=1) + 1e-8))
    assert list(alone.in_step(range(3))) == [0, 1, 2]


if __name__ == "__main__":
    process(Path(sys.argv[1]))
