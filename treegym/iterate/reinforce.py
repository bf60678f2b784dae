"""A round of reinforcement: PPO, DAPO or VAPO trains the primary on a tree or on free text."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from treegym.iterate.experts import Played
from treegym.iterate.imitate import check_weights
from treegym.iterate.settings import DEFAULTS, IterateSettings

__all__ = ["reinforce"]

LANES = 256


def reinforce(
    settings: IterateSettings, source: str, tree: Path, seed: int, *, log: Path
) -> tuple[Played, Any, str | None]:
    """Trains the primary by reinforcement; returns the episodes, the model and, if nothing was learned, why.

    Args:
        settings: of the run.
        source: where the primary is.
        tree: the round's tree, if it walks one.
        seed: of the round.
        log: where TensorBoard finds the learner's figures, if it is installed.
    """
    import treegym.agents as agents
    from treegym.models import load_model

    model = load_model(source)
    env = _environment(settings, model, tree, seed)
    policy: dict[str, Any] = {"model": source, **({"anchor": settings.anchor} if settings.on_tree else {})}
    rate = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
    agent = getattr(agents, settings.algorithm.upper())(
        "LMPolicy", env, seed=seed, device="cpu", policy_kwargs={**policy, **settings.policy},
        tensorboard_log=str(log) if importlib.util.find_spec("tensorboard") else None,
        **{**DEFAULTS[settings.algorithm], **rate, **settings.options},
    )  # fmt: skip
    recorder = _recorder(env, settings.steps)
    agent.learn(settings.steps, callback=recorder, tb_log_name=f"round-{seed % 1000:03d}")
    trained = agent.policy.merged()
    check_weights(trained, f"{settings.steps} tokens of {settings.algorithm}")
    note = None if _changed(model.model, trained) else _why_nothing(settings, agent, recorder.played)
    model.model.load_state_dict(trained.state_dict())
    return recorder.played, model, note


def _changed(before: Any, after: Any) -> bool:
    """Whether a weight of a model differs."""
    old = before.state_dict()
    return any(not torch.equal(old[name], value.to(old[name])) for name, value in after.state_dict().items())


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


def _environment(settings: IterateSettings, model: Any, tree: Path, seed: int) -> Any:
    import gymnasium as gym

    from treegym.envs.free_text import FreeTextVectorEnv
    from treegym.iterate.curriculum import practised_prompts
    from treegym.iterate.evaluate import load_answered

    if settings.on_tree:
        return gym.make_vec(
            "TokenTree-v0", num_envs=LANES, tree=str(tree), view="tokens", reward=settings.reward,
            max_tokens=settings.max_tokens, curriculum=settings.curriculum, autoreset_mode="Disabled",
        )  # fmt: skip
    prompts = practised_prompts(
        load_answered(settings.prompts, seed=seed),
        model,
        settings.curriculum,
        max_tokens=settings.max_tokens,
        seed=seed,
    )
    return FreeTextVectorEnv(
        LANES, prompts=prompts.roots, tokenizer=model.tokenizer, verify=prompts.verify, max_tokens=settings.max_tokens
    )


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
