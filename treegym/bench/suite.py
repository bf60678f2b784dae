"""A suite: which agents meet which environments, on which seeds, with what budget. Experiments are data.

A suite is a TOML file::

    name = "mine"
    seeds = [0, 1, 2, 3, 4]
    checkpoints = 8                      # how often each run is evaluated, evenly over its budget
    budget = { env_steps = 50000 }       # or forward_passes, cpu_seconds, verdicts; the first to run out ends it

    [evaluation]
    split = "test"
    episodes = 100                       # prompts (or seeded episodes, in worlds without prompts); 0: all of the split

    [[envs]]
    name = "chains"
    id = "TokenTree-v0"
    kwargs = { reward = { verifier = 1.0 } }

    [[agents]]
    name = "PPO"
    agent = "ppo"                        # a registered name, a plug-in's name, or "package.module:Class"
    kwargs = { learning_rate = 1e-3 }
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from treegym.checks import is_number
from treegym.errors import ConfigError, DataError, suggest
from treegym.untrusted import read_text, toml_of

__all__ = ["BUDGET_UNITS", "METRICS", "AgentEntry", "EnvEntry", "Job", "Suite", "bundled_suites", "load_suite"]

BUDGET_UNITS = ("env_steps", "forward_passes", "cpu_seconds", "verdicts")
METRICS = ("correct", "return", "true", "proxy")
FORMAT = 2  # of suites and result folders; raised when their meaning changes


@dataclass(frozen=True, kw_only=True)
class EnvEntry:
    """One environment of a suite."""

    name: str
    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments that differ at evaluation
    metric: str = "correct"  # the episode column that is the score
    scale: tuple[float, float] = (0.0, 1.0)  # metric values that count as score 0 and score 1
    num_envs: int = 64
    budget: Mapping[str, float] = field(default_factory=dict)  # replaces the suite's, for all agents alike


@dataclass(frozen=True, kw_only=True)
class AgentEntry:
    """One agent of a suite."""

    name: str
    agent: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    per_env: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # env name: further keyword arguments


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: an agent, an environment and a seed, with everything a worker needs to know."""

    suite: str
    env: EnvEntry
    agent: AgentEntry
    seed: int
    budget: Mapping[str, float]
    checkpoints: int
    split: str
    episodes: int

    @property
    def id(self) -> str:
        return f"{_slug(self.env.name)}--{_slug(self.agent.name)}--{self.seed}"

    @property
    def fingerprint(self) -> str:
        """A hash of all that determines the run's result; a finished run is kept only while this stays the same."""
        return _digest(asdict(self) | {"suite": "", "format": FORMAT})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Job:
        env = {**value["env"], "scale": tuple(value["env"]["scale"])}
        return cls(**{**value, "env": EnvEntry(**env), "agent": AgentEntry(**value["agent"])})


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A whole comparison."""

    name: str
    envs: tuple[EnvEntry, ...]
    agents: tuple[AgentEntry, ...]
    seeds: tuple[int, ...]
    budget: Mapping[str, float]
    description: str = ""
    checkpoints: int = 8
    split: str = "test"
    episodes: int = 0

    def jobs(self) -> list[Job]:
        """Returns every run, seeds outermost: a benchmark that is cut short has seen all agents equally often."""
        return [
            Job(
                suite=self.name,
                env=env,
                agent=agent,
                seed=seed,
                budget=dict(env.budget or self.budget),
                checkpoints=self.checkpoints,
                split=self.split,
                episodes=self.episodes,
            )
            for seed in self.seeds
            for env in self.envs
            for agent in self.agents
        ]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"format": FORMAT}

    @property
    def fingerprint(self) -> str:
        return _digest(self.as_json())


def bundled_suites() -> dict[str, str]:
    """Returns the bundled suites: name -> one line about it."""
    folder = resources.files("treegym.bench") / "data"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name: load_suite(name).description for name in names}


def load_suite(name: str | os.PathLike[str], *, seeds: Sequence[int] | None = None) -> Suite:
    """Loads a bundled suite by name, or a suite from a TOML file; `seeds` replaces the suite's own."""
    text = os.fspath(name)
    bundled = resources.files("treegym.bench") / "data" / f"{text}.toml"
    try:
        if "/" not in text and not text.endswith(".toml") and bundled.is_file():
            source = bundled.read_text(encoding="utf-8")
        elif Path(text).exists():
            source = read_text(text, limit=2**20)
        else:
            folder = resources.files("treegym.bench") / "data"
            known = [entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")]
            raise ConfigError(f"{text!r} is neither a bundled suite nor a TOML file.{suggest(text, known)}")
        table = toml_of(source, where=f"suite {text}")
    except DataError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"suite {text}: cannot be read: {error.strerror or error}") from error
    if seeds is not None:
        table["seeds"] = list(seeds)
    return parse_suite(table, where=f"suite {text}")


