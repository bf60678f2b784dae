"""Growing with models that need no weights: structure, provenance, closing, verdicts, bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.settings import MODES, GrowSettings
from treegym.errors import ConfigError, DataError
from treegym.models.local.fake import FakeLanguageModel, FakeTokenizer
from treegym.tree.flags import END, GREEDY
from treegym.tree.token_tree import Root, TokenTree

ROOTS = [Root("1+1=", "2"), Root("2+2=", "4", "test"), Root("9*9=", "81", kind="product")]


def exact(root: Root, text: str) -> float:
    return float(text.strip(".") == root.answer)


def models() -> tuple[FakeLanguageModel, list[FakeLanguageModel]]:
    primary = FakeLanguageModel(name="primary", answers={"1+1=": "3.", "2+2=": "4."})
    right = FakeLanguageModel(name="right", seed=1, answers={"1+1=": "2.", "2+2=": "4.", "9*9=": "81."})
    wrong = FakeLanguageModel(name="wrong", seed=2, answers={"1+1=": "3.", "2+2=": "5.", "9*9=": "18."})
    return primary, [right, wrong]


def grown(path: Path, **changes: object) -> TokenTree:
    primary, teachers = models()
    settings = GrowSettings(**{"max_tokens": 8, "max_nodes": 60, "max_children": 5, "shard": 2} | changes)  # type: ignore[arg-type]
    return grow(ROOTS, primary=primary, teachers=teachers, out=path, settings=settings, verify=exact)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_a_sound_closed_tree_within_its_bounds(mode: str, tmp_path: Path) -> None:
    tree = grown(tmp_path / "t.tree", mode=mode)
    tree.validate()
    assert tree.is_closed
    assert tree.num_roots == 3
    assert tree.splits == ["train", "test", "train"]
    assert tree.depth.max() <= 8
    assert tree.child_count.max() <= 5
    sizes = np.diff([*tree.root_node, tree.size])
    assert sizes.max() <= 60
    ends = (tree.flags & END) != 0
    assert np.isfinite(tree.verdict[ends]).all()
    assert np.isnan(tree.verdict[~ends]).all()
    below = tree.parent >= 0
    assert (tree.proposers[below] > 0).all()
    assert np.isfinite(tree.teacher_logp[below].astype(np.float32)).all()
    assert np.isfinite(tree.similarity[below].astype(np.float32)).all()


def test_answers_form_a_trie_with_provenance(tmp_path: Path) -> None:
    tree = grown(tmp_path / "t.tree", mode="answers")
    # root 0: the primary and "wrong" say "3.", "right" says "2."; nodes: 2 first tokens, 2 stops, 2 ends
    first = tree.children(int(tree.root_node[0]))
    texts = {tree.text(int(node)): int(tree.proposers[node]) for node in first}
    assert texts == {"3": 0b101, "2": 0b010}  # bit 0 the primary, bit 1 "right", bit 2 "wrong"
    ends = [n for n in range(tree.size) if tree.flags[n] & END and tree.root_of(n)[0] == 0]
    assert {tree.text(n): float(tree.verdict[n]) for n in ends} == {"3.": 0.0, "2.": 1.0}


def test_even_answers_keep_to_the_children_a_context_may_have(tmp_path: Path) -> None:
    teachers = [FakeLanguageModel(name=f"t{i}", seed=i, answers={"1+1=": f"{i}."}) for i in range(2, 8)]
    primary = FakeLanguageModel(name="primary", answers={"1+1=": "2."})
    settings = GrowSettings(mode="answers", max_tokens=8, max_children=3)
    tree = grow(ROOTS[:1], primary=primary, teachers=teachers, out=tmp_path / "t.tree", settings=settings)
    assert {tree.text(int(n)) for n in tree.children(0)} == {"2", "3", "4"}
    assert tree.is_closed


def test_columns_are_what_the_models_say(tmp_path: Path) -> None:
    tree = grown(tmp_path / "t.tree")
    primary, teachers = models()
    rng = np.random.default_rng(0)
    for node in rng.choice(np.flatnonzero(tree.parent >= 0), 40, replace=False):
        root = int(tree.root_of(node)[0])
        path = tree.path(int(node)).tolist()
        context = [*tree.roots[root].tokens, *path[:-1]]
        assert tree.prior[node] == pytest.approx(primary.score([context], [path[-1:]])[0][0], abs=1e-5)
        for column, teacher in enumerate(teachers):
            said = teacher.score([context], [path[-1:]])[0][0]
            assert tree.teacher_logp[node, column] == pytest.approx(said, abs=0.02)
        mine = primary.embed([[*context, path[-1]]])[0]
        own = primary.embed([[*context, int(primary.next_logprobs([context])[0].argmax())]])[0]
        cosine = mine @ own / np.linalg.norm(mine) / np.linalg.norm(own)
        assert tree.similarity[node] == pytest.approx(cosine, abs=2e-3)


def test_closings_are_the_primarys_greedy_continuation(tmp_path: Path) -> None:
    tree = grown(tmp_path / "t.tree")
    primary, _ = models()
    greedy = np.flatnonzero(tree.flags & GREEDY)
    assert len(greedy) > 20
    for node in greedy:
        path = tree.path(int(node)).tolist()
        if len(path) == 8:  # at the depth limit an end is put, whatever the primary would say
            assert path[-1] == primary.tokenizer.eos_id
            continue
        context = [*tree.roots[int(tree.root_of(node)[0])].tokens, *path[:-1]]
        assert path[-1] == primary.next_logprobs([context])[0].argmax()


def test_siblings_carry_right_and_wrong_tokens_of_every_voice(tmp_path: Path) -> None:
    tree = grown(tmp_path / "t.tree", max_nodes=400, max_children=8, right=2, wrong=1)
    counts = [int(((tree.proposers >> bit) & 1).sum()) for bit in range(3)]
    assert min(counts[1:]) > 0.5 * max(counts[1:])  # no teacher crowds out the other
    primary, teachers = models()
    context = [*tree.roots[0].tokens]
    children = {int(tree.token[n]): int(tree.proposers[n]) for n in tree.children(0)}
    for bit, model in enumerate([primary, *teachers]):
        ranked = np.argsort(-model.next_logprobs([context])[0])
        ranked = ranked[ranked != model.tokenizer.pad_id]
        for token in (ranked[0], ranked[1], ranked[-1]):
            assert children[int(token)] >> bit & 1


def test_the_same_growth_gives_the_same_bytes_and_another_shard_size_the_same_tree(tmp_path: Path) -> None:
    grown(tmp_path / "a.tree")
    grown(tmp_path / "b.tree")
    assert (tmp_path / "a.tree").read_bytes() == (tmp_path / "b.tree").read_bytes()
    other = grown(tmp_path / "c.tree", shard=1)
    np.testing.assert_array_equal(other.token, TokenTree.open(tmp_path / "a.tree").token)
    assert not list(tmp_path.glob("*.growing"))


def test_unusable_requests_say_what_is_wrong(tmp_path: Path) -> None:
    primary, teachers = models()
    out = tmp_path / "t.tree"
    with pytest.raises(ConfigError, match="no prompts"):
        grow([], primary=primary, teachers=teachers, out=out)
    with pytest.raises(ConfigError, match="same name"):
        grow(ROOTS, primary=primary, teachers=[teachers[0]] * 2, out=out)
    with pytest.raises(ConfigError, match="is no directory"):
        grow(ROOTS, primary=primary, out=tmp_path / "missing" / "t.tree")
    narrow = FakeLanguageModel(name="narrow", tokenizer=FakeTokenizer("123+="))
    with pytest.raises(DataError, match=r"the primary 'narrow' cannot express the prompt '9\*9='"):
        grow(ROOTS, primary=narrow, out=out)
    with pytest.raises(ConfigError, match=r"mode is 'mixt'\. Did you mean 'mixed'"):
        GrowSettings(mode="mixt")
    with pytest.raises(ConfigError, match="too few for one path"):
        GrowSettings(max_nodes=10, max_tokens=10)
    assert list(tmp_path.iterdir()) == []
    grow(ROOTS[:1], primary=primary, out=out)
    with pytest.raises(ConfigError, match="exists already"):
        grow(ROOTS[:1], primary=primary, out=out)
    grow(ROOTS[:2], primary=primary, out=out, overwrite=True)
    assert TokenTree.open(out).num_roots == 2
