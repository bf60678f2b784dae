"""verl, SkyRL, prime-rl: prompts in the tables that their loaders read, and rewards with the arguments that they pass.

treegym export verl bundled --out train.parquet       then in verl's settings:
reward.custom_reward_function.path=pkg://treegym.integrations.formats
reward.custom_reward_function.name=compute_score
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError, require
from treegym.files import atomic_path
from treegym.integrations.scoring import TextReward, last_text
from treegym.tree.token_tree import Root

__all__ = ["FORMATS", "SKYRL_CLASS", "compute_score", "rows", "rubric_reward", "write_prompts"]

FORMATS = ("verl", "skyrl", "prime-rl")
SKYRL_CLASS = "treegym"  # the name of `treegym.integrations.skyrl.AnswerEnv` in SkyRL's registry
REWARD = "TREEGYM_REWARD"  # a reward's file, where the verifier alone is not meant: trainers pass names, not objects


def rows(form: str, source: str = "bundled", *, split: str = "train", **options: Any) -> list[dict[str, Any]]:
    """Returns one row per prompt, in the columns that a trainer expects."""
    if form not in FORMATS:
        raise ConfigError(f"there is no format {form!r}; known: {', '.join(FORMATS)}")
    roots = [root for root in load_prompts(source, **options).roots if split in ("all", root.split)]
    if not roots:
        raise DataError(f"{source} has no prompts of split {split!r}")
    missing = next((root.prompt for root in roots if not root.answer), None)
    if missing is not None:
        raise DataError(f"{source}: the prompt {missing[:80]!r} has no answer, and {form} compares with one")
    make = {"verl": _verl, "skyrl": _skyrl, "prime-rl": _prime}[form]
    return [make(root, i) for i, root in enumerate(roots)]


def _verl(root: Root, index: int) -> dict[str, Any]:
    return {
        "data_source": "treegym",
        "prompt": [{"role": "user", "content": root.prompt}],
        "ability": root.kind or "text",
        "reward_model": {"style": "rule", "ground_truth": root.answer},
        "extra_info": {"index": index, "split": root.split, "kind": root.kind, "prompt": root.prompt},
    }


def _skyrl(root: Root, index: int) -> dict[str, Any]:
    row = _verl(root, index)
    return {**row, "env_class": SKYRL_CLASS, "reward_spec": {"method": "rule", "ground_truth": root.answer}}


def _prime(root: Root, index: int) -> dict[str, Any]:
    about = {"split": root.split, "kind": root.kind}
    return {"question": root.prompt, "answer": root.answer, "task": root.kind or "text", "info": about}


def write_prompts(form: str, path: str | os.PathLike[str], source: str = "bundled", **options: Any) -> int:
    """Writes those rows as a Parquet file and returns how many."""
    pyarrow = require("pyarrow", extra="parquet", purpose="a Parquet file")
    parquet = require("pyarrow.parquet", extra="parquet", purpose="a Parquet file")
    if Path(path).suffix != ".parquet":
        raise ConfigError(f"{path}: the file's name must end in .parquet")
    table = pyarrow.Table.from_pylist(rows(form, source, **options))
    with atomic_path(path) as temporary:
        parquet.write_table(table, str(temporary))
    return int(table.num_rows)


@lru_cache(maxsize=8)
def _scorer(spec: str) -> TextReward:
    return TextReward(spec or None)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **more: Any
) -> float:
    """The reward function of verl, and of the environment that SkyRL is given: one text, one number.

    The environment variable TREEGYM_REWARD names a .json or .toml file with another reward than the verifier. A score
    that failed raises, since these trainers know no missing reward.
    """
    about = extra_info or {}
    [score] = _scorer(os.environ.get(REWARD, ""))(
        [str(about.get("prompt", ""))], [solution_str], [ground_truth], [str(about.get("kind", ""))]
    )
    if score is None:
        raise DataError(f"{data_source}: the text could not be scored: {solution_str[:80]!r}")
    return score


def rubric_reward(prompt: Any, completion: Any, answer: str, info: Mapping[str, Any] | None = None) -> float:
    """A reward function for a rubric of verifiers below 0.2, whose environments prime-rl reads such tables with.

    For ``verifiers.Rubric(funcs=[rubric_reward])``; its names are those that such a rubric passes.
    """
    about = {"prompt": last_text(prompt), "kind": (info or {}).get("kind", "")}
    return compute_score("treegym", last_text(completion), answer, about)
