"""Push and pull against a real server: what arrives is what was sent, or one sentence says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.__main__ import main
from treegym.errors import BackendError, ConfigError, DataError
from treegym.hub import FORMAT, MANIFEST, fetch, fetched, look_up, parse
from treegym.sharing.kinds import kind_of
from treegym.sharing.push import pack, push
from treegym.tree.opening import load_tree
from treegym.tree.synthetic import synthetic_tree


@pytest.fixture
def tree_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.tree"
    synthetic_tree(roots=300, depth=6, branching=4, width=4, seed=1).save(path)
    assert path.stat().st_size > 200_000  # so that it goes the way of large files
    return path


def _push(path: Path, name: str, *more: str) -> None:
    assert main(["push", str(path), name, *more]) == 0


def test_a_tree_arrives_as_it_was_sent_and_opens_by_name(
    hub: Any, tree_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _push(tree_file, "ann/small", "--licence", "mit")
    told = capsys.readouterr().out
    assert f"{tree_file.stat().st_size:,} bytes at hf:ann/small@" in told
    assert main(["pull", "ann/small", "--out", str(tmp_path / "here"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "tree"
    assert Path(answer["path"]).read_bytes() == tree_file.read_bytes()
    here, there = load_tree(str(tree_file)), load_tree("hf:ann/small")
    assert all((here.column(name) == there.column(name)).all() for name in ("token", "parent", "depth"))
    env = gym.make("TokenTree-v0", tree="hf:ann/small")
    _, info = env.reset(seed=0)
    assert info["action_mask"].any()


def test_the_card_says_what_the_file_knows(hub: Any, tree_file: Path) -> None:
    _push(tree_file, "ann/small", "--licence", "mit")
    repository = hub.only("dataset", "ann/small")
    card = repository.commits[repository.at("main")]["README.md"].decode()
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert "license: mit" in front
    assert "- treegym" in front
    assert 'gym.make("TokenTree-v0", tree="hf:ann/small")' in body
    assert "| roots | 300 |" in body
    assert "licence was stated" not in body


def test_a_revision_is_pinned(hub: Any, tree_file: Path, tmp_path: Path) -> None:
    _push(tree_file, "ann/small")
    first = look_up("ann/small")
    synthetic_tree(roots=5, depth=3, branching=2, width=2, seed=2).save(tree_file)
    _push(tree_file, "ann/small")
    assert load_tree("hf:ann/small").num_roots == 5
    assert load_tree(f"hf:ann/small@{first.commit}").num_roots == 300
    hub.only("dataset", "ann/small").refs["v1"] = first.commit
    assert load_tree("hf:ann/small@v1").num_roots == 300
    with pytest.raises(DataError, match="no revision 'v9'"):
        load_tree("hf:ann/small@v9")


def test_an_agent_loads_by_name_and_acts_as_before(hub: Any, tmp_path: Path) -> None:
    from treegym.agents import DAPO

    env = gym.make("TokenTree-v0", tree="synthetic:roots=8,depth=3,branching=3,width=3,seed=0", split="all")
    agent = DAPO("ChildPolicy", env, seed=0)
    agent.save(tmp_path / "dapo.zip")
    _push(tmp_path / "dapo.zip", "ann/dapo")
    again = DAPO.load("hf:ann/dapo", env=env)
    for seed in range(5):
        seen, _ = env.reset(seed=seed)
        assert again.predict(seen, deterministic=True)[0] == agent.predict(seen, deterministic=True)[0]
    with pytest.raises(DataError, match="no such repository"):
        load_tree("hf:ann/dapo")  # agents lie among the models, trees among the data sets


def test_a_run_arrives_whole_without_what_could_be_executed(hub: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "round-001" / "model").mkdir(parents=True)
    (run / "settings.json").write_text('{"rounds": 1}')
    (run / "round-001" / "row.json").write_text(
        '{"round": 1, "reward": 0.5, "accuracy": 0.25, "low": 0.2, "high": 0.3}'
    )
    (run / "round-001" / "model" / "config.json").write_text("{}")
    (run / "recipe.py").write_text("raise SystemExit")
    (run / "page.html").write_text("<script>")
    _push(run, "ann/run")
    assert main(["pull", "ann/run", "--out", str(tmp_path / "there")]) == 0
    arrived = tmp_path / "there" / "run"
    names = {file.relative_to(arrived).as_posix() for file in arrived.rglob("*") if file.is_file()}
    assert names == {"settings.json", "round-001/row.json", "round-001/model/config.json"}
    assert main(["pull", "ann/run", "--out", str(tmp_path / "there")]) == 1  # it is there already
    (arrived / "settings.json").unlink()
    assert main(["pull", "ann/run", "--out", str(tmp_path / "there"), "--overwrite"]) == 0
    assert (arrived / "settings.json").is_file()


def test_the_size_is_shown_before_anything_is_fetched(
    hub: Any, tree_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _push(tree_file, "ann/small")
    capsys.readouterr()
    assert main(["pull", "ann/small", "--dry-run", "--out", str(tmp_path / "x")]) == 0
    assert f"tree, {tree_file.stat().st_size:,} bytes" in capsys.readouterr().out
    assert not [path for method, path, _ in hub.requests if method == "GET" and path.endswith("small.tree")]
    assert not (tmp_path / "x").exists()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    hub: Any, tree_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # of 10 MB: what is kept of a break
    _push(tree_file, "ann/small")
    hub.cut["small.tree"] = 150_000
    assert fetched("hf:ann/small", kind="tree").read_bytes() == tree_file.read_bytes()
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith("small.tree")]
    assert ranges[0] == ""
    assert len(ranges) == 2
    assert 0 < int(ranges[1].removeprefix("bytes=").split("-")[0]) <= 150_000


def test_a_file_that_changed_on_its_way_is_refused_and_forgotten(hub: Any, tree_file: Path) -> None:
    _push(tree_file, "ann/small")
    hub.spoiled.add("small.tree")
    with pytest.raises(DataError, match="size or SHA-256 differ"):
        load_tree("hf:ann/small")
    hub.spoiled.clear()
    assert load_tree("hf:ann/small").num_roots == 300  # fetched anew, not taken from the cache


def test_what_was_fetched_is_there_without_a_hub(hub: Any, tree_file: Path) -> None:
    _push(tree_file, "ann/small")
    load_tree("hf:ann/small")
    hub.close()
    assert load_tree("hf:ann/small").num_roots == 300
    with pytest.raises(BackendError, match="cannot be reached, and the cache does not hold it"):
        load_tree("hf:ann/other")


@pytest.mark.parametrize("status", [403, 418])
def test_a_hub_that_refuses_is_told_in_one_sentence(
    hub: Any, tree_file: Path, status: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _push(tree_file, "ann/small")
    capsys.readouterr()
    hub.failing["resolve"] = status
    assert main(["pull", "ann/small", "--out", str(tmp_path / "x")]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("treegym:")]
    assert len(told) == 1
    assert told[0].startswith("treegym: hf:ann/small: the hub refused")


def test_pushing_without_permission_is_told(hub: Any, tree_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    parcel = pack(tree_file, parse("ann/small"))
    with pytest.raises(BackendError, match="HF_TOKEN"):
        push(parcel, parse("ann/small"))


def _plant(hub: Any, kind: str, files: dict[str, bytes]) -> None:
    hub.repositories[kind, "eve/bad"] = type(hub.only(kind, "ann/small"))()
    hub.repositories[kind, "eve/bad"].commit("main", files)


SHA = "0" * 64
DAMAGE: dict[str, Callable[[], dict[str, bytes]]] = {
    "no manifest": lambda: {"README.md": b"hello"},
    "no JSON": lambda: {MANIFEST: b"{"},
    "another format": lambda: {MANIFEST: b'{"format": 99, "kind": "tree", "files": {}}'},
    "a path that climbs": lambda: {
        MANIFEST: json.dumps(
            {"format": FORMAT, "kind": "tree", "files": {"../../x.tree": {"size": 1, "sha256": SHA}}}
        ).encode()
    },
    "an absolute path": lambda: {
        MANIFEST: json.dumps(
            {"format": FORMAT, "kind": "tree", "files": {"/x.tree": {"size": 1, "sha256": SHA}}}
        ).encode()
    },
    "a size below zero": lambda: {
        MANIFEST: json.dumps(
            {"format": FORMAT, "kind": "tree", "files": {"x.tree": {"size": -1, "sha256": SHA}}}
        ).encode()
    },
    "a file that is missing": lambda: {
        MANIFEST: json.dumps(
            {"format": FORMAT, "kind": "tree", "files": {"x.tree": {"size": 1, "sha256": SHA}}}
        ).encode()
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_repository_that_is_no_tree_is_one_sentence(hub: Any, tree_file: Path, damage: str) -> None:
    _push(tree_file, "ann/small")
    _plant(hub, "dataset", DAMAGE[damage]())
    with pytest.raises(DataError) as told:
        load_tree("hf:eve/bad")
    assert str(told.value).startswith("hf:eve/bad") or MANIFEST in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_no_tree_inside_is_refused_though_its_checksum_is_right(
    hub: Any, tree_file: Path, tmp_path: Path
) -> None:
    import hashlib

    _push(tree_file, "ann/small")
    content = b"not a tree at all"
    listed = {"x.tree": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    manifest = json.dumps({"format": FORMAT, "kind": "tree", "files": listed}).encode()
    _plant(hub, "dataset", {MANIFEST: manifest, "x.tree": content})
    with pytest.raises(DataError):
        load_tree("hf:eve/bad")
    assert main(["pull", "eve/bad", "--out", str(tmp_path / "x")]) == 1
    assert list((tmp_path / "x").iterdir()) == []


def test_another_repository_is_not_overwritten(hub: Any, tree_file: Path) -> None:
    _push(tree_file, "ann/small")
    _plant(hub, "dataset", {"data.csv": b"1,2"})
    assert main(["push", str(tree_file), "eve/bad"]) == 1
    repository = hub.only("dataset", "eve/bad")
    assert set(repository.commits[repository.at("main")]) == {"data.csv"}


@pytest.mark.parametrize("name", ["", "x", "hf:a/b/c", "a/../b", "a/b@", "a b/c", "hf:a/b@x y"])
def test_names_that_name_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match="names no repository"):
        parse(name)


def test_what_cannot_be_shared_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="nothing that can be shared"):
        kind_of(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="no such file"):
        kind_of(tmp_path / "absent")


def test_nothing_is_sent_in_a_dry_run(hub: Any, tree_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _push(tree_file, "ann/small", "--dry-run")
    assert "not sent" in capsys.readouterr().out
    assert hub.requests == []


def test_the_bundled_table_of_optimisations_is_shared(hub: Any, tmp_path: Path) -> None:
    from treegym.optimize.table import BUNDLED

    _push(BUNDLED, "ann/table")
    found = fetch(look_up("hf:ann/table", kind="optimization"))
    assert found["selection.json"].read_bytes() == BUNDLED.read_bytes()
    assert np.isfinite(look_up("ann/table").size)


@pytest.mark.slow
def test_a_shared_run_is_verified_and_joins_a_board(
    hub: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, run, board = tmp_path / "suite.toml", tmp_path / "run", tmp_path / "board.json"
    suite.write_text(
        'name = "small"\nseeds = [0]\ncheckpoints = 1\nbudget = { env_steps = 200 }\n'
        '[[envs]]\nname = "tiny"\nid = "TokenTree-v0"\nnum_envs = 4\n'
        'kwargs = { tree = "synthetic:roots=20,depth=4,branching=3,seed=0" }\n'
        '[[agents]]\nname = "chance"\nagent = "random"\n'
    )
    assert main(["bench", "--suite", str(suite), "--out", str(run), "--workers", "1"]) == 0
    _push(run, "ann/small")
    assert main(["leaderboard", "verify", "hf:ann/small"]) == 0
    assert "1 runs" in capsys.readouterr().out
    assert main(["leaderboard", "submit", "hf:ann/small", str(board), "--by", "ann"]) == 0
    assert '"ann"' in board.read_text()
    assert main(["leaderboard", "verify", str(run), str(board)]) == 1
    assert "verify a run alone" in capsys.readouterr().err
    summary = run / "runs" / "tiny--chance--0.json"
    summary.write_text(summary.read_text().replace('"score": ', '"score": 1', 1))
    assert main(["leaderboard", "submit", str(run), str(board)]) == 1
