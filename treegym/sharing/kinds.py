"""What can be shared: how each kind is recognised, which of its files go along, and how it is checked on arrival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError
from treegym.untrusted import read_json

__all__ = ["KINDS", "Kind", "content_of", "kind_of"]

# text, figures and arrays: nothing that a program, a browser or a shell would run
SUFFIXES = {
    ".tree", ".zip", ".safetensors", ".json", ".jsonl", ".gz", ".csv", ".md", ".txt", ".toml", ".png", ".parquet"
}  # fmt: skip
NOT_OURS = {"README.md", "treegym.json", ".gitattributes"}  # written anew for the hub


@dataclass(frozen=True)
class Kind:
    """One sort of thing that is shared."""

    name: str
    noun: str  # for people
    looks_like: Callable[[Path], bool]
    examine: Callable[[Path], dict[str, Any]]  # checks it, and returns what the card tells; raises DataError
    load: str  # how it is used, with {name} for its place on the hub


def kind_of(path: Path) -> Kind:
    """Returns what a file or folder is."""
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder")
    for kind in KINDS.values():
        if kind.looks_like(path):
            return kind
    raise ConfigError(
        f"{path} is nothing that can be shared; expected a .tree file, a checkpoint (.zip), a folder of "
        "`treegym bench`, `treegym iterate` or `treegym optimize`, or a table of optimisations (.json)"
    )


def content_of(path: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns the files that are shared, by their name on the hub, and those that are left out."""
    if path.is_file():
        return {path.name: path}, []
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    named = {file.relative_to(path).as_posix(): file for file in files}
    taken = {
        name: file
        for name, file in named.items()
        if file.suffix in SUFFIXES
        and name not in NOT_OURS
        and not any(part.startswith(".") for part in Path(name).parts)
    }
    return taken, sorted(set(named) - set(taken))


def _examine_tree(path: Path) -> dict[str, Any]:
    from treegym.tree.editing import statistics
    from treegym.tree.token_tree import TokenTree

    tree = TokenTree.open(path)
    tree.validate()
    told = {name: tree.header.get(name) for name in ("primary", "teacher_models", "growth", "source", "seed")}
    prompts = {"count": tree.num_roots, "kinds": sorted(set(tree.kinds))[:50]}
    return {**told, "prompts": prompts, "statistics": statistics(tree)}


def _is_checkpoint(path: Path) -> bool:
    if path.suffix != ".zip" or not path.is_file():
        return False
    with path.open("rb") as file:  # what is in it is looked at by `describe`, which bounds it
        return file.read(4) == b"PK\x03\x04"


def _examine_agent(path: Path) -> dict[str, Any]:
    from treegym.agents.checkpoint import describe

    told = describe(path)
    kept = ("algorithm", "policy", "policy_kwargs", "settings", "env", "seed", "counters")
    return {name: told.get(name) for name in kept}


def _examine_bench(path: Path) -> dict[str, Any]:
    from treegym.bench.results import ResultFolder, strict_json

    folder = ResultFolder(path)
    suite = folder.suite()
    about: dict[str, Any] = {"suite": suite.name, "envs": [env.name for env in suite.envs], "seeds": list(suite.seeds)}
    board = path / "leaderboard.json"
    if board.is_file():
        rows = strict_json(board).get("agents")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{board} is damaged: it lists no agents")
        about["leaderboard"] = [{key: row.get(key) for key in ("name", "iqm", "regret", "runs")} for row in rows]
    return about


def _examine_iterate(path: Path) -> dict[str, Any]:
    settings = read_json(path / "settings.json")
    rows = [read_json(file) for file in sorted(path.glob("round-*/row.json"))]
    if not isinstance(settings, dict) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: a run of `treegym iterate` has settings.json and round-*/row.json")
    kept = ("round", "reward", "accuracy", "low", "high")
    return {"settings": settings, "rounds": [{key: row.get(key) for key in kept} for row in rows]}


def _examine_optimization(path: Path) -> dict[str, Any]:
    if path.is_file():
        from treegym.optimize.table import load_table

        table = load_table(path)
        return {"modules": [module.title for module in table.modules], "measurements": int(table.size)}
    result = read_json(path / "result.json")
    if not isinstance(result, dict) or "selected_strategy" not in result:
        raise DataError(f"{path}: its result.json is not a result of `treegym optimize`")
    return {"selected": result["selected_strategy"], "figures": result.get("performance_metrics")}


def _is_table(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        held = read_json(path)
    except DataError:
        return False
    return isinstance(held, dict) and {"format", "modules"} <= set(held)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("tree", "token tree", lambda p: p.is_file() and p.suffix == ".tree", _examine_tree,
             'import gymnasium as gym\nimport treegym\nenv = gym.make("TokenTree-v0", tree="hf:{name}")'),
        Kind("agent", "agent", lambda p: p.is_file() and _is_checkpoint(p), _examine_agent,
             'from treegym.agents import {algorithm}\nagent = {algorithm}.load("hf:{name}")\n'
             "action, _ = agent.predict(observation, deterministic=True)"),
        Kind("bench", "benchmark run", lambda p: (p / "suite.json").is_file(), _examine_bench,
             "$ treegym pull {name}\n$ treegym bench verify {folder}"),
        Kind("iterate", "run of treegym iterate",
             lambda p: (p / "settings.json").is_file() and any(p.glob("round-*/row.json")), _examine_iterate,
             "$ treegym pull {name}\n$ treegym serve {folder}/round-001/model"),
        Kind("optimization", "optimisation record", lambda p: (p / "result.json").is_file() or _is_table(p),
             _examine_optimization, "$ treegym pull {name}"),
    )
}  # fmt: skip
