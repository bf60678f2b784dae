from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError
from treegym.explorer import ExplorerServer, TreeView
from treegym.explorer import view as view_module
from treegym.explorer.page import export_page
from treegym.explorer.view import BEST, CORRECT, CUT, END, LIKELY, REACHES, SHORTEST, Search, Walk
from treegym.explorer.walks import walks_of


@pytest.fixture
def world() -> TreeWorld:
    return TreeWorld("synthetic:roots=6,depth=6,branching=4,seed=2", split="all")


def unpack(block: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a block the way the page does."""
    length = int.from_bytes(block[:4], "little")
    header = json.loads(block[4 : 4 + length])
    columns = {}
    for name, entry in header["columns"].items():
        start = 4 + length + entry["offset"]
        assert start % 4 == 0  # JavaScript's typed arrays demand it
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(block, {"i": "<i4", "u": "<u4", "f": "<f4"}[entry["type"]], count, start)
        columns[name] = array.reshape(entry["shape"])
    return header, columns


def test_a_block_holds_the_roots_whole_tree(world: TreeWorld) -> None:
    tree = world.tree
    for root in range(tree.num_roots):
        _, columns = unpack(TreeView(world).block(root))
        nodes = columns["node"]
        assert sorted(nodes) == sorted(np.flatnonzero(tree.root_of(np.arange(tree.size)) == root))
        np.testing.assert_array_equal(columns["token"], tree.token[nodes])
        for i, node in enumerate(nodes):
            children = columns["first"][i] + np.arange(columns["count"][i])
            np.testing.assert_array_equal(nodes[children], tree.children(int(node)))
            assert (columns["parent"][children] == i).all()


def test_a_block_holds_the_picture_of_its_prompt() -> None:
    world = TreeWorld("bundled:captions", split="all")
    header, _ = unpack(TreeView(world).block(3))
    assert base64.b64decode(header["picture"]) == world.tree.roots[3].image
    page = export_page(TreeView(world), roots=[3])
    assert "img-src data:" in page
    plain, _ = unpack(TreeView(TreeWorld("synthetic:roots=1,depth=2,branching=2", split="all")).block(0))
    assert "picture" not in plain


def test_marks_agree_with_the_solution(world: TreeWorld) -> None:
    _, columns = unpack(TreeView(world).block(0))
    state, nodes = columns["state"], columns["node"]
    np.testing.assert_array_equal((state & END) != 0, world.tables.ends[nodes])
    np.testing.assert_array_equal((state & CORRECT) != 0, world.correct(nodes))
    np.testing.assert_array_equal((state & REACHES) != 0, world.solution(1.0).reachable[nodes])
    for bit in (BEST, SHORTEST, LIKELY):  # each is one path from the root to an end
        path = np.flatnonzero(state & bit)
        assert path[0] == 0
        assert (columns["parent"][path[1:]] == path[:-1]).all()
        assert state[path[-1]] & END
    assert state[np.flatnonzero(state & SHORTEST)[-1]] & CORRECT


def test_a_root_that_is_too_large_is_cut_after_a_whole_level(world: TreeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = unpack(TreeView(world).block(0))
    assert whole["left_out"] == 0
    monkeypatch.setattr(view_module, "NODE_LIMIT", 20)
    header, columns = unpack(TreeView(world).block(0))
    assert len(columns["node"]) <= 20
    assert header["left_out"] == ((columns["state"] & CUT) != 0).sum() > 0
    assert (columns["count"][(columns["state"] & CUT) != 0] == 0).all()


def test_search_visits_add_up(world: TreeWorld) -> None:
    _, columns = unpack(TreeView(world, search=Search("puct", 16)).block(1))
    for i in np.flatnonzero(columns["count"]):
        children = columns["first"][i] + np.arange(columns["count"][i])
        assert columns["visits"][children].sum() == 16
        visited = children[columns["visits"][children] > 0]
        assert np.isfinite(columns["q"][visited]).all()


def test_walks_follow_the_agent(world: TreeWorld) -> None:
    class First:
        """Always takes the first child."""

        def predict(self, observation: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
            return np.zeros(len(observation["action_mask"]), np.int64), None

    (walk,) = walks_of(First(), "first", world, [2])
    node = int(world.tree.root_node[2])
    for step in walk.nodes[1:]:
        node = int(world.tree.children(node)[0])
        assert step == node
    assert world.tables.ends[node]
    header, columns = unpack(TreeView(world, walks=[walk]).block(2))
    assert [int(columns["node"][i]) for i in header["walks"][0]["nodes"]] == list(walk.nodes)


def test_unknown_roots_are_refused(world: TreeWorld) -> None:
    with pytest.raises(ConfigError, match="root is 6; the tree has 6"):
        TreeView(world).block(6)


@pytest.fixture
def server(world: TreeWorld) -> Iterator[ExplorerServer]:
    with ExplorerServer(TreeView(world, walks=[Walk("x", 0, [0])])) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def _ask(server: ExplorerServer, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_server_listens_on_this_machine_only(server: ExplorerServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_server_answers_only_who_knows_the_token(server: ExplorerServer) -> None:
    token = server.token
    assert len(token) >= 24
    assert _ask(server, f"/{token}/")[0] == 200
    assert _ask(server, f"/{token}/meta")[0] == 200
    status, block = _ask(server, f"/{token}/root/3")
    assert status == 200
    assert unpack(block)[0]["root"] == 3
    for path in ("/", "/meta", "/root/0", f"/{token[:-1]}/", f"/{token}x/meta", "//", "/../etc/passwd"):
        assert _ask(server, path)[0] == 404
    for path in ("root/99", "root/-1", "root/x", "root/٣", "root/" + "9" * 40, "../meta", "meta/", "x"):
        assert _ask(server, f"/{token}/" + path.encode("ascii", "ignore").decode())[0] == 404


def test_server_is_read_only_and_refuses_other_names(server: ExplorerServer) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert _ask(server, f"/{server.token}/meta", method=method)[0] == 501
    assert _ask(server, f"/{server.token}/meta", host="evil.example:80")[0] == 404
    assert _ask(server, f"/{server.token}/meta", host="localhost:80")[0] == 200
    assert _ask(server, f"/{server.token}/", method="HEAD") == (200, b"")
