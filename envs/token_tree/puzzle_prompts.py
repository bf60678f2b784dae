"""Prompts that reasoning-gym generates: its puzzles with their difficulty as options.

reasoning-gym:chain_sum,size=500,min_terms=2,max_terms=4
reasoning-gym:chain_sum,operators=["+","*"]             a list is written as in JSON
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from treegym.errors import ConfigError, require, suggest
from treegym.tree.token_tree import Root

__all__ = ["puzzles"]

USUAL_SIZE = 100


def puzzles(name: str, given: Mapping[str, str], seed: int) -> tuple[list[Root], Callable[[Root, str], float]]:
    """Returns the prompts of one of reasoning-gym's generators, and its own verifier."""
    library = require("reasoning_gym", extra="prompts", purpose="prompts of reasoning-gym")
    known = require("reasoning_gym.factory", extra="prompts", purpose="prompts of reasoning-gym").DATASETS
    if name not in known:
        raise ConfigError(f"reasoning-gym:{name}: there is no such generator.{suggest(name, known)}")
    options = {"seed": seed, "size": USUAL_SIZE, **_options(name, known[name][1], given)}
    try:
        dataset = library.create_dataset(name, **options)
        entries = list(dataset)
    except Exception as error:  # a stranger's code, which says in many ways that it cannot go by its options
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"reasoning-gym:{name} makes no prompts with {shown}: {reason}") from error
    roots = [
        Root(str(entry["question"]), str(entry["answer"]), kind=name, extra={"entry": index})
        for index, entry in enumerate(entries)
    ]

    def verify(root: Root, answer: str) -> float:
        return float(dataset.score_answer(answer=answer.strip(), entry=entries[root.extra["entry"]]))

    return roots, verify


def _options(name: str, config: Any, given: Mapping[str, str]) -> dict[str, Any]:
    """Returns the options of a generator as values: whole or other numbers, true or false, texts, lists."""
    usual = {field.name: field.default for field in dataclasses.fields(config)}
    found: dict[str, Any] = {}
    for key, text in given.items():
        where = f"reasoning-gym:{name}"
        if key not in usual:
            raise ConfigError(f"{where} has no option {key!r}, but {', '.join(usual)}.{suggest(key, usual)}")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        flag, number = isinstance(usual[key], bool), isinstance(usual[key], int | float)
        if flag and not isinstance(value, bool):
            raise ConfigError(f"{where}: {key} is {text!r}; true or false was expected")
        if number and not flag and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"{where}: {key} is {text!r}; a number was expected")
        found[key] = text if isinstance(usual[key], str) else value
    return found
