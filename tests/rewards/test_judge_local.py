"""Judges in this process: constrained verdicts, stored judgements, pairs and principles."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.models.loading import DATA
from treegym.models.local.fake import FakeLanguageModel
from treegym.rewards import build
from treegym.rewards.judge.local import LocalJudge
from treegym.rewards.judge.prompt import Case, JudgePrompt, fill
from treegym.rewards.judge.term import Judge
from treegym.rewards.local import local_model, verdict_probability


class Opinionated(FakeLanguageModel):
    """Thinks that texts with a 4 right before the end are good; would rather say something else altogether."""

    asked = 0

    def next_logprobs(self, contexts):
        self.asked += len(contexts)
        logprobs = np.full((len(contexts), self.tokenizer.vocab_size), -20.0, np.float32)
        yes, no, other = (self.tokenizer.encode(c)[0] for c in "ynx")
        for row, context in enumerate(contexts):
            good = self.tokenizer.decode(context).rstrip("?").endswith("4")
            logprobs[row, [yes, no, other]] = np.log([0.03, 0.01, 0.96] if good else [0.01, 0.04, 0.95])
        return logprobs


def local(**options):
    return LocalJudge(**{"model": Opinionated(), "template": "{prompt}{answer}?", **options})


def test_verdict_is_constrained_to_its_tokens():
    # 0.03 / (0.03 + 0.01) and 0.01 / (0.01 + 0.04), whatever else it would like to say
    assert verdict_probability(Opinionated(), ["4?", "5?"], yes=["y"], no=["n"]) == pytest.approx([0.75, 0.2])
    with pytest.raises(ConfigError, match="begin with the same token"):
        verdict_probability(Opinionated(), ["4?"], yes=["yes"], no=["yno"])


def test_stored_judgements_need_no_model(small):
    table = build("judge").on(small)
    assert table.complete
    assert table.total[[4, 6, 8]] == pytest.approx([0.9, 0.2, 0.6])


def test_only_what_is_not_stored_is_asked(small):
    model = Opinionated()
    small.judge[6] = np.nan
    judge = Judge(backend=local(model=model))
    judge._stored = True
    table = build(judge).on(small)
    assert not table.complete
    table.ensure(np.array([4, 6, 8]))
    assert table.total[[4, 6, 8]] == pytest.approx([0.9, 0.2, 0.6])  # "2+2=5?" -> 0.2
    assert model.asked == 1


def test_pairs_cancel_position_bias():
    class First(LocalJudge):
        def scores(self, cases, *, keep=None):
            return [0.8] * len(cases), {}  # always 80 % for whatever comes first

    judge = Judge(backend=First(model="none", template="{answer}{rival}"), mode="pairwise", template="{answer}{rival}")
    assert judge.judge([Case("2+2=", "4", rival="5")])[0] == [pytest.approx(0.5)]


def test_equal_cases_are_asked_once():
    model = Opinionated()
    judge = Judge(backend=local(model=model))
    assert judge.judge([Case("2+2=", "4")] * 5 + [Case("2+2=", "5")])[0] == pytest.approx([0.75] * 5 + [0.2])
    assert model.asked == 2


def test_principles_are_asked_one_by_one():
    judge = local(template="{principle}{prompt}{answer}?", principles=["be right ", "be short "])
    assert judge.scores([Case("2+2=", "4")])[0] == [pytest.approx(0.75)]
    assert judge._model.asked == 2


def test_fill_does_not_fill_what_was_filled_in():
    case = Case("{answer}", "{prompt}", reference="{rival}")
    assert fill("{prompt}|{answer}|{reference}|{x}", case) == "{answer}|{prompt}|{rival}|{x}"
    with pytest.raises(ConfigError, match=r"asks for \{rival\}"):
        fill("{rival}", case)


@pytest.mark.parametrize(
    ("reply", "score"),
    [("yes", 1.0), ("No.", 0.0), (" y ", 1.0), ("N", 0.0), ("<think>no, wait</think> yes", 1.0)],
)
def test_words(reply, score):
    assert JudgePrompt(form="yes_no").read(reply, Case("", "")) == score


@pytest.mark.parametrize("reply", ["yes and no", "maybe", "", "1", "no doubt: yes"])
def test_other_words_are_failures(reply):
    with pytest.raises(ValueError, match="was asked for"):
        JudgePrompt(form="yes_no").read(reply, Case("", ""))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "triple"}, "'pointwise' or 'pairwise'"),
        ({"model": "some/model"}, "needs a template"),
        ({"mode": "pairwise"}, "needs a template with {rival}"),
        ({"principles": "be nice"}, "a list of texts"),
        ({"form": "essay"}, "the form of a judge"),
        ({"url": "ftp://x"}, "http://127.0.0.1"),
        ({"modell": "x"}, "Did you mean 'model'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ConfigError, match=words):
        build({"judge": options})


def test_json_form():
    spec = {"judge": {"url": "http://127.0.0.1:9/v1", "rubric": "Be strict.", "principles": ["a"], "cache": False}}
    reward = build(spec)
    assert build(json.loads(reward.to_json())) == reward
    with pytest.raises(ConfigError, match="no JSON form"):
        build(Judge(backend=local())).to_json()


def test_instruct_models_are_asked_through_their_chat_template():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer

    rules = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<eos>", "?", "user", "say", "y", "n", "4"])}, "?")
    )
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<eos>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}say"
    heard = []

    class Listening(FakeLanguageModel):
        def next_logprobs(self, contexts):
            heard.extend(self.tokenizer.hf.convert_ids_to_tokens(context) for context in contexts)
            return super().next_logprobs(contexts)

    fake = Listening(tokenizer=HuggingFaceTokenizer(fast))
    LocalJudge(model=fake, template="{answer} y n").scores([Case("2+2=", "4")])
    LocalJudge(model=fake, template="{answer} y n", chat=False).scores([Case("2+2=", "4")])
    assert heard == [["user", "4", "y", "n", "say"], ["4", "y", "n"]]
    with pytest.raises(ConfigError, match="has no chat template"):
        local(chat=True).scores([Case("2+2=", "4")])


def test_rubric_and_reference_reach_a_template_that_asks_for_them(small):
    model = Opinionated()
    seen = []
    model.next_logprobs = lambda contexts: (
        seen.extend(model.tokenizer.decode(context) for context in contexts)
        or Opinionated.next_logprobs(model, contexts)
    )
    backend = local(model=model, template="{rubric};{reference};{answer}?", rubric="be strict")
    judge = Judge(backend=backend, template="{rubric};{reference};{answer}?", rubric="be strict")
    table = build(judge).on(small)
    table.ensure(np.array([6]))
    assert seen == ["be strict;4;5?"]
    assert table.total[6] == pytest.approx(0.2)


def test_threads_that_want_a_judge_at_once_share_one(tmp_path: Path) -> None:
    folder = tmp_path / "judge"  # a name of its own, which no other test has loaded
    shutil.copytree(DATA / "tiny-primary", folder)
    together = threading.Barrier(4)

    def judge(_: int) -> Any:
        together.wait(30)
        return local_model(str(folder))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(judge, range(4)))
    assert all(one is found[0] for one in found)
