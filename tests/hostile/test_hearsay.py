"""What a file names is not imported, called or asked: checkpoints and result folders may come from a stranger."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from treegym.__main__ import main
from treegym.agents import PPO
from treegym.bench.results import ResultFolder
from treegym.bench.runner import run_suite
from treegym.bench.suite import parse_suite
from treegym.errors import ConfigError
from treegym.registry import hearsay, refuse_hearsay

TREE = "synthetic:roots=20,depth=3,branching=3,difficulty=0.2,seed=0"
MODULE = """
from pathlib import Path

Path({mark!r}).write_text("imported")


def term(path):
    Path({mark!r}).write_text("called")
    return 0.0
"""


@pytest.fixture
def listener() -> Any:
    """A port, and how many connections came to it."""
    server, came = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            came.append(connection.recv(2000))
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", came
    server.close()


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A module that leaves a mark when it is imported or called, and where the mark would be."""
    mark = tmp_path / "mark"
    (tmp_path / "strange_module.py").write_text(MODULE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)  # where workers look, too
    return "strange_module:term", mark


def checkpoint(apart: Any, folder: Path, kwargs: dict[str, Any]) -> str:
    PPO("ChildPolicy", gym.make("TokenTree-v0", tree=TREE), n_envs=2, n_episodes=2, seed=0).save(folder / "good.zip")
    bad = apart(folder / "good.zip")
    bad.data["env"] = {"id": "TokenTree-v0", "kwargs": {"tree": TREE, **kwargs}}
    return str(bad.written())


def test_a_checkpoint_names_no_module_to_import(
    tmp_path: Path, apart: Any, strange: tuple[str, Path], capsys: Any
) -> None:
    name, mark = strange
    bad = checkpoint(apart, tmp_path, {"reward": {name: 1.0}})
    assert main(["eval", bad, "--episodes", "2"]) == 1
    assert f"{name!r}, which a file cannot make us use: name it yourself" in capsys.readouterr().err
    assert not mark.exists()
    assert main(["eval", bad, "--env-arg", f'reward={{"{name}": 1.0}}']) == 0  # said by who sits here
    assert mark.read_text() == "called"


@pytest.mark.parametrize("reward", ["judge", "verifier"])
def test_a_checkpoint_names_no_server_to_ask(
    tmp_path: Path, apart: Any, listener: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, reward: str
) -> None:
    url, came = listener
    monkeypatch.setenv("MY_KEY", "sk-0123456789abcdef")
    judge = {"judge": {"url": url, "model": "m", "key_env": "MY_KEY"}}
    spec = judge if reward == "judge" else {"compose": "sum", "terms": judge}
    bad = checkpoint(apart, tmp_path, {"reward": spec})
    assert main(["eval", bad]) == 1
    assert "treegym: " in capsys.readouterr().err
    assert came == []


@pytest.mark.parametrize("key", ["tree", "terminal"])
def test_a_checkpoint_names_no_repository_and_no_detector(
    tmp_path: Path, apart: Any, strange: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any, key: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    value = "hf:somebody/tree" if key == "tree" else strange[0]
    bad = checkpoint(apart, tmp_path, {key: value})
    assert main(["eval", bad]) == 1
    assert value in capsys.readouterr().err
    assert not strange[1].exists()


def test_a_result_folder_names_no_module_to_import(tmp_path: Path, strange: tuple[str, Path], capsys: Any) -> None:
    name, mark = strange
    table = {
        "name": "one", "seeds": [0], "budget": {"env_steps": 20}, "checkpoints": 1,
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "num_envs": 2,
                  "kwargs": {"tree": TREE, "reward": {name: 1.0}}}],
        "agents": [{"name": "greedy", "agent": "greedy_prior", "kwargs": {}}],
    }  # fmt: skip
    run_suite(parse_suite(table, where="here"), out=tmp_path / "out", workers=1)
    assert ResultFolder(tmp_path / "out").suite().name == "one"
    mark.unlink()
    assert main(["bench", "verify", str(tmp_path / "out")]) == 1
    assert "cannot make us use: add --trust" in capsys.readouterr().err
    assert not mark.exists()
    assert main(["bench", "verify", str(tmp_path / "out"), "--trust"]) == 0
    assert mark.exists()


def test_what_is_heard_is_forgotten() -> None:
    with hearsay("a file", {"reward": [{"os:system": 1.0}]}):
        with hearsay("another", "more"), pytest.raises(ConfigError, match="another names the term 'os:system'"):
            refuse_hearsay("os:system", "the term")
        refuse_hearsay("more", "the term")
    refuse_hearsay("os:system", "the term")


def test_a_reward_model_asks_no_hub_for_its_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from treegym.errors import TreeGymError
    from treegym.rewards.learned.bradley_terry import KIND, RewardModel

    about = {"kind": KIND, "version": 1, "base": "nobody/no-such-model", "fingerprint": "x", "suffix": None,
             "mean": 0.0, "spread": 1.0, "facts": {}}  # fmt: skip
    (tmp_path / "reward_model.json").write_text(json.dumps(about))
    asked: list[Any] = []

    def refuse(*where: Any, **_: Any) -> Any:
        asked.append(where)
        raise OSError("no network here")

    for call in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, call, refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda self, *where: refuse(*where))
    with pytest.raises(TreeGymError):
        RewardModel.load(tmp_path)
    assert asked == []
