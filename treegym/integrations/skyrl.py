"""SkyRL: its environment of one turn, which pays an answer with a reward of ours.

treegym export skyrl bundled --out train.parquet      writes rows whose ``env_class`` is "treegym"
import treegym.integrations.skyrl                     in the entry point of the training: registers that class
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skyrl_gym import register
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
from skyrl_gym.envs.registration import registry

from treegym.errors import DataError
from treegym.integrations.formats import SKYRL_CLASS, compute_score

__all__ = ["AnswerEnv"]


class AnswerEnv(BaseTextEnv):
    """One prompt, one answer, one reward: the verifier's, or that of the file TREEGYM_REWARD names.

    Args:
        env_config: SkyRL's settings of the class; there are none.
        extras: the other columns of the prompt's row, as SkyRL passes them.
    """

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        row = extras or {}
        try:
            self.answer = str(row["reward_spec"]["ground_truth"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"the row's columns are {sorted(row)}, and reward_spec with a ground_truth was expected: "
                "write the table with `treegym export skyrl`"
            ) from error
        self.about: Mapping[str, Any] = row.get("extra_info") or {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Scores the answer and ends the episode; a score that failed raises."""
        reward = compute_score("treegym", action, self.answer, self.about)
        return BaseTextEnvStepOutput(observations=[], reward=reward, done=True, metadata={})


if SKYRL_CLASS not in registry:  # SkyRL refuses a name that it knows, and workers may import this again
    register(id=SKYRL_CLASS, entry_point="treegym.integrations.skyrl:AnswerEnv")
