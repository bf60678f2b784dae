"""CandidateSelection-v0 and OptimizationPipeline-v0, one episode at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium.envs.registration import EnvSpec

from treegym.checks import one_of
from treegym.envs.selection import render
from treegym.envs.selection.pipeline_world import PipelineWorld
from treegym.envs.selection.selection_world import SelectionWorld
from treegym.envs.selection.world import TERMS, World
from treegym.envs.single import RENDER_MODES, NativeEnv, check_keywords, checked_render_mode
from treegym.errors import ConfigError

__all__ = ["PIPELINE", "SELECTION", "CandidateSelectionEnv", "OptimizationPipelineEnv", "Worlds"]

LIVE = ("model", "inputs", "strategies", "seconds")  # keywords that go with source="measured"
_SHARED = (
    "source", "table", "split", "objective_weights", "evaluation_cost", "illegal_penalty", "max_iterations",
    "performance_threshold", "tolerance", "reward_zones", *LIVE,
)  # fmt: skip


class Worlds(NamedTuple):
    """The worlds of one environment, and the keyword arguments they take."""

    name: str
    keywords: tuple[str, ...]
    recorded: Callable[..., World]
    measured: str  # the live one, by name: it loads torch

    def make(self, settings: Mapping[str, Any]) -> World:
        """Returns the world of an environment's keyword arguments; checks that those of a live module go together."""
        chosen = dict(settings)
        source = one_of("source", chosen.pop("source", "recorded"), ("recorded", "measured"))
        if source == "recorded":
            given = [name for name in LIVE if name in chosen]
            if given:
                raise ConfigError(f"{given[0]!r} goes with source='measured'; recorded candidates need none")
            return self.recorded(**chosen)
        if "model" not in chosen:
            raise ConfigError("source='measured' needs model='my_module:build', the module to measure")
        from treegym.envs.selection import live

        world: World = getattr(live, self.measured)(**chosen)
        return world


SELECTION = Worlds(
    "CandidateSelection", (*_SHARED, "num_candidates", "sets", "convergence_threshold"), SelectionWorld, "MeasuredWorld"
)
PIPELINE = Worlds("OptimizationPipeline", _SHARED, PipelineWorld, "MeasuredPipelineWorld")


class WorldEnv(NativeEnv):
    """One lane of a world."""

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 2}  # noqa: RUF012 (as the base declares it)
    WORLDS: ClassVar[Worlds]

    def __init__(
        self, *, multi_objective: bool = False, render_mode: str | None = None, world: Any = None, **settings: Any
    ) -> None:
        check_keywords(self.NAME, settings, (*self.WORLDS.keywords, "multi_objective", "render_mode"))
        self.render_mode = checked_render_mode(render_mode)
        self.world: World = self.WORLDS.make(settings) if world is None else world
        self.multi_objective = multi_objective
        self.lanes = self.world.lanes(1)
        self.layout = self.world.layout
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space
        self.reward_space = self.world.reward_space
        self._action = np.zeros(1, np.int64)
        self._spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """The spec it was made from; marked nondeterministic where candidates are measured live."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and self.world.live and not spec.nondeterministic:
            spec = copy.deepcopy(spec)
            spec.nondeterministic = True
        self._spec = spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode at a random root of the split, or at ``options={"root": i}``."""
        seen = self._begin(seed, options)
        return seen, self._info(seen, np.zeros(len(TERMS), np.float32), illegal=False, success=False)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], Any, bool, bool, dict[str, Any]]:
        """Takes one action; one that is not legal costs a penalty and changes nothing else."""
        if self.lanes.done[0]:
            raise ConfigError("step() was called on an episode that has ended; call reset() first")
        self._action[0] = action
        outcome = self.lanes.advance(self._action, next_step_reset=False)
        illegal = bool(outcome.illegal[0])
        seen = self._see()
        info = self._info(seen, outcome.vector[0], illegal=illegal, success=bool(outcome.success[0]))
        reward: Any = float(outcome.reward[0])
        if self.multi_objective:
            reward = outcome.vector[0] - np.float32(self.world.illegal_penalty if illegal else 0.0)
        if self.render_mode == "human":
            self.render()
        return seen, reward, bool(outcome.terminated[0]), bool(outcome.truncated[0]), info

    def _info(self, seen: dict[str, np.ndarray], vector: np.ndarray, *, illegal: bool, success: bool) -> dict[str, Any]:
        weights = [*self.world.weights.tolist(), 1.0]
        return {
            "action_mask": seen["action_mask"].copy(),
            "root": int(self.lanes.root[0]),
            "text": self.world.text(self.lanes.place[0]),
            "is_success": success,
            "illegal_action": illegal,
            "reward_terms": {
                name: {"raw": raw, "weight": weight}
                for name, raw, weight in zip(TERMS, vector.tolist(), weights, strict=True)
            },
            "vector_reward": vector.copy(),
        }

    def clone_state(self) -> dict[str, Any]:
        """Returns the state of the episode, for planners to come back to."""
        return self.lanes.state()

    def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Goes back to a cloned state and returns its observation."""
        self.lanes.restore(state)
        return self._see()

    def _drawing(self) -> tuple[Any, np.ndarray]:
        return render, self.lanes.place[0]


class CandidateSelectionEnv(WorldEnv):
    """At every step one candidate is measured, at a cost, or committed to; the reward is the gain in fitness.

    Action i measures candidate i the first time and commits to it the second time; the last action keeps the original.
    A root is a module with a set of candidates.

    Keyword arguments (all JSON-serialisable):
        source: "recorded" (a table of real measurements, deterministic) or "measured" (live, with `model`).
        model: ``"my_module:build"`` or ``"zoo:encoder/1"``, what to measure live; `inputs`: ``"my_module:inputs"``.
        table: a recorded table; None for the one that comes with the package.
        split: which modules: train, validation, test or all.
        num_candidates: C; there are C + 1 actions.
        sets: sets of candidates that are drawn of every module.
        objective_weights: weights of speed, memory and accuracy in the fitness.
        evaluation_cost: what measuring a candidate costs, in units of fitness.
        illegal_penalty: what an action that names no candidate costs.
        max_iterations: the number of steps; using it up truncates.
        performance_threshold: a measured fitness from which the candidate is committed to at once (None: never).
        convergence_threshold: two measurements in a row that improve the best by less end the episode with a commit
            to it (None: never).
        tolerance: how far from the optimum's fitness a commit still counts as success.
        reward_zones: pairs [reward, shaped reward] of a piecewise linear map of every step's scalar reward.
        multi_objective: return the gains in speed, memory and accuracy and the cost instead of their weighted sum.
        render_mode: "ansi", "rgb_array" or "human".
    """

    WORLDS: ClassVar = SELECTION
    NAME: ClassVar = SELECTION.name


class OptimizationPipelineEnv(WorldEnv):
    """Action s adds strategy s to the ensemble, which is measured, at a cost; the last action stops.

    The reward of a step is the change in fitness less the cost: the return is the fitness gained less all costs.
    Only ensembles that were recorded can be built (``source="measured"``: those of up to four strategies that apply);
    they are the same whichever way round one gets to them. A root is a module. Keyword arguments are those of
    `CandidateSelectionEnv` that apply.
    """

    WORLDS: ClassVar = PIPELINE
    NAME: ClassVar = PIPELINE.name
