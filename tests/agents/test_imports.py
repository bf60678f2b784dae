"""The room's files import one another in one direction, also where an import is for types only or inside a function."""

import ast
from pathlib import Path

ROOM = Path(__file__).parents[2] / "agents"


def imports() -> dict[str, set[str]]:
    """Returns the modules of this room that each of its modules imports."""
    modules = {}
    for path in ROOM.rglob("*.py"):
        name = ".".join(["treegym.agents", *path.relative_to(ROOM).with_suffix("").parts])
        modules[name.removesuffix(".__init__")] = path
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        lines = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        full = [(line.module or "", alias.name) for line in lines for alias in line.names]
        found[name] = {m for module, what in full for m in (f"{module}.{what}", module) if m in modules}
        # a package's face hands on what its modules define, so modules may import it for what stands above them
        found[name] -= {name, "treegym.agents"}
    return found


def test_no_circles() -> None:
    left = imports()
    assert len(left) > 20
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"these modules import one another in a circle: {sorted(left)}"
        for name in free:
            del left[name]
