"""The environment ids, one line each; entry points are strings, so registering imports nothing."""

from __future__ import annotations

from typing import NamedTuple

from gymnasium.envs.registration import register, registry

__all__ = ["ENVS", "register_envs"]


class EnvEntry(NamedTuple):
    entry_point: str
    vector_entry_point: str
    kwargs: dict[str, object]
    summary: str


_TREE = "treegym.envs.token_tree"
_SELECTION = "treegym.envs.selection"

ENVS: dict[str, EnvEntry] = {
    "TokenTree-v0": EnvEntry(
        f"{_TREE}.env:TokenTreeEnv", f"{_TREE}.vector:TokenTreeVectorEnv", {}, "walk a tree of tokens grown by teachers"
    ),
    "MO-TokenTree-v0": EnvEntry(
        f"{_TREE}.env:TokenTreeEnv",
        f"{_TREE}.vector:TokenTreeVectorEnv",
        {"multi_objective": True},
        "the same walk with a reward for every objective",
    ),
    "CandidateSelection-v0": EnvEntry(
        f"{_SELECTION}.env:CandidateSelectionEnv",
        f"{_SELECTION}.vector:CandidateSelectionVectorEnv",
        {},
        "choose how to optimise a PyTorch module, on recorded or live measurements",
    ),
    "MO-CandidateSelection-v0": EnvEntry(
        f"{_SELECTION}.env:CandidateSelectionEnv",
        f"{_SELECTION}.vector:CandidateSelectionVectorEnv",
        {"multi_objective": True},
        "the same choice with a reward for every objective",
    ),
    "OptimizationPipeline-v0": EnvEntry(
        f"{_SELECTION}.env:OptimizationPipelineEnv",
        f"{_SELECTION}.vector:OptimizationPipelineVectorEnv",
        {},
        "build an ensemble of optimisations, strategy by strategy",
    ),
    "MO-OptimizationPipeline-v0": EnvEntry(
        f"{_SELECTION}.env:OptimizationPipelineEnv",
        f"{_SELECTION}.vector:OptimizationPipelineVectorEnv",
        {"multi_objective": True},
        "the same building with a reward for every objective",
    ),
}


def register_envs() -> None:
    """Registers every id with Gymnasium; calling it again changes nothing."""
    for env_id, entry in ENVS.items():
        if env_id not in registry:
            register(
                id=env_id,
                entry_point=entry.entry_point,
                vector_entry_point=entry.vector_entry_point,
                kwargs=dict(entry.kwargs),
                disable_env_checker=bool(entry.kwargs.get("multi_objective")),  # it insists on scalar rewards
            )
