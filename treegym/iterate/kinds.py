"""Settings of wrong kinds, or out of their range, are refused as soon as they are there."""

from __future__ import annotations

from typing import Any

from treegym.checks import number, whole
from treegym.errors import ConfigError

__all__ = ["LARGEST_SEED", "check_kinds"]

LARGEST_SEED = 4_000_000  # a round's seed is 1000 times as much and its number, and must fit 32 bits
COUNTS = ("samples", "rounds", "steps", "simulations", "epochs", "batch", "max_tokens")
TEXTS = ("model", "prompts", "evaluate", "format", "extract")
TEXTS_OR_NONE = ("system", "template", "between")
# What a round decides itself, and may not be given a second time.
OURS = {
    "options": ("policy", "env", "policy_kwargs", "seed", "device", "tensorboard_log"),
    "policy": ("model",),
}


def check_kinds(settings: Any) -> None:
    """Raises ConfigError for the first of the `IterateSettings` that is of a wrong kind or out of its range."""
    for name in COUNTS:
        whole(name, getattr(settings, name), low=1)
    whole("seed", settings.seed, low=0, high=LARGEST_SEED)
    whole("reference", settings.reference, low=0)
    number("anchor", settings.anchor, low=0)
    number("imitation_rate", settings.imitation_rate, low=0)
    if isinstance(settings.learning_rate, str):
        from treegym.agents.schedules import as_schedule

        as_schedule(settings.learning_rate, name="learning_rate")
    elif settings.learning_rate is not None:
        number("learning_rate", settings.learning_rate, low=0)
    for name in TEXTS:
        value = getattr(settings, name)
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{name} is {value!r}; it must be a text, such as {type(settings)().as_json()[name]!r}")
    for name in TEXTS_OR_NONE:
        if (value := getattr(settings, name)) is not None and not isinstance(value, str):
            raise ConfigError(f"{name} is {value!r}; it must be a text")
    stops: Any = settings.stops
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ConfigError(f"stops is {stops!r}; it must be a list of texts, such as ['\\n']")
    if not isinstance(settings.cut_counts, bool):
        raise ConfigError(f"cut_counts is {settings.cut_counts!r}; it must be true or false")
    for name in ("evaluate_between", "prompts_each"):
        if getattr(settings, name) is not None:
            whole(name, getattr(settings, name), low=1)
    if settings.tree is not None and not isinstance(settings.tree, str):
        raise ConfigError(f"tree is {settings.tree!r}; it must be the path of a .tree file")
    if settings.grow is not None and not isinstance(settings.grow, bool):
        raise ConfigError(f"grow is {settings.grow!r}; it must be true or false")
    teachers: Any = settings.teachers
    if not isinstance(teachers, list) or not all(isinstance(name, str) for name in teachers):
        raise ConfigError(f"teachers is {teachers!r}; it must be a list of names or directories of models")
    for name, taken in OURS.items():
        value = getattr(settings, name)
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{name} is {value!r}; it must be a table of names and values, such as [{name}] in TOML")
        for key in taken:
            if key in value:
                raise ConfigError(f"{name} holds {key!r}, which every round sets itself; leave it out of {name}")
