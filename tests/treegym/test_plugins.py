"""Everything that can be plugged in, from a scratch project installed beside the package: one file and one line each.

The commands run in a process of their own, as they would for somebody who has just installed the project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import treegym

ROOT = Path(treegym.__file__).resolve().parents[1]
TREE = "synthetic:roots=20,depth=4,branching=3,seed=0"

FILES = {
    "scratch_env": '''
        import gymnasium as gym
        import numpy as np


        class Maze(gym.Env):
            """A corridor with one way out."""

            def __init__(self, size=5):
                self.size, self.at = size, 0
                self.observation_space = gym.spaces.Box(0, 1, (size,), np.float32)
                self.action_space = gym.spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                self.at = 0
                return np.eye(self.size, dtype=np.float32)[0], {}

            def step(self, action):
                self.at += int(action)
                done = self.at == self.size - 1
                seen = np.eye(self.size, dtype=np.float32)[self.at]
                return seen, float(done), done, not action, {"is_success": done}
    ''',
    "scratch_agent": '''
        from treegym.agents.ppo import PPO


        class Cousin(PPO):
            """A learner of somebody's own."""
    ''',
    "scratch_policy": '''
        from treegym.agents.policies.child import ChildPolicy


        class Quiet(ChildPolicy):
            """A policy of somebody's own."""
    ''',
    "scratch_reward": '''
        def brevity(path):
            """Pays a little for every token that was not said."""
            return 0.1 * (4 - path.depth) if path.ended else 0.0


        brevity.deployable = True
    ''',
    "scratch_terminal": '''
        import numpy as np

        from treegym.rewards.terminal.base import Detector


        class Third(Detector):
            """The third token is the last."""

            kind = "third"

            def ends(self, source, nodes):
                return np.asarray(source.depth)[nodes] >= 3
    ''',
    "scratch_method": '''
        from treegym.search.run import puct


        def patient(simulator, states, *, num_simulations, seed=0, **options):
            """PUCT, and says that it was here."""
            print("patient was asked")
            return puct(simulator, states, num_simulations=num_simulations, seed=seed, **options)
    ''',
    "scratch_backend": '''
        from treegym.models.loading import load_model


        def connect(name, *, primary=None):
            """Opens the bundled model that is named after the colon."""
            return load_model(name.partition(":")[2])
    ''',
    "scratch_strategy": '''
        from treegym.optimize.strategies.base import HybridOptimizationStrategy


        class Nothing(HybridOptimizationStrategy):
            """Leaves the module as it is."""

            name = "nothing"

            def apply(self, module, sample):
                return module
    ''',
}
ENTRY_POINTS = """
[treegym.envs]
Maze-v0 = scratch_env:Maze
[treegym.agents]
cousin = scratch_agent:Cousin
[treegym.policies]
quiet = scratch_policy:Quiet
[treegym.rewards]
brevity = scratch_reward:brevity
[treegym.terminals]
third = scratch_terminal:Third
[treegym.methods]
patient = scratch_method:patient
[treegym.backends]
echo = scratch_backend:connect
[treegym.strategies]
nothing = scratch_strategy:Nothing
"""
SUITE = f"""
name = "scratch"
seeds = [0]
checkpoints = 1
budget = {{ env_steps = 60 }}
[evaluation]
episodes = 4
[[envs]]
name = "maze"
id = "Maze-v0"
metric = "return"
num_envs = 4
[[envs]]
name = "tree"
id = "TokenTree-v0"
num_envs = 8
kwargs = {{ tree = "{TREE}" }}
[[agents]]
agent = "cousin"
kwargs = {{ n_episodes = 8 }}
"""
DRIVER = """
import contextlib, io, json, sys
from treegym.__main__ import main
for line in sys.stdin:
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        code = main(json.loads(line))
    print(json.dumps([code, said.getvalue(), wrong.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scratch project as pip leaves it: modules, and metadata with the entry points."""
    import textwrap

    place = tmp_path_factory.mktemp("site")
    for name, source in FILES.items():
        (place / f"{name}.py").write_text(textwrap.dedent(source))
    info = place / "scratch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return place


class Treegym:
    """The command, in a process that knows the scratch project."""

    def __init__(self, project: Path, folder: Path) -> None:
        path = os.pathsep.join([str(project), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, *arguments: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        code, said, wrong = json.loads(self.process.stdout.readline())
        assert code == 0, wrong
        return str(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def command(project: Path, folder: Path) -> Any:
    made = Treegym(project, folder)
    yield made
    made.process.stdin.close()
    made.process.wait()


SHORT = ["--steps", "40", "--set", "n_envs=8", "--set", "n_episodes=16", "--env-arg", f"tree={TREE}", "--json"]


def test_they_are_listed(command: Any) -> None:
    assert command("envs").splitlines()[-1].split() == ["Maze-v0", "from", "scratch_env:Maze"]
    assert "cousin" in command("agents")
    listed = command("rewards")
    assert "brevity" in listed
    assert "third" in listed


def test_an_env_is_trained_in_and_evaluated(command: Any) -> None:
    command("train", "ppo", "--env", "Maze-v0", "--steps", "40", "--set", "n_episodes=8", "--out", "maze", "--json")
    assert json.loads(command("eval", "maze/final.zip", "--episodes", "3", "--json"))["env"] == "Maze-v0"


def test_an_agent_and_a_policy_are_trained_saved_and_loaded(command: Any) -> None:
    command("train", "cousin", "--policy", "quiet", "--out", "cousin", *SHORT)
    assert json.loads(command("eval", "cousin/final.zip", "--json"))["success"]


def test_an_env_and_an_agent_are_benchmarked(command: Any, folder: Path) -> None:
    (folder / "suite.toml").write_text(SUITE)
    board = json.loads(command("bench", "--suite", "suite.toml", "--out", "bench", "--workers", "1", "--json"))
    assert board["failed"] == {}
    assert board["runs"] == board["expected_runs"] == 2


def test_a_reward_and_a_terminal_detector_are_used_and_a_planner_sees_the_reward(command: Any) -> None:
    full = json.loads(command("rewards", "--check", '{"verifier": 1.0, "brevity": 0.5}', "--json"))
    assert "brevity" in json.dumps(full)
    ends = ["--env-arg", "terminal=third", "--env-arg", f"tree={TREE}", "--json"]
    assert json.loads(command("eval", "mcts", "--episodes", "4", *ends))["length"]["mean"] <= 3.0
    # Both learn the same; the one that plans is told of deployable terms, and so of what is left unsaid.
    rewarded = ["--env-arg", 'reward={"brevity": 1.0}']
    returns = {}
    for agent in ("ppo", "ppo_search"):
        command("train", agent, "--out", agent, *rewarded, *SHORT)
        returns[agent] = json.loads(command("eval", f"{agent}/final.zip", "--json"))["return"]["mean"]
    assert returns["ppo_search"] > returns["ppo"]


def test_a_search_method_plans(command: Any) -> None:
    found = command(
        "train", "alphazero", "--set", "method=patient", "--set", "num_simulations=8", "--out", "planned", *SHORT
    )
    assert "patient was asked" in found


def test_a_back_end_grows_a_tree(command: Any) -> None:
    grown = json.loads(
        command(
            "grow", "--out", "grown.tree", "--prompts", "bundled:train=2,test=1", "--primary", "echo:tiny-primary",
            "--teacher", "tiny-llama", "--max-tokens", "6", "--json",
        )
    )  # fmt: skip
    assert grown["nodes"] > 3


def test_a_strategy_optimises(command: Any) -> None:
    arguments = ["--strategies", "nothing", "--measure", "0.05", "--max-iterations", "1", "--no-history", "--json"]
    assert "nothing" in command("optimize", "zoo:mlp/0", "--processes", "1", *arguments)
