"""The explorer and the report in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.envs.token_tree.world import TreeWorld
from treegym.explorer import ExplorerServer, TreeView, export_page
from treegym.explorer.view import Search, Walk
from treegym.tree.token_tree import Root, TokenTree

pytestmark = pytest.mark.browser
READY = "document.documentElement?.dataset.ready !== undefined"
CHOOSE_WALK = "(w => { w.value = '%s'; w.dispatchEvent(new Event('change')); })(document.getElementById('walk'))"
VISITS = "[...Array(block.count[0]).keys()].map((k) => block.visits[block.first[0] + k]).reduce((a, b) => a + b)"
ROWS = "document.querySelectorAll('#outline .row').length"


def _world(tree: Any) -> TreeWorld:
    return TreeWorld(tree, split="all", max_children=64, max_tokens=200)


@pytest.fixture
def served() -> Iterator[Any]:
    servers = []

    def serve(view: TreeView) -> str:
        server = ExplorerServer(view)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server.url

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def hundred_thousand_nodes() -> TokenTree:
    """One prompt with 100,000 nodes below it, ten levels deep."""
    tree = TokenTree.empty(
        tokens=[chr(97 + i) for i in range(10)] + [""], eos_id=10, teachers=["a", "b"], capacity=2**17
    )
    level = np.array([tree.add_root(Root("big", kind="wide"))])
    for _ in range(10):  # 1 + 3 + 9 + ... + 3^10 = 88,573 nodes
        counts = np.full(len(level), 3)
        tokens = np.tile(np.arange(3), len(level))
        level = tree.add_children(level, counts, tokens, prior=np.log(np.full(len(tokens), 1 / 3)))
    rest = 100_000 - tree.size
    tree.add_children(
        level[:rest], np.ones(rest, int), np.full(rest, 10), verdict=(np.arange(rest) % 7 == 0).astype(float)
    )
    return tree


def test_hundred_thousand_nodes_stay_smooth(browser: Any, served: Any, pictures: Path) -> None:
    tree = hundred_thousand_nodes()
    assert tree.size == 100_000
    browser.size(1400, 900)
    browser.dark(False)
    browser.open(served(TreeView(_world(tree), title="big.tree")), until=READY)
    browser.run("document.getElementById('expand').click()")
    assert browser.run("outline.rows.length") == 100_000
    assert browser.run(ROWS) < 120  # only what is in sight is in the document
    # Scrolls through all of it, a page at a time, and returns the time each page took to be in the document.
    times = browser.run("""(async () => {
        const view = document.getElementById('outline'), times = [];
        for (let i = 0; i < 120; i++) {
            view.scrollTop = (i / 120) * view.scrollHeight;
            const start = performance.now();
            outline.list.render();
            view.getBoundingClientRect();
            times.push(performance.now() - start);
            await new Promise(requestAnimationFrame);
        }
        return times;
    })()""")
    assert float(np.median(times)) < 50.0  # a generous bound for a busy machine; a full document takes seconds
    browser.run("select(99999)")
    assert browser.run("pathOf(99999).length") == int(tree.depth[99_999])
    assert browser.run("document.querySelector('#outline .row.on') !== null")
    browser.screenshot(pictures / "explorer_100k.png")
    assert browser.problems == []


def test_everything_that_is_shown(browser: Any, served: Any, pictures: Path) -> None:
    world = _world("synthetic:roots=12,depth=8,branching=4,width=4,seed=3")
    first = int(world.tree.root_node[0])
    steps = [first, *world.tree.children(first)[:1]]
    walk = Walk("tester", 0, steps, [{int(c): 0.5 for c in world.tree.children(first)}])
    view = TreeView(world, search=Search("puct", 32), walks=[walk], title="small.tree")
    browser.size(1400, 900)
    browser.open(served(view), until=READY)
    assert browser.run("document.querySelector('h1').textContent") == "small.tree"
    assert browser.run("document.querySelectorAll('#prompts .row').length") == 12
    # The best path of the root leads to a correct end; stepping along it selects its nodes one by one.
    browser.run(CHOOSE_WALK % "best")
    length = browser.run("trail.length")
    for _ in range(length - 1):
        browser.run("document.getElementById('forth').click()")
    assert browser.run("document.getElementById('forth').disabled")
    assert browser.run("(block.state[chosen] & STATE.correct) !== 0")
    assert "✓ correct" in browser.run("document.getElementById('details').textContent")
    text = browser.run("document.querySelector('#details .path').textContent")
    node = browser.run("block.node[chosen]")
    assert text == world.tree.prompts[0] + world.tree.text(node) + "⟨end⟩"
    # The agent's walk comes with what it thought.
    browser.run(CHOOSE_WALK % "agent:0")
    assert "50 %" in browser.run("document.getElementById('details').textContent")
    # The search's visits below the root add up to its simulations.
    assert browser.run(VISITS) == 32
    # Keyboard: into the first child, unfold it, fold it, back.
    browser.run("document.getElementById('collapse').click(); document.getElementById('outline').focus()")
    browser.key("ArrowRight", 39)
    assert browser.run("chosen === block.first[0]")
    for name, code, unfolded in (("ArrowRight", 39, 1), ("ArrowLeft", 37, 0)):
        browser.key(name, code)
        assert browser.run("outline.open[block.first[0]]") == unfolded
    browser.key("ArrowLeft", 37)
    assert browser.run("chosen") == 0
    # A click into the overview selects a node of the level that was clicked.
    browser.run(
        "(() => { const c = document.getElementById('overview'), r = c.getBoundingClientRect();"
        "c.dispatchEvent(new MouseEvent('click', {clientX: r.left + 5,"
        "clientY: r.top + 1.5 * r.height / overview.depth})); })()"
    )
    assert browser.run("block.depth[chosen]") == 1
    browser.screenshot(pictures / "explorer_light.png")
    browser.dark(True)
    browser.run("overview.rebuild()")
    browser.screenshot(pictures / "explorer_dark.png")
    browser.size(390, 844, phone=True)
    assert browser.run("document.documentElement.scrollWidth <= 390")
    browser.screenshot(pictures / "explorer_phone.png")
    browser.dark(False)
    assert browser.problems == []


def test_hostile_text_stays_text(browser: Any, tmp_path: Path) -> None:
    attack = (
        "</script><img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>{{SCRIPT}}"
    )
    tree = TokenTree.empty(tokens=["<b>", "&amp;", ""], eos_id=2, teachers=[attack])
    root = tree.add_root(Root(attack, answer=attack, kind=attack))
    tree.add_children([root], [3], [0, 1, 2], verdict=[np.nan, np.nan, 1.0])
    file = tmp_path / "hostile.html"
    file.write_text(export_page(TreeView(_world(tree), title=attack)), encoding="utf-8")
    browser.open(file.as_uri(), until=READY)
    assert browser.run("document.title") == f"{attack} – TreeGym explorer"
    assert browser.run("document.querySelectorAll('img, b:not(#prompt b)').length") == 0
    assert "<b>" in browser.run("document.getElementById('outline').textContent")
    assert browser.problems == []


def test_the_exported_file_asks_nobody_for_anything(browser: Any, tmp_path: Path) -> None:
    world = _world("synthetic:roots=5,depth=5,branching=3,seed=0")
    file = tmp_path / "tree.html"
    file.write_text(export_page(TreeView(world), roots=[1, 3]), encoding="utf-8")
    browser.open(file.as_uri(), until=READY)
    assert browser.run("block.root") == 1
    assert browser.run("document.querySelectorAll('#prompts .row').length") == 2
    assert "3 not in this file" in browser.run("document.getElementById('facts').textContent")
    assert browser.requests == [file.as_uri()]
    assert browser.problems == []


def test_report(browser: Any, tmp_path: Path, pictures: Path, request: pytest.FixtureRequest) -> None:
    from treegym.bench.report import write_report

    board = request.getfixturevalue("made_up_board")
    write_report(board, tmp_path)
    for name, width, phone, dark in (
        ("light", 1180, False, False),
        ("dark", 1180, False, True),
        ("phone", 390, True, False),
    ):
        browser.size(width, 900, phone=phone)
        browser.dark(dark)
        browser.open((tmp_path / "report.html").as_uri())
        assert browser.run(f"document.documentElement.scrollWidth <= {width}")
        # Every chart names itself to screen readers, and its numbers stand in a table below.
        assert browser.run("""[...document.querySelectorAll('svg[role=img]')].every(
            (s) => s.querySelector('title').textContent.length > 3)""")
        assert browser.run("""[...document.querySelectorAll('svg.chart')].every(
            (s) => s.querySelector('desc').textContent.length > 20 && s.querySelectorAll('.label').length === 2
                && s.parentElement.querySelector('details table') !== null)""")
        assert browser.run("document.querySelectorAll('svg.chart').length") >= 6
        # Text keeps a contrast of at least 4.5 to 1 against the page.
        assert browser.run(CONTRAST) >= 4.5
        assert browser.requests == [(tmp_path / "report.html").as_uri()]
        assert browser.problems == []
        browser.screenshot(pictures / f"report_{name}.png")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme") == "dark"


CONTRAST = """(() => {
    const light = (css) => {
        const [r, g, b] = css.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92
            : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = light(getComputedStyle(document.body).backgroundColor);
    const texts = document.querySelectorAll('p, td:not(.heat), th, dt, dd, figcaption, summary, li');
    return Math.min(...[...texts].map((e) => {
        const ink = light(getComputedStyle(e).color);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    }));
})()"""


@pytest.fixture
def made_up_board(make_runs: Any) -> dict[str, Any]:
    from treegym.bench.leaderboard import build_leaderboard

    skills = {"AlphaZero": 0.9, "PPO": 0.8, "DAPO": 0.7, "VAPO": 0.6, "vote": 0.5, "greedy prior": 0.3, "random": 0.1}
    suite, summaries = make_runs(skills=skills, envs=2, prompts=80)
    for summary in summaries:
        if summary["agent"] in ("vote", "greedy prior", "random"):
            summary["curve"] = summary["curve"][-1:]
    return build_leaderboard(suite, summaries)


def test_prompts_are_picked_by_split_and_kind_and_ends_show_what_they_pay(browser: Any, served: Any) -> None:
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2, teachers=["t"], capacity=64)
    for i, (split, kind) in enumerate([("train", "sum"), ("test", "sum"), ("test", "product")]):
        root = tree.add_root(Root(f"prompt {i}", split=split, kind=kind))
        below = tree.add_children(np.array([root]), np.array([2]), np.array([0, 2]), verdict=np.array([np.nan, 1.0]))
        tree.add_children(below[:1], np.array([1]), np.array([2]), verdict=np.array([0.0]))
    browser.size(1280, 800)
    browser.open(served(TreeView(_world(tree), title="kinds.tree")), until=READY)
    listed = "[...document.querySelectorAll('#{} option')].map((option) => option.value).join()"
    assert browser.run(listed.format("split")) == ",test,train"
    assert browser.run(listed.format("kind")) == ",product,sum"
    pick = (
        "(() => {{ const s = document.getElementById('{}'); s.value = '{}'; s.dispatchEvent(new Event('change')); }})()"
    )
    browser.run(pick.format("split", "test"))
    assert browser.run("shown.join()") == "1,2"
    browser.run(pick.format("kind", "sum"))
    assert browser.run("shown.join()") == "1"
    ends = "[...block.state.keys()].filter((i) => block.state[i] & STATE.end)"
    assert browser.run(f"{ends}.map((i) => Boolean(block.state[i] & STATE.correct) === (worth(i) === 1)).join()") == (
        "true,true"
    )
    assert browser.run("document.documentElement.scrollWidth <= 1280")
    assert browser.problems == []
