"""What `treegym train` is told: flags first, then a TOML file, then defaults."""

from __future__ import annotations

import argparse
from typing import Any

from treegym.commands.switches import parse_switches
from treegym.errors import ConfigError, suggest
from treegym.untrusted import read_text, toml_of

__all__ = ["DEFAULTS", "fill"]

DEFAULTS: dict[str, Any] = {
    "agent": "ppo", "env": "TokenTree-v0", "steps": 100_000, "every": 20_000, "keep": 3, "threads": 1,
}  # fmt: skip
_COUNTS = ("steps", "every", "keep", "threads", "eval_every", "patience", "walks_every")
_KINDS: dict[str, tuple[type, str]] = {
    "agent": (str, "a text"), "env": (str, "a text"), "policy": (str, "a text"), "curriculum": (str, "a text"),
    "env_args": (dict, "a table"), "switches": (dict, "a table"),
    **dict.fromkeys(_COUNTS, (int, "a whole number")),
}  # fmt: skip


def fill(args: argparse.Namespace) -> None:
    """Gives every argument that no flag set the value in the settings file, or its default."""
    values: dict[str, Any] = {}
    if args.config is not None:
        values = toml_of(read_text(args.config, limit=2**20), where=str(args.config))
    for name, value in values.items():
        if name not in _KINDS:
            raise ConfigError(f"{args.config}: unknown setting {name!r}.{suggest(name, _KINDS)}")
        kind, told = _KINDS[name]
        if type(value) is not kind:
            raise ConfigError(f"{args.config}: {name} is {value!r}; {told} was expected")
    for name in _KINDS.keys() - {"env_args", "switches"}:
        if getattr(args, name) is None:
            setattr(args, name, values.get(name, DEFAULTS.get(name)))
    args.env_args = {**values.get("env_args", {}), **parse_switches(args.env_arg, "--env-arg")}
    if args.curriculum is not None:
        args.env_args["curriculum"] = args.curriculum
    args.switches = {**values.get("switches", {}), **parse_switches(args.switches, "--set")}
    for name in _COUNTS:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.patience is not None and args.eval_every is None:
        raise ConfigError("--patience counts validations, and none were asked for: add --eval-every STEPS")
