"""TestTimeCompute-v0, one episode at a time and as a native batch: how many tokens is an answer worth?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from treegym.envs.compute.world import ComputeWorld
from treegym.envs.world_env import WorldEnv
from treegym.envs.world_vector import WorldVectorEnv

__all__ = ["TestTimeComputeEnv", "TestTimeComputeVectorEnv"]


class _ComputeWorlds(NamedTuple):
    name: str
    keywords: tuple[str, ...]

    def make(self, settings: Mapping[str, Any]) -> ComputeWorld:
        """Returns the world of an environment's keyword arguments."""
        return ComputeWorld(**settings)


COMPUTE = _ComputeWorlds("TestTimeCompute", tuple(inspect.signature(ComputeWorld).parameters))
KEYWORDS = (*COMPUTE.keywords, "multi_objective", "render_mode", "num_envs", "max_episode_steps", "autoreset_mode")


class TestTimeComputeEnv(WorldEnv):
    """A model's samples are laid out as chains; the agent decides which to go on with and when to answer.

    Actions, with M branches: 0 opens a branch (and says its first segment), 1 answers, 2 + i goes on with branch i,
    2 + M + i asks what it would answer now, 2 + 2 M + i drops it, 2 + 3 M + i opens a branch that shares what branch i
    has said so far (of a finished one all but its last segment). Chains are replayed without replacement: within an
    episode none comes twice. The reward is 1 for a correct answer less the cost of all tokens. A root is a prompt.

    Keyword arguments (all JSON-serialisable):
        pool: a `.tree` file of samples or a closed one, ``"tree:synthetic:roots=..."``, ``"synthetic:prompts=64,..."``
            for made-up chains; None for the bundled tree.
        split: which prompts: train, validation, test or all.
        max_branches: M.
        token_cost: what the tokens of an average chain cost, in units of a correct answer; two numbers are a range, of
            which every episode draws a price (even by ratio), so that one controller learns all of them.
        budget: a hard limit on tokens, in average chains (None: none); what it does not cover is illegal.
        probe_cost: tokens of asking for an answer.
        aggregate: how the answer is made: "plurality" of all answers shown, "weighted" by the scores of finished texts,
            or the "best" of these scores; of equals the branch that was opened first.
        segment: tokens of a segment, of chains that come from a tree.
        samples: chains per prompt that are drawn from a closed tree, by `policy` ("primary", "uniform" or a teacher),
            with the seed `pool_seed`.
        known: what is known of a prompt beforehand: its "context" (a vector), its "kind" of task, or "nothing".
        max_iterations: the number of steps; using it up truncates.
        illegal_penalty: what an illegal action costs.
        multi_objective: return (correct, -tokens in average chains) instead of their weighted sum.
        render_mode: "ansi", "rgb_array" or "human".
    """

    __test__ = False  # no test class, in spite of its name
    WORLDS: ClassVar = COMPUTE
    NAME: ClassVar = COMPUTE.name


class TestTimeComputeVectorEnv(WorldVectorEnv):
    """B episodes of TestTimeCompute at once."""

    __test__ = False
    WORLDS: ClassVar = COMPUTE
    NAME: ClassVar = COMPUTE.name
