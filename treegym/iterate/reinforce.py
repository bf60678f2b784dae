"""A round of reinforcement: PPO, DAPO or VAPO trains the primary on a tree or on free text."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from treegym.iterate.experts import Played
from treegym.iterate.imitate import check_weights
from treegym.iterate.primary import Source, open_primary
from treegym.iterate.settings import DEFAULTS, IterateSettings

__all__ = ["learner", "reinforce"]

LANES = 256


def reinforce(
    settings: IterateSettings,
    source: Source,
    tree: Path,
    seed: int,
    *,
    log: Path,
    collect: Callable[[Any], AbstractContextManager[Callable[[Any], Any]]] | None = None,
) -> tuple[Played, Any, str | None]:
    """Trains the primary by reinforcement; returns the episodes, the network and, if nothing was learned, why.

    Args:
        settings: of the run.
        source: where the primary is.
        tree: the round's tree, if it walks one.
        seed: of the round.
        log: where TensorBoard finds the learner's figures, if it is installed.
        collect: makes what collects the rollouts of the agent, if not the agent itself.
    """
    agent, env = learner(settings, source, tree, seed, log=log)
    network = agent.policy.lm
    before = _checksums(network)
    recorder = _recorder(env, settings.steps)
    with nullcontext() if collect is None else collect(agent) as agent.collect_elsewhere:
        agent.learn(settings.steps, callback=recorder, tb_log_name=f"round-{seed % 1000:03d}")
    check_weights(network, f"{settings.steps} tokens of {settings.algorithm}")
    note = None if _checksums(network) != before else _why_nothing(settings, agent, recorder.played)
    return recorder.played, network, note


def learner(settings: IterateSettings, source: Source, tree: Path, seed: int, *, log: Path | None) -> tuple[Any, Any]:
    """Returns the agent of a round, and the environment that it plays in."""
    import treegym.agents as agents

    rate = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
    switches = {**DEFAULTS[settings.algorithm], **rate, **settings.options}
    model, _ = open_primary(settings, source)
    env = _environment(settings, model, tree, seed, int(switches["n_episodes"]))
    del model  # the policy has its own
    policy: dict[str, Any] = {"dtype": settings.dtype, **({"anchor": settings.anchor} if settings.on_tree else {})}
    agent = getattr(agents, settings.algorithm.upper())(
        "LMPolicy", env, seed=seed, device="cpu",
        policy_kwargs={**policy, **settings.policy, "model": source.model, "adapters": source.adapters},
        tensorboard_log=str(log) if log is not None and importlib.util.find_spec("tensorboard") else None,
        **switches,
    )  # fmt: skip
    return agent, env


def _checksums(network: Any) -> list[int]:
    """Returns a number for each weight that is learned, which tells whether it changed without a copy of it."""
    learned = [weight.detach() for weight in network.parameters() if weight.requires_grad]
    return [zlib.crc32(weight.contiguous().view(torch.uint8).numpy()) for weight in learned]


def _why_nothing(settings: IterateSettings, agent: Any, played: Played) -> str:
    """Returns why a round left every weight as it was."""
    if not played.returns:
        return (
            "no group had mixed outcomes: nothing was learned in this round, and its reward is unknown; "
            "easier or other prompts, a larger group_size or more steps may help"
        )
    if settings.algorithm == "vapo" and not agent._n_updates:
        return (
            f"all {settings.steps} steps went into pretraining the critic: the model did not change in this round; "
            "use more steps, or fewer pretrain_updates in options"
        )
    return "no weight changed: nothing was learned in this round; a higher learning_rate or more steps may help"


def _environment(settings: IterateSettings, model: Any, tree: Path, seed: int, episodes: int) -> Any:
    import gymnasium as gym

    from treegym.envs.free_text import FreeTextVectorEnv
    from treegym.iterate.curriculum import practised_prompts
    from treegym.iterate.evaluate import prompts_of_round
    from treegym.models.base import context_length
    from treegym.models.tokens.ends import ending_at

    lanes = min(LANES, episodes)
    if settings.on_tree:
        return gym.make_vec(
            "TokenTree-v0", num_envs=lanes, tree=str(tree), view="tokens", reward=settings.reward,
            max_tokens=settings.max_tokens, curriculum=settings.curriculum, autoreset_mode="Disabled",
        )  # fmt: skip
    form = settings.form
    ending = ending_at(model, form.stops)
    prompts = practised_prompts(
        prompts_of_round(settings, seed), model, settings.curriculum,
        max_tokens=settings.max_tokens, seed=seed, form=form,
    )  # fmt: skip
    return FreeTextVectorEnv(
        lanes, prompts=prompts.roots, tokenizer=model.tokenizer, verify=prompts.verify, max_tokens=settings.max_tokens,
        begin=form.begin(model), ends=ending.ends, barred=ending.barred, stops=form.stops,
        cut_counts=settings.cut_counts, context_length=context_length(model),
    )  # fmt: skip


def _recorder(env: Any, steps: int) -> Any:
    """Returns a callback that keeps every episode (root, return, nodes where there is a tree) and shows progress."""
    from stable_baselines3.common.callbacks import BaseCallback
    from tqdm import tqdm

    tree = getattr(env.unwrapped, "tree", None)

    class Recorder(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.played = Played()
            self.bar = tqdm(total=steps, unit=" tokens", leave=False, disable=not sys.stderr.isatty())

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.bar.update(min(self.num_timesteps, steps) - self.bar.n)
            rollout = self.locals["rollout"]
            returns, starts = rollout.returns, rollout.starts
            for episode, start in enumerate(starts.tolist()):
                root, path = int(rollout.roots[episode]), []
                if tree is not None and root >= 0:
                    node = int(tree.root_node[root])
                    for action in rollout.actions[start : start + int(rollout.lengths[episode])].tolist():
                        node = int(tree.first_child[node]) + action
                        path.append(node)
                self.played.add(root, path, float(returns[episode]), bool(rollout.correct[episode] > 0.5))

        def _on_training_end(self) -> None:
            self.bar.close()

    return Recorder()