def parse_suite(table: Mapping[str, Any], *, where: str) -> Suite:
    """Returns the suite that a TOML table describes, or says which key is wrong."""
    known = {"name", "description", "seeds", "checkpoints", "budget", "evaluation", "envs", "agents"}
    _only(table, known, where)
    envs = tuple(_env(entry, f"{where}, envs[{i}]") for i, entry in enumerate(_tables(table, "envs", where)))
    agents = tuple(_agent(entry, f"{where}, agents[{i}]") for i, entry in enumerate(_tables(table, "agents", where)))
    for kind, names in (("env", [e.name for e in envs]), ("agent", [a.name for a in agents])):
        slugs = [_slug(name) for name in names]
        if len(set(slugs)) < len(slugs):
            raise ConfigError(f"{where}: two {kind}s share a name; each needs one of its own (found {names})")
    for agent in agents:
        for name in agent.per_env:
            if name not in {env.name for env in envs}:
                raise ConfigError(
                    f"{where}: agent {agent.name!r} has per_env settings for the unknown env {name!r}."
                    f"{suggest(name, [env.name for env in envs])}"
                )
    seeds = table.get("seeds", [0, 1, 2, 3, 4])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and 0 <= s < 2**31 for s in seeds):
        raise ConfigError(f"{where}: seeds must be a list of non-negative integers, not {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{where}: seeds must differ from each other, found {seeds!r}")
    evaluation = table.get("evaluation", {})
    _only(evaluation, {"split", "episodes"}, f"{where}, evaluation")
    return Suite(
        name=_text(table, "name", where),
        description=str(table.get("description", "")),
        envs=envs,
        agents=agents,
        seeds=tuple(seeds),
        budget=_budget(table.get("budget", {}), where),
        checkpoints=_count(table, "checkpoints", 8, 1, where),
        split=str(evaluation.get("split", "test")),
        episodes=_count(evaluation, "episodes", 0, 0, where),
    )


def _env(entry: Mapping[str, Any], where: str) -> EnvEntry:
    _only(entry, set(EnvEntry.__dataclass_fields__), where)
    metric = str(entry.get("metric", "correct"))
    if metric not in METRICS:
        raise ConfigError(f"{where}: unknown metric {metric!r}.{suggest(metric, METRICS)}")
    scale = entry.get("scale", [0.0, 1.0])
    if not isinstance(scale, list) or len(scale) != 2 or not all(is_number(x) for x in scale) or scale[0] >= scale[1]:
        raise ConfigError(f"{where}: scale must be [low, high] with low < high, not {scale!r}")
    return EnvEntry(
        name=_text(entry, "name", where, default=entry.get("id")),
        id=_text(entry, "id", where),
        kwargs=_mapping(entry, "kwargs", where),
        evaluation=_mapping(entry, "evaluation", where),
        metric=metric,
        scale=(float(scale[0]), float(scale[1])),
        num_envs=_count(entry, "num_envs", 64, 1, where),
        budget=_budget(entry["budget"], where) if "budget" in entry else {},
    )


def _agent(entry: Mapping[str, Any], where: str) -> AgentEntry:
    _only(entry, set(AgentEntry.__dataclass_fields__), where)
    return AgentEntry(
        name=_text(entry, "name", where, default=entry.get("agent")),
        agent=_text(entry, "agent", where),
        kwargs=_mapping(entry, "kwargs", where),
        per_env=_mapping(entry, "per_env", where),
    )


def _budget(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"{where}: budget must name at least one of {', '.join(BUDGET_UNITS)}, as in {{env_steps = 50000}}"
        )
    _only(value, set(BUDGET_UNITS), f"{where}, budget")
    for unit, amount in value.items():
        if not is_number(amount) or amount <= 0:
            raise ConfigError(f"{where}: budget {unit} must be a positive number, not {amount!r}")
    return {unit: float(value[unit]) for unit in BUDGET_UNITS if unit in value}


def _tables(table: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(entry, Mapping) for entry in value):
        raise ConfigError(f"{where}: needs at least one [[{key}]] table")
    return value


def _only(table: Any, known: set[str], where: str) -> None:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table, found {table!r}")
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}.{suggest(key, known)}")


def _text(table: Mapping[str, Any], key: str, where: str, default: Any = None) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f'{where}: needs {key} = "..."')
    return value


def _mapping(table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {key} must be a table, not {value!r}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: {key} must hold only strings, finite numbers, booleans, lists and tables"
        ) from error
    return dict(value)


def _count(table: Mapping[str, Any], key: str, default: int, least: int, where: str) -> int:
    value = table.get(key, default)
    if type(value) is not int or value < least:
        raise ConfigError(f"{where}: {key} must be an integer of at least {least}, not {value!r}")
    return value


def _slug(name: str) -> str:
    """Returns a file name for a display name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "-" for c in name.lower()).strip("-.")
    return kept or _digest(name)[:8]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
