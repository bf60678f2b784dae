"""Teachers read passages, the primary does not, and the tree says which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treegym.__main__ import main
from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.grow.retrieving import Retrieval
from treegym.errors import ConfigError, DataError
from treegym.models.embeddings import WordEmbedder
from treegym.models.local.fake import ALPHABET, FakeLanguageModel, FakeTokenizer
from treegym.models.passages import Passage
from treegym.models.retrieval import Retriever, RetrieverSettings
from treegym.tree.token_tree import Root, TokenTree

FACTS = ["the roofs of zor are red.", "the roofs of kel are blue."]
PROMPTS = [Root("roofs of zor?", "red"), Root("roofs of kel?", "blue"), Root("weather?", "rain")]
SETTINGS = GrowSettings(mode="answers", max_tokens=8, max_nodes=40)
NOTED = [{"source": "facts.txt", "place": 0}, {"source": "facts.txt", "place": 1}]


def retrieval(threshold: float = 0.3) -> Retrieval:
    passages = [Passage("facts.txt", place, text) for place, text in enumerate(FACTS)]
    settings = RetrieverSettings(passages=1, threshold=threshold)
    return Retrieval(Retriever(passages, WordEmbedder(FACTS), settings))


def models(alphabet: str = ALPHABET + "\n") -> tuple[FakeLanguageModel, FakeLanguageModel]:
    """Returns a primary that knows nothing, and a teacher that knows an answer where it reads the fact before it."""
    reads = {f"{fact}\n\n{root.prompt}": root.answer for fact, root in zip(FACTS, PROMPTS, strict=False)}
    tokenizer = FakeTokenizer(alphabet)
    teacher = FakeLanguageModel(name="reader", seed=1, tokenizer=FakeTokenizer(ALPHABET + "\n"), answers=reads)
    return FakeLanguageModel(name="primary", seed=2, tokenizer=tokenizer), teacher


def right(root: Root, text: str) -> float:
    return float(text == root.answer)


def solved(tree: TokenTree) -> list[bool]:
    owners = tree.root_of(range(tree.size))
    return [bool((tree.verdict[owners == root] >= 0.5).any()) for root in range(tree.num_roots)]


@pytest.mark.parametrize("alphabet", [ALPHABET + "\n", ALPHABET], ids=["the same tokens", "other tokens"])
def test_what_the_primary_does_not_know_comes_in_by_passages(tmp_path: Path, alphabet: str) -> None:
    for name, asked in (("without", None), ("with", retrieval())):
        primary, teacher = models(alphabet)
        out = tmp_path / f"{name}.tree"
        grow(PROMPTS, primary=primary, teachers=[teacher], out=out, settings=SETTINGS, verify=right, retrieval=asked)
    without, grown = TokenTree.open(tmp_path / "without.tree"), TokenTree.open(tmp_path / "with.tree")
    assert solved(without) == [False, False, False]
    assert solved(grown) == [True, True, False]
    noted = [[{k: v for k, v in p.items() if k != "score"} for p in r.extra["passages"]] for r in grown.roots]
    assert noted == [NOTED[:1], NOTED[1:], []]  # nothing is near enough to "weather?"
    assert grown.header["retrieval"]["held"]["count"] == 2
    assert [root.tokens for root in grown.roots] == [root.tokens for root in without.roots]  # the primary's own


def test_a_growth_goes_on_with_the_same_passages_only(tmp_path: Path) -> None:
    primary, teacher = models()
    work = tmp_path / "work"
    asked = {"primary": primary, "teachers": [teacher], "out": tmp_path / "a.tree", "work": work}
    with pytest.raises(ZeroDivisionError):
        grow(PROMPTS, settings=SETTINGS, retrieval=retrieval(), verify=lambda root, text: 1 / 0, **asked)
    with pytest.raises(ConfigError, match="begun with different prompts, retrieval"):
        grow(PROMPTS, settings=SETTINGS, retrieval=retrieval(0.9), verify=right, **asked)
    assert solved(grow(PROMPTS, settings=SETTINGS, retrieval=retrieval(), verify=right, **asked))[0]


def test_passages_without_teachers_or_without_room_are_refused(tmp_path: Path) -> None:
    primary, teacher = models()
    with pytest.raises(ConfigError, match="passages are for teachers"):
        grow(PROMPTS, primary=primary, out=tmp_path / "a.tree", retrieval=retrieval())
    with pytest.raises(ConfigError, match="on this machine only"):
        grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "a.tree", retrieval=retrieval(),
             elsewhere=lambda *_: iter(()))  # fmt: skip
    teacher.context_length = 40  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="show fewer or shorter passages"):
        grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "a.tree", retrieval=retrieval())
    with pytest.raises(ConfigError, match=r"must hold \{passages\}"):
        Retrieval(retrieval().retriever, frame="Read this:")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    folder, prompts = tmp_path / "facts", tmp_path / "prompts.jsonl"
    folder.mkdir()
    prompts.write_text('{"prompt": "12+30-5=", "answer": "37"}\n')
    asked = ["grow", "--out", str(tmp_path / "t.tree"), "--prompts", str(prompts), "--teacher", "tiny-gpt2", "--quiet"]
    asked += ["--device", "cpu", "--threads", "1", "--retrieve", str(folder), "--retrieve-by", "words"]
    asked += ["--passage-threshold", "-1", "--passage-frame", "{passages} "]
    assert main(asked) == 1
    assert "holds no text file" in capsys.readouterr().err
    (folder / "sums.txt").write_text("Zwölf")
    assert main(asked) == 1
    assert "cannot express" in capsys.readouterr().err
    (folder / "sums.txt").write_text("12+30=42.")
    assert main([*asked, "--json", "--max-tokens", "20"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 1
    [root] = TokenTree.open(tmp_path / "t.tree").roots
    assert root.extra["passages"][0]["source"] == "sums.txt"
