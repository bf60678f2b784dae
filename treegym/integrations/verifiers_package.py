"""Writes a package that `vf-eval` finds by name: verifiers imports a taskset as a module at the top, not from ours."""

from __future__ import annotations

import json
import keyword
import sys
from importlib.util import find_spec
from pathlib import Path

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write

__all__ = ["write_package"]

PROJECT = """[project]
name = "{name}"
version = "0.1.0"
description = "Prompts and rewards of TreeGym as a taskset of verifiers"
requires-python = ">=3.11"
dependencies = ["treegym", "verifiers>=0.4"]

[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
py-modules = ["{name}"]
"""

MODULE = """import verifiers.v1 as vf

from treegym.integrations.verifiers import OneAnswer, PromptTask, PromptTaskset, SourceConfig

__all__ = ["Harness", "Taskset"]


class Source(SourceConfig):
    prompts: str = {prompts}
    split: str = {split}


class Taskset(PromptTaskset, vf.Taskset[PromptTask, Source]):
    pass


class Harness(OneAnswer):
    pass
"""


def write_package(folder: Path, source: str, *, split: str = "all") -> int:
    """Writes it into a folder, whose name is the taskset's; returns how many prompts it has.

    Args:
        folder: must not exist; it ends in the name that `vf-eval` is given.
        source: the prompts, as for ``--prompts``; what is not a file is named, not copied.
        split: train, validation, test or all.
    """
    name = folder.name.replace("-", "_").lower()
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"--out is {folder}; its last part names a module, so letters, digits and _ are expected")
    if name in sys.stdlib_module_names or find_spec(name) is not None:
        raise ConfigError(f"--out is {folder}; a module {name!r} is installed already, so choose another name")
    if folder.exists():
        raise ConfigError(f"{folder} exists already; choose another --out")
    chosen = [root for root in load_prompts(source).roots if split in ("all", root.split)]
    if not chosen:
        raise ConfigError(f"{source} has no prompts of split {split!r}")
    missing = next((root.prompt for root in chosen if not root.answer), None)
    if missing is not None:
        raise DataError(f"{source}: the prompt {missing[:80]!r} has no answer, and the verifier compares with one")
    if Path(source.partition("#")[0]).exists():
        source = str(Path(source.partition("#")[0]).resolve()) + source[len(source.partition("#")[0]) :]
    folder.mkdir(parents=True)
    atomic_write(folder / "pyproject.toml", PROJECT.format(name=name))
    atomic_write(folder / f"{name}.py", MODULE.format(prompts=json.dumps(source), split=json.dumps(split)))
    return len(chosen)
