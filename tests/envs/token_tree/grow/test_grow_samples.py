"""Growing by sampling: counts, laws, forks and their independence, with a model that needs no weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treegym.envs.token_tree.clusters import canonical
from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.sample_settings import SampleSettings
from treegym.envs.token_tree.grow.sampling import law_of
from treegym.errors import ConfigError
from treegym.models.local.fake import FakeLanguageModel
from treegym.tree.editing import merge, select_roots
from treegym.tree.flags import END, EOS, STOPPED
from treegym.tree.samples import counts, fork_starts, leaves, require_samples, samplers
from treegym.tree.token_tree import Root, TokenTree

ROOTS = [Root(f"{i}+1=", str(i + 1)) for i in range(5)]


def sampled(path: Path, *, teachers: int = 0, **changes: object) -> TokenTree:
    settings = SampleSettings(**{"samples": 12, "max_tokens": 6, "shard": 2, "seed": 3} | changes)  # type: ignore[arg-type]
    others = [FakeLanguageModel(name=f"t{i}", seed=i + 1) for i in range(teachers)]
    return grow(ROOTS, primary=FakeLanguageModel(name="primary"), teachers=others, out=path, settings=settings)


def test_every_chain_is_counted_and_its_law_is_kept(tmp_path: Path) -> None:
    tree = sampled(tmp_path / "t.tree", teachers=1)
    tree.validate()
    assert tree.is_closed
    assert [(s.model, s.kind) for s in samplers(tree)] == [("primary", "chains"), ("t0", "chains")]
    assert tree.sampled.shape == (tree.size, 2)
    for column in range(2):
        own = counts(tree, columns=[column])
        for root in tree.root_node:
            assert own[tree.children(int(root))].sum() == 12
        # What goes in comes out: below the roots no draw begins, and each ends in a terminal.
        assert (fork_starts(tree, column)[tree.parent >= 0] == 0).all()
        assert leaves(tree, own).times.sum() == 12 * len(ROOTS)
        assert (np.isfinite(tree.sampled_logp[:, column]) == (own > 0)).all()
    drawn = tree.sampled[:, 0] > 0
    assert np.array_equal(tree.sampled_logp[drawn, 0], tree.prior[drawn])
    ends = (tree.flags & END) != 0
    cut = ends & ((tree.flags & EOS) == 0)
    assert ((tree.flags[cut] & STOPPED) != 0).all()
    assert (tree.depth[cut] == 6).all()


@pytest.mark.parametrize("law", [{"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 3, "temperature": 1.3}])
def test_laws_other_than_the_models_own_are_kept(law: dict[str, float], tmp_path: Path) -> None:
    tree = sampled(tmp_path / "t.tree", samples=40, **law)
    model = FakeLanguageModel(name="primary")
    settings = SampleSettings(**law)  # type: ignore[arg-type]
    root = int(tree.root_node[0])
    expected = law_of(model.next_logprobs([model.tokenizer.encode(ROOTS[0].prompt)]), settings)[0]
    children = tree.children(root)
    assert tree.sampled_logp[children, 0] == pytest.approx(expected[tree.token[children]], abs=1e-5)
    assert np.isfinite(tree.sampled_logp[children, 0]).all()  # nothing outside the law was drawn
    if "top_k" in law:
        assert len(children) <= 3


def test_law_by_hand() -> None:
    # Probabilities 0.5, 0.3, 0.2: top-p 0.6 keeps what is needed to reach 0.6: 0.5 and 0.3, i.e. 5/8 and 3/8.
    logprobs = np.log(np.array([[0.3, 0.5, 0.2]], np.float32))
    assert np.exp(law_of(logprobs, SampleSettings(top_p=0.6)))[0] == pytest.approx([3 / 8, 5 / 8, 0])
    assert np.exp(law_of(logprobs, SampleSettings(top_k=1)))[0] == pytest.approx([0, 1, 0])
    # Temperature 1/2 squares: 0.25, 0.09, 0.04 over 0.38.
    assert np.exp(law_of(logprobs, SampleSettings(temperature=0.5)))[0] == pytest.approx([9 / 38, 25 / 38, 4 / 38])


@pytest.mark.parametrize("rule", ["surprise", "entropy", "boundary", "random"])
def test_forks_begin_where_they_are_put_and_are_counted_apart(rule: str, tmp_path: Path) -> None:
    tree = sampled(
        tmp_path / "t.tree", mode="forks", samples=3, forks=2, completions=2, rounds=2, fork_at=rule, segment=2
    )
    tree.validate()
    assert [s.kind for s in samplers(tree)] == ["chains", "forks"]
    assert counts(tree, kind="chains")[tree.depth == 1].sum() == 3 * len(ROOTS)
    starts = fork_starts(tree, 1)
    begun = starts[(tree.flags & END) == 0].sum()
    # 3 trunks, 2 rounds, 2 places, 2 texts each; a trunk whose first token ends the text has no place.
    assert 0 < begun <= 3 * 2 * 2 * 2 * len(ROOTS)
    assert begun % 2 == 0
    assert (starts[tree.root_node] == 0).all()  # the first token of a text is never said anew
    if rule == "boundary":
        assert (tree.depth[starts > 0] % 2 == 0).all()
    assert leaves(tree, counts(tree)).times.sum() == 3 * len(ROOTS) + begun


def test_surprise_forks_before_the_least_likely_token(tmp_path: Path) -> None:
    tree = sampled(tmp_path / "t.tree", mode="forks", samples=1, forks=1)
    for root in tree.root_node:
        trunk = [int(root)]
        while True:
            following = [c for c in map(int, tree.children(trunk[-1])) if tree.sampled[c, 0]]
            if not following:
                break
            trunk += following
        if len(trunk) < 3:
            continue
        later = trunk[2:]  # tokens after the first
        worst = later[int(np.argmin(tree.prior[later]))]
        assert fork_starts(tree, 1)[tree.parent[worst]] == 1


def test_a_growth_that_stopped_ends_in_the_same_bytes(tmp_path: Path) -> None:
    sampled(tmp_path / "whole.tree", mode="forks")

    class Dying(FakeLanguageModel):
        def generate(self, contexts, **options):  # type: ignore[no-untyped-def]
            if options.get("temperature") and any(context[0] == self.tokenizer.encode("4")[0] for context in contexts):
                raise KeyboardInterrupt
            return super().generate(contexts, **options)

    settings = SampleSettings(mode="forks", samples=12, max_tokens=6, shard=2, seed=3)
    with pytest.raises(KeyboardInterrupt):
        grow(ROOTS, primary=Dying(name="primary"), out=tmp_path / "cut.tree", settings=settings)
    assert len(list((tmp_path / "cut.tree.growing").glob("shard-*"))) == 2
    sampled(tmp_path / "cut.tree", mode="forks")
    assert (tmp_path / "cut.tree").read_bytes() == (tmp_path / "whole.tree").read_bytes()


def test_trees_of_samples_are_merged_and_cut(tmp_path: Path) -> None:
    a, b = sampled(tmp_path / "a.tree"), sampled(tmp_path / "b.tree", version="1")
    both = merge([a, b])
    both.validate()
    assert [s.version for s in samplers(both)] == ["0", "1"]
    assert counts(both, columns=[0]).sum() == counts(a).sum()
    assert counts(both, columns=[1])[a.size :].tolist() == counts(b).tolist()
    part = select_roots(a, [1])
    assert counts(part)[part.children(0)].sum() == 12


def test_answers_are_clustered() -> None:
    assert canonical("so 3 + 4 = 7.0") == canonical("The answer is 7") == 7.0
    assert canonical("") is None
    assert canonical("85.72.", bundled=True) == "72"
    assert canonical("85.72", bundled=True) is None


def test_what_cannot_be_sampled_is_refused(synthetic: TokenTree) -> None:
    with pytest.raises(ConfigError, match="temperature is 0, at which all samples are the same"):
        SampleSettings(temperature=0)
    with pytest.raises(ConfigError, match="samples is 0"):
        SampleSettings(samples=0)
    with pytest.raises(ConfigError, match="fork_at is 'suprise'"):
        SampleSettings(fork_at="suprise")
    with pytest.raises(ConfigError, match="needs a tree of samples, and this one holds none"):
        require_samples(synthetic, purpose="VinePPO")
