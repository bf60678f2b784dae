"""Servers that tell no or few log-probabilities: found out before growing, and answers are grown instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.errors import BackendError
from treegym.models import load_model
from treegym.models.base import LanguageModel
from treegym.models.embeddings import HiddenStateEmbedder
from treegym.models.local.fake import FakeLanguageModel, FakeTokenizer
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.remote import RemoteModel
from treegym.models.serving.server import running_server
from treegym.tree.token_tree import Root, TokenTree

pytest.importorskip("transformers")
pytest.importorskip("uvicorn")
SMALL = ["--prompts", "bundled:train=2,test=1", "--device", "cpu", "--threads", "1", "--quiet", "--json"]
PROMPTS = [Root("12+30-5=", "37"), Root("24*7=", "168")]
SETTINGS = GrowSettings(max_tokens=12, max_nodes=60)


@pytest.fixture(scope="module")
def llama() -> TransformersModel:
    return load_model("tiny-llama", device="cpu")


@pytest.fixture(scope="module")
def primary() -> TransformersModel:
    return load_model("tiny-primary", device="cpu")


@contextmanager
def served(model: LanguageModel, most: int | None) -> Iterator[str]:
    with running_server(model, max_wait_ms=0.0, max_logprobs=most) as server:
        yield server.url


def grown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """Runs the command; returns the mode it grew in and what it told on standard error."""
    assert main(["grow", *SMALL, *arguments]) == 0
    said = capsys.readouterr()
    return str(json.loads(said.out.strip().splitlines()[-1])["mode"]), said.err


@pytest.mark.parametrize(("most", "told"), [(0, "no log-probabilities"), (5, "only 5 log-probabilities")])
@pytest.mark.parametrize("mode", ["mixed", "step"])
def test_the_command_falls_back_to_answers_and_says_so(llama, tmp_path: Path, capsys, most, told, mode) -> None:
    home = tmp_path / "home.tree"
    grown(capsys, "--out", str(home), "--teacher", "tiny-llama", "--mode", "answers")
    with served(llama, most) as url:
        out = tmp_path / "served.tree"
        got, notice = grown(capsys, "--out", str(out), "--teacher", f"{url}#tokenizer=tiny-llama", "--mode", mode)
    assert got == "answers"
    assert f"tiny-llama gives {told} per position, growth mode {mode!r} needs 24" in notice
    assert "growing 'answers' instead" in notice
    assert len(notice.strip().splitlines()) == 1  # a sentence, and no trace of where in the code it came from
    tree, wanted = TokenTree.open(out), TokenTree.open(home)
    assert tree.header["growth"]["mode"] == "answers"
    np.testing.assert_array_equal(tree.token, wanted.token)
    np.testing.assert_array_equal(tree.proposers, wanted.proposers)
    assert tree.is_closed


def test_as_many_as_are_told_will_do_where_no_unlikely_ones_are_wanted(llama, tmp_path: Path, capsys) -> None:
    with served(llama, 5) as url:
        teacher = ["--teacher", f"{url}#tokenizer=tiny-llama", "--wrong", "0"]
        assert grown(capsys, "--out", str(tmp_path / "a.tree"), *teacher, "--right", "5") == ("mixed", "")
        got, notice = grown(capsys, "--out", str(tmp_path / "b.tree"), *teacher, "--right", "6")
    assert got == "answers"
    assert "needs 6" in notice


def test_the_command_tells_what_was_asked_of_servers(llama, tmp_path: Path, capsys) -> None:
    with served(llama, None) as url:
        arguments = ["--teacher", f"{url}#tokenizer=tiny-llama&name=far", "--teacher", "tiny-gpt2"]
        assert main(["grow", *SMALL, "--out", str(tmp_path / "t.tree"), *arguments]) == 0
        asked = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["asked"]
        assert list(asked) == ["far"]
        assert asked["far"]["requests"] > 0
        assert asked["far"]["completion_tokens"] > 0
        assert asked["far"]["failures"] == 0
        assert main(["grow", *SMALL[:-1], "--out", str(tmp_path / "s.tree"), *arguments]) == 0
    assert re.search(r"^far: [\d,]+ requests \(\d+ repeated\), [\d,]+ tokens read", capsys.readouterr().out, re.M)


def test_a_server_that_tells_all_grows_what_was_asked_for(llama, tmp_path: Path, capsys) -> None:
    with served(llama, None) as url:
        assert grown(capsys, "--out", str(tmp_path / "t.tree"), "--teacher", f"{url}#tokenizer=tiny-llama") == (
            "mixed",
            "",
        )


def test_a_chat_takes_part_by_its_answers_and_needs_no_tokenizer(llama, tmp_path: Path, capsys) -> None:
    with served(llama, 0) as url:
        assert grown(capsys, "--out", str(tmp_path / "t.tree"), "--teacher", f"{url}#chat=yes") == ("mixed", "")
        got, notice = grown(capsys, "--out", str(tmp_path / "s.tree"), "--teacher", f"{url}#chat=yes", "--mode", "step")
    tree = TokenTree.open(tmp_path / "t.tree")
    assert (tree.proposers[tree.parent >= 0] & 2).any()
    assert got == "answers"
    assert "no log-probabilities" in notice


@pytest.mark.filterwarnings("ignore:tiny-llama gives no log-probabilities:UserWarning")
def test_an_interrupted_fallback_goes_on(llama, primary, tmp_path: Path) -> None:
    """The mode that was fallen back to is the one the work directory remembers."""
    calls = 0

    def stopping(root: Root, text: str) -> float:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return 0.0

    with served(llama, 0) as url:
        teacher = RemoteModel(url, tokenizer=llama.tokenizer)
        with pytest.raises(KeyboardInterrupt):
            grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", verify=stopping)
        with pytest.warns(UserWarning, match="growing 'answers' instead"):
            grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", verify=stopping)
    assert TokenTree.open(tmp_path / "t.tree").header["growth"]["mode"] == "answers"


def test_a_foreign_teacher_that_tells_few_has_answers_and_no_opinions(primary, tmp_path: Path) -> None:
    foreign = FakeLanguageModel(tokenizer=FakeTokenizer("=-+*.9876543210"), seed=2, name="foreign")
    with served(foreign, 5) as url:
        teacher = RemoteModel(url, tokenizer=foreign.tokenizer)
        with pytest.warns(UserWarning, match="gives only 5 log-probabilities"):
            tree = grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", settings=SETTINGS)
    below = tree.parent >= 0
    assert np.isnan(tree.teacher_logp[below].astype(np.float32)).all()
    assert (tree.proposers[below] & 2).any()


def test_a_primary_that_tells_few_needs_an_embedder(primary, tmp_path: Path) -> None:
    """Scored prompts give the paths' log-probabilities; what else the primary knows has to come from elsewhere."""

    embedder = HiddenStateEmbedder(primary)
    settings = GrowSettings(mode="answers", max_tokens=12, max_nodes=60)
    with served(primary, 5) as url:
        remote = RemoteModel(url, tokenizer=primary.tokenizer, name="tiny-primary")
        with pytest.raises(BackendError, match="describe contexts by an embedder"):
            grow(PROMPTS, primary=remote, out=tmp_path / "no.tree", settings=settings)
        out = tmp_path / "few.tree"
        few = grow(PROMPTS, primary=remote, out=out, settings=settings, embedder=embedder)
    home = grow(PROMPTS, primary=primary, out=tmp_path / "home.tree", settings=settings, embedder=embedder)
    np.testing.assert_array_equal(few.token, home.token)
    np.testing.assert_allclose(few.prior, home.prior, atol=1e-4)
    with served(primary, 0) as url:
        silent = RemoteModel(url, tokenizer=primary.tokenizer)
        with pytest.raises(BackendError, match="scores no texts, so it cannot close a tree"):
            grow(PROMPTS, primary=silent, out=tmp_path / "no.tree", settings=settings, embedder=embedder)
