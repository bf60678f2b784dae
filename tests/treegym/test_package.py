"""What is published: its versions agree, its workflows name what exists, and the wheel works where nothing else is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALK = """
import json, sys
import gymnasium as gym
import treegym
env = gym.make("TokenTree-v0", split="train")
observation, info = env.reset(seed=0)
total = steps = 0
done = False
while not done:
    observation, reward, terminated, truncated, info = env.step(int(info["action_mask"].argmax()))
    total, steps, done = total + reward, steps + 1, terminated or truncated
heavy = sorted({"torch", "transformers", "stable_baselines3"} & set(sys.modules))
print(json.dumps({"steps": steps, "text": info["text"], "file": treegym.__file__, "heavy": heavy}))
"""


def test_all_versions_agree() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_version.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    other = [sys.executable, ROOT / "scripts" / "check_version.py", "v99.0.0"]
    assert subprocess.run(other, capture_output=True, check=False).returncode == 1


def test_the_lock_holds_what_the_package_asks_for_from_the_public_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    [own] = [package for package in packages if package["name"] == project["name"]]
    assert own["metadata"]["provides-extras"] == list(project["optional-dependencies"]), "run `make lock`"
    asked = {re.split(r"[<>=!~\[; ]", need, maxsplit=1)[0].lower() for need in project["dependencies"]}
    assert asked <= {dependency["name"] for dependency in own["dependencies"]}, "run `make lock`"
    addresses = 0
    for package in packages:
        if package is own:
            continue
        assert package["source"] == {"registry": "https://pypi.org/simple"}, package["name"]
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        addresses += len(files)
        for file in files:
            assert file["url"].startswith("https://files.pythonhosted.org/packages/"), package["name"]
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), package["name"]
    assert addresses > len(packages)


def test_workflows_call_what_exists() -> None:
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", make, re.MULTILINE))
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    called = {name for line in re.findall(r"run: make (.+)", text) for name in line.split()}
    assert called
    assert called <= targets
    scripts = re.findall(r"(?:scripts|tests)/\S+\.(?:py|sh)", text)
    assert scripts
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    listed = re.search(r"extra: \[([^\]]+)\]", text)
    assert listed is not None
    assert {name.strip() for name in listed[1].split(",")} <= set(extras)
    doors = re.search(r"door: \[([^\]]+)\]", text)
    assert doors is not None
    known = set(re.findall(r"^    \[(\w+)\]=", (ROOT / "scripts" / "test_doors.sh").read_text(), re.MULTILINE))
    assert {name.strip() for name in doors[1].split(",")} <= known


def test_the_linter_of_commits_is_that_of_the_tests() -> None:
    wanted = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert set(wanted) == set(re.findall(r"^ruff==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from what a checkout holds."""
    out = tmp_path_factory.mktemp("dist")
    pytest.importorskip("build")
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, capture_output=True, timeout=280)
    return out


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_rooms_and_nothing_besides(built: Path) -> None:
    [wheel], [sdist] = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    assert {name.split("/")[0] for name in held} == {
        "treegym",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    for file in (
        "py.typed",
        "tree/data/bundled.tree",
        "explorer/templates",
        "bench/report/templates",
        "models/data/tiny-primary",
    ):
        assert any(name.startswith(f"treegym/{file}") for name in held), file
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "treegym/tree/data/bundled.tree"} <= packed


@pytest.mark.slow
def test_the_wheel_works_with_core_dependencies_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(install, check=True, timeout=280, env=clean)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False, timeout=250
        )

    walked = run(python, "-c", WALK)
    assert walked.returncode == 0, walked.stderr
    found = json.loads(walked.stdout)
    assert found["steps"] > 0
    assert found["heavy"] == []
    assert str(tmp_path / "env") in found["file"]
    treegym = tmp_path / "env" / "bin" / "treegym"
    assert run(treegym, "tree", "verify").stdout.startswith("sound:")
    assert run(treegym, "envs").returncode == 0
    lacking = run(treegym, "train", "--out", "x")  # needs an extra: one sentence that says which
    assert lacking.returncode == 1
    assert "treegym[agents]" in lacking.stderr
    assert len(lacking.stderr.splitlines()) == 1
