"""A live tree grows under walking episodes, and its columns are what a closed growth would have stored."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.envs.token_tree.grow.live import LiveGrower
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.envs.token_tree.vector import TokenTreeVectorEnv
from treegym.models.local.fake import FakeLanguageModel
from treegym.tree.flags import EXPANDED
from treegym.tree.token_tree import Root

ROOTS = [Root("1+1=", "2"), Root("2+2=", "4"), Root("3+5=", "8")]


def grower() -> LiveGrower:
    primary = FakeLanguageModel(name="primary", answers={"1+1=": "2.", "2+2=": "5."})
    teachers = [FakeLanguageModel(name="a", seed=1), FakeLanguageModel(name="b", seed=2)]
    settings = GrowSettings(max_children=5, max_tokens=6, right=3, wrong=1)
    return LiveGrower(primary, teachers, settings=settings, verify=lambda r, t: float(t.strip(".") == r.answer))


def test_episodes_walk_a_tree_that_grows_under_them() -> None:
    live = grower()
    tree = live.plant(ROOTS)
    assert tree.size == 3
    env = TokenTreeVectorEnv(4, tree=tree, grower=live, max_tokens=6, max_children=5)
    observations, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(20):
        mask = observations["action_mask"]
        actions = np.array([rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in mask])
        observations, _, terminated, _, _ = env.step(actions)
        ended += int(terminated.sum())
    assert ended > 3
    tree.validate()
    assert tree.size > 50
    assert tree.depth.max() <= 6
    assert tree.child_count.max() <= 5
    env.close()


def test_one_call_expands_all_nodes_with_the_models_own_numbers() -> None:
    live = grower()
    tree = live.plant(ROOTS)
    live.grow(tree, tree.root_node)
    models = [voice.model for voice in live.voices]
    before = [model.calls for model in models]  # type: ignore[attr-defined]
    edge = np.flatnonzero((tree.flags == 0) & (tree.depth == 1))[:6]
    live.grow(tree, edge)
    assert all((tree.flags[edge] & EXPANDED) > 0)
    assert max(model.calls - b for model, b in zip(models, before, strict=True)) <= 2 * len(edge)  # type: ignore[attr-defined]
    for node in tree.children(int(edge[0])):
        path = tree.path(int(node)).tolist()
        context = [*tree.roots[int(tree.root_of(node)[0])].tokens, *path[:-1]]
        assert tree.prior[node] == pytest.approx(models[0].score([context], [path[-1:]])[0][0], abs=1e-5)
        assert tree.teacher_logp[node, 1] == pytest.approx(models[2].score([context], [path[-1:]])[0][0], abs=0.02)
    best = int(models[0].next_logprobs([context])[0].argmax())
    own = next(n for n in tree.children(int(edge[0])) if tree.token[n] == best)
    assert tree.similarity[own] == pytest.approx(1.0, abs=1e-3)
    assert tree.context[own].any()


def test_ends_are_judged_and_the_depth_limit_ends() -> None:
    live = grower()
    tree = live.plant(ROOTS[:1])
    node = 0
    for _ in range(6):  # follow the first child down
        if not tree.flags[node] & 2:
            live.grow(tree, np.array([node]))
            node = int(tree.children(node)[0])
    assert tree.depth.max() <= 6
    ends = (tree.flags & 2) != 0
    assert np.isfinite(tree.verdict[ends]).all()
    deep = np.flatnonzero(tree.depth == 6)
    assert all(tree.flags[deep] & 2)
