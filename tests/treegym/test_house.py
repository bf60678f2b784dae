"""The house: imports run downwards only, importing is cheap, the public face is what it says."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import treegym

ROOT = Path(treegym.__file__).resolve().parent.parent
FLOORS = {"tree": 1, "models": 2, "search": 3, "rewards": 3, "optimize": 4, "envs": 5, "agents": 6}
# floor 0: everybody may use them
FOUNDATIONS = {
    "checks",
    "display",
    "errors",
    "files",
    "folders",
    "hearsay",
    "hub",
    "locks",
    "registration",
    "registry",
    "remote",
    "shape",
    "untrusted",
}
APPLICATION = 7


def _floor(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "treegym":
        return None
    if len(parts) == 1:
        return 0  # the package itself: importing it registers ids and loads nothing
    if parts[1] in FOUNDATIONS:
        return 0
    return FLOORS.get(parts[1], APPLICATION)


def _imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "." * node.level + (node.module or "")))
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names if node.module == "treegym"]
    return found


def upward_imports(room: str, path: Path) -> list[str]:
    """Returns the imports of a file that run upwards, or sideways between rooms of one floor."""
    own = FLOORS[room]
    relative = [name for _, name in _imports(path) if name.startswith(".")]
    assert not relative, f"{path} imports {relative[0]} relatively; write the whole name"
    return [
        f"{path}:{line} imports {name}"
        for line, name in _imports(path)
        if (floor := _floor(name)) is not None and (floor > own or (floor == own and name.split(".")[1] != room))
    ]


@pytest.mark.parametrize("room", FLOORS)
def test_imports_run_downwards(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    assert [line for path in files for line in upward_imports(room, path)] == []


def test_the_import_test_can_fail(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f():\n    from treegym.agents import PPO\n")
    assert upward_imports("envs", tmp_path / "bad.py")
    (tmp_path / "bad.py").write_text("import treegym.rewards\n")
    assert upward_imports("search", tmp_path / "bad.py")
    (tmp_path / "bad.py").write_text("from treegym.errors import ConfigError\nimport treegym.models\n")
    assert not upward_imports("search", tmp_path / "bad.py")


def circle_of_imports(files: Mapping[str, Path]) -> list[str]:
    """Returns modules that import each other in a circle, be it within functions or for types only; [] for none."""
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):  # of a package its file, or of a file a part
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[name] |= {part if part in files else str(node.module) for part in parts}
        graph[name] &= files.keys() - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _files() -> dict[str, Path]:
    found = {}
    for room in (*FLOORS, "treegym"):
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts if room == "treegym" else ("treegym", *parts)).removesuffix(".__init__")] = path
    return found


def test_files_import_each_other_in_no_circle(tmp_path: Path) -> None:
    files = _files()
    assert len(files) > 300
    assert circle_of_imports(files) == []
    for name, source in (("a", "def f():\n    from b import c"), ("b", "import a"), ("d", "from a import f")):
        (tmp_path / f"{name}.py").write_text(source)
    circle = circle_of_imports({name: tmp_path / f"{name}.py" for name in "abd"})
    assert set(circle) == {"a", "b"}


def circle_of_rooms(files: Mapping[str, Path]) -> list[str]:
    """Returns rooms side by side in one folder that import each other in a circle; [] for none.

    A room and the files of the folder above it may use each other: there the test of files holds.
    """
    rooms: dict[str, dict[str, set[str]]] = {}
    for name, path in files.items():
        for _, target in _imports(path):
            here, there = name.split("."), target.split(".")
            depth = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), 0)
            inside = len(here) > depth + 1 or path.name == "__init__.py"
            if depth and inside and len(there) > depth and ROOT.joinpath(*there[: depth + 1]).is_dir():
                side = rooms.setdefault(".".join(here[:depth]), {})
                side.setdefault(here[depth], set()).add(there[depth])
    for folder, graph in rooms.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            return [f"{folder}.{room}" for room in error.args[1]]
    return []


def test_rooms_side_by_side_import_each_other_in_no_circle(tmp_path: Path) -> None:
    assert circle_of_rooms(_files()) == []
    planted = {**_files(), "treegym.models.tokens.planted": tmp_path / "planted.py"}
    (tmp_path / "planted.py").write_text("def f():\n    from treegym.models.remote.model import RemoteModel")
    assert set(circle_of_rooms(planted)) == {"treegym.models.tokens", "treegym.models.remote"}


def test_nobody_imports_the_rooms_bare() -> None:
    bare = [
        f"{path}:{line} imports {name}"
        for folder in [*FLOORS, "treegym/commands", "benchmarks", "examples", "tests"]
        for path in (ROOT / folder).rglob("*.py")
        for line, name in _imports(path)
        if name.split(".")[0] in FLOORS
    ]
    assert bare == []


LOAD = "import sys, treegym, json; print(json.dumps(sorted(sys.modules)))"


def test_importing_treegym_is_silent_and_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    heavy = {"torch", "transformers", "numba", "stable_baselines3", "safetensors", "scipy", "httpx", "pandas"}
    assert heavy.isdisjoint(name.split(".")[0] for name in modules)
    ours = [name for name in modules if name.startswith("treegym")]
    assert len(ours) <= 4, ours
    assert done.stderr == ""


def test_every_registered_entry_point_is_a_string_that_resolves() -> None:
    from treegym.registration import ENVS

    for entry in ENVS.values():
        for target in (entry.entry_point, entry.vector_entry_point):
            module, name = target.split(":")
            assert hasattr(importlib.import_module(module), name)


def _modules() -> list[str]:
    return sorted(
        name
        for _, name, _ in pkgutil.walk_packages(treegym.__path__, "treegym.")
        if not name.endswith("__main__") and ".data" not in name
    )


@pytest.mark.parametrize("name", _modules())
def test_every_module_says_what_it_exports(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"an optional package is missing: {error}")
    if name.endswith((".vllm", ".conftest")):
        pytest.skip("needs a package that is not installed here")
    path = Path(module.__file__ or "")
    tree = ast.parse(path.read_text())
    if path.name == "__init__.py" and not any(
        isinstance(n, ast.ImportFrom | ast.FunctionDef | ast.ClassDef) for n in tree.body
    ):
        return
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    missing = [export for export in module.__all__ if not hasattr(module, export)]
    assert missing == []
