"""Installs extras one by one, each into an empty environment, and imports the whole package there.

    python scripts/check_extras.py http gguf ...        (default: every extra that installs on a CPU)

A module may lack packages of other extras; one that lacks a package which its extra should have brought is an error,
and so is a package of the extra that cannot be imported. Where uv is on the path it installs, since thirty times torch
takes pip hours; PIP_FIND_LINKS names a folder of wheels to both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_HERE = {"vllm", "flash", "dev", "bench", "docs"}  # need a GPU, or are sums of others
# with the versions they ask for: openenv-core, verifiers and trackio (pillow below 13) exclude those of constraints.txt
OWN_VERSIONS = {"openenv", "verifiers", "trackio"}

# runs in the environment: {"brought": {import name: its error or ""}, "lacking": {module: package that it lacks}}
EXAMINE = r"""
import importlib, importlib.metadata as metadata, importlib.util, json, pkgutil, re, sys
extra = sys.argv[1]
wanted = {
    re.split(r"[<>=!~\[; ]", need, maxsplit=1)[0].lower().replace("_", "-")
    for need in metadata.requires("treegym") or []
    if f'extra == "{extra}"' in need
}
names = {
    name: [dist.lower().replace("_", "-") for dist in dists]
    for name, dists in metadata.packages_distributions().items()
}
brought = {}
for name, dists in names.items():
    if wanted & set(dists) and name.isidentifier() and not name.startswith("_") and name not in ("test", "tests"):
        if importlib.util.find_spec(name) is None:
            continue  # a folder without modules that a wheel lists (torchrl: build, gallery)
        try:
            importlib.import_module(name)
            brought[name] = ""
        except Exception as error:
            brought[name] = f"{type(error).__name__}: {error}"
import treegym
lacking = {}
for _, module, _ in pkgutil.walk_packages(treegym.__path__, "treegym."):
    if module.endswith("__main__") or ".data" in module:
        continue
    try:
        importlib.import_module(module)
    except ImportError as error:
        cause = error
        while not getattr(cause, "name", None) and cause.__cause__ is not None:
            cause = cause.__cause__
        lacking[module] = str(getattr(cause, "name", None) or error)
print(json.dumps({"brought": brought, "lacking": lacking}))
"""


def installer(python: Path) -> list[str | Path]:
    """Returns the command that installs into an environment."""
    uv = shutil.which("uv")
    if uv is None:
        return [python, "-m", "pip", "install"]
    links = [part for path in os.environ.get("PIP_FIND_LINKS", "").split() for part in ("--find-links", path)]
    return [uv, "pip", "install", *links, "--python", python]


def check(extra: str, folder: Path) -> list[str]:
    """Returns what is wrong with an extra; [] for nothing."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pinned = [] if extra in OWN_VERSIONS else ["-c", ROOT / "constraints.txt"]
    if subprocess.run([*installer(python), "-q", *pinned, f"{ROOT}[{extra}]"], check=False).returncode:
        return [f"{extra}: does not install; what was said is above"]
    done = subprocess.run(
        [python, "-c", EXAMINE, extra], cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        return [f"{extra}: {done.stderr.strip()[-500:]}"]
    found = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"{extra}: {name} was installed and fails: {error}" for name, error in found["brought"].items() if error]
    if not found["brought"]:
        wrong.append(f"{extra}: brings no package that can be imported")
    wrong += [
        f"{extra}: {module} lacks {package}, which the extra should bring"
        for module, package in found["lacking"].items()
        if package.split(".")[0] in found["brought"]
    ]
    print(f"{extra}: brings {', '.join(sorted(found['brought']))}; {len(found['lacking'])} modules need other extras")
    return wrong


if __name__ == "__main__":
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    problems: list[str] = []
    for chosen in sys.argv[1:] or [name for name in table if name not in NOT_HERE]:
        if chosen not in table:
            problems.append(f"there is no extra {chosen!r}; there are {', '.join(table)}")
            continue
        with tempfile.TemporaryDirectory() as temporary:
            problems += check(chosen, Path(temporary))
    print("\n".join(problems) or "nothing wrong", file=sys.stderr if problems else sys.stdout)
    sys.exit(bool(problems))
