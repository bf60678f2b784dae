"""Data that models make: prompts, revisions and preferences, screened, resumed after a kill, refused when unusable."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError
from treegym.models.embeddings import WordEmbedder
from treegym.models.local.fake import ALPHABET, FakeLanguageModel, FakeTokenizer
from treegym.models.remote.journal import Journal
from treegym.rewards.judge.prompt import Case
from treegym.rewards.learned.preference import read_pairs
from treegym.synthesis.constitution import CRITIQUE, REVISION, constitution, read_principles
from treegym.synthesis.likeness import Rouge, Vectors
from treegym.synthesis.preferences import preferences, verdict_of
from treegym.synthesis.self_instruct import InstructSettings, Screens, self_instruct, series, tasks_in
from treegym.synthesis.writer import Text, Writer
from treegym.tree.roots import Root

LETTERS = FakeTokenizer(ALPHABET + "\n:ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SEEDS = [Root("1+2=", "3", kind="sum"), Root("5+1=", "6", kind="sum")]


def fake(answers: dict[str, str], **options: Any) -> FakeLanguageModel:
    return FakeLanguageModel(tokenizer=LETTERS, answers=answers, **options)


class Script(FakeLanguageModel):
    """Goes on with any series by tasks of its own, and answers a sum right but for 9+9."""

    def __init__(self, tasks: str) -> None:
        super().__init__(tokenizer=LETTERS)
        self.tasks, self.asked = tasks, 0

    def generate(self, contexts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
        self.asked += len(contexts)
        return [self._said(self.tokenizer.decode(context)) for context in contexts]

    def _said(self, text: str) -> list[int]:
        if text.startswith("Come up"):
            said = self.tasks
        else:
            a, b = text.rstrip("=").split("+")
            said = "17" if text == "9+9=" else str(int(a) + int(b))
        return [*self.tokenizer.encode(said), self.tokenizer.eos_id]


def words() -> Vectors:
    return Vectors(WordEmbedder(["1 2", "5 1", "3 4", "9 9"]))


def solve(prompt: str) -> tuple[str, str] | None:
    """Returns the sum that a prompt asks for."""
    a, plus, b = prompt.rstrip("=").partition("+")
    return (str(int(a) + int(b)), "sum") if plus and a.isdigit() and b.isdigit() else None


def test_a_series_and_what_goes_on_with_it() -> None:
    assert series(["1+2=", "5+1="]) == "Come up with a series of tasks:\nTask 1: 1+2=\nTask 2: 5+1=\nTask 3:"
    text = " 3+4=\nTask 4: 9+9=\nTask 5: 1+"
    assert tasks_in(Text(text, ended=True)) == ["3+4=", "9+9=", "1+"]
    assert tasks_in(Text(text, ended=False)) == ["3+4=", "9+9="]  # the last one was cut
    prose = " 3+4=\nThis is a sum.\nTask 4: 9+9=\nSo is"
    assert tasks_in(Text(prose, ended=False)) == ["3+4=", "9+9="]
    assert tasks_in(Text(prose, ended=False), lines=True) == ["3+4=\nThis is a sum."]


def test_what_is_refused_and_what_is_kept() -> None:
    model = Script("3+4=\nTask 4: 1+2=\nTask 5: 7+8=\nTask 6: why?\nTask 7:\nTask 8: 10000000000+1=")
    leaks = Vectors(WordEmbedder(["7 8", "3 4"]))
    leaks.add(["7+8="])
    screens = Screens(likeness=words(), leaks=leaks, solve=solve)
    settings = InstructSettings(rounds=1, asked=1, shown=2, longest=12)
    made = self_instruct(SEEDS, Writer(model), screens, settings)
    assert [row["prompt"] for row in made.rows] == ["3+4="]
    assert made.rows[0] | {"likeness": 0} == {
        "prompt": "3+4=", "split": "train", "kind": "sum", "likeness": 0, "answer": "7", "answered_by": "rule",
        "round": 1, "by": "fake",
    }  # fmt: skip
    assert +made.refused == {
        "like a prompt that is there": 1, "like a prompt that is held out": 1, "no rule answers it": 1, "empty": 1,
        "too long": 1,
    }  # fmt: skip


def test_later_rounds_add_nothing_that_is_there() -> None:
    settings = InstructSettings(rounds=3, asked=2)
    made = self_instruct(SEEDS, Writer(Script("3+4=")), Screens(likeness=words(), solve=solve), settings)
    assert [row["round"] for row in made.rows] == [1]
    assert made.refused["like a prompt that is there"] == 5  # of six times the same task


def test_answers_must_agree_and_the_judge_must_let_them_pass() -> None:
    class Doubts:
        def judge(self, cases: Sequence[Case]) -> tuple[list[float | None], dict[int, str]]:
            return [float(case.answer == str(eval_sum(case.prompt))) for case in cases], {}

    def eval_sum(prompt: str) -> int:
        return sum(map(int, prompt.rstrip("=").split("+")))

    model = Script("3+4=\nTask 4: 9+9=")
    settings = InstructSettings(rounds=1, asked=1, shown=2, answers=3)
    plain = self_instruct(SEEDS, Writer(model), Screens(likeness=words()), settings)
    assert [(row["answer"], row["agreement"]) for row in plain.rows] == [("7", 1.0), ("17", 1.0)]
    judged = self_instruct(SEEDS, Writer(model), Screens(likeness=words(), judge=Doubts()), settings)
    assert [row["prompt"] for row in judged.rows] == ["3+4="]
    assert judged.refused["judge"] == 1
    noisy = FakeLanguageModel(tokenizer=LETTERS, confidence=0.5)  # says something else every time
    doubted = self_instruct(SEEDS, Writer(model), Screens(likeness=words()), settings, answerer=Writer(noisy))
    assert doubted.rows == []
    assert doubted.refused["answers disagree"] == 2


def test_perplexity_between_bounds() -> None:
    model = Script("3+4=\nTask 4: 9+9=")
    reader = Writer(fake({}))
    values = dict(zip(["3+4=", "9+9="], reader.perplexities(["3+4=", "9+9="]), strict=True))
    middle = sum(values.values()) / 2
    screens = Screens(likeness=words(), solve=solve, perplexity=(0.0, middle), reader=reader)
    made = self_instruct(SEEDS, Writer(model), screens, InstructSettings(rounds=1, asked=1))
    assert [row["prompt"] for row in made.rows] == [min(values, key=lambda text: values[text])]
    assert made.refused["perplexity"] == 1


@pytest.mark.skipif(not importlib.util.find_spec("rouge_score"), reason="the extra `rouge` is not installed")
def test_rouge_by_hand() -> None:
    rouge = Rouge()
    assert rouge.nearest("a b c") == 0.0
    rouge.add(["add one and two", "name a city"])
    # The longest common subsequence is "add one and", 3 of 4 words on both sides: F = 0.75.
    assert rouge.nearest("Add one and nine") == pytest.approx(0.75)


def test_a_journal_gives_back_texts_and_costs(tmp_path: Path) -> None:
    model = Script("3+4=")
    asked = [series(["1+2="]), "3+4=", "9+9="]
    with Journal(tmp_path / "j") as journal:
        first = Writer(model, journal, batch=2)
        texts = first.write(asked)
    with Journal(tmp_path / "j") as journal:
        again = Writer(model, journal, batch=2)
        assert again.write(asked) == texts
        assert again.costs == first.costs
        assert model.asked == 3
        again.write(asked, seed=1)  # another question to the journal
        assert model.asked == 6


# ---------------------------------------------------------------- pairs


def test_the_judge_is_asked_in_both_orders() -> None:
    class ByLength:
        """Likes the longer answer; of equally long ones the one that comes first."""

        def orders(self, cases: Sequence[Case]) -> tuple[list[tuple[float, ...] | None], dict[int, str]]:
            scores: list[tuple[float, ...] | None] = []
            for case in cases:
                if case.prompt == "broken?":
                    scores.append(None)
                    continue
                mine, other = len(case.answer), len(case.rival or "")
                scores.append((1.0, 0.0) if mine == other else (float(mine > other),) * 2)
            return scores, {place: "no answer came" for place, score in enumerate(scores) if score is None}

    class Two(FakeLanguageModel):
        """Says one thing when greedy, another when not."""

        def generate(self, contexts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
            said = {"long?": ("yes", "certainly"), "short?": ("certainly", "no"), "order?": ("yes", "nay")}
            said |= {"same?": ("x", "x"), "broken?": ("a", "b")}
            place = int(settings["temperature"] > 0)
            texts = [said[self.tokenizer.decode(context)][place] for context in contexts]
            return [[*self.tokenizer.encode(text), self.tokenizer.eos_id] for text in texts]

    prompts = [Root(text) for text in ("long?", "short?", "order?", "same?", "broken?")]
    pairs, apart = preferences(prompts, Writer(Two(tokenizer=LETTERS)), ByLength(), temperatures=(0.0, 1.0))
    assert [(row["prompt"], row["chosen"], row["rejected"], row["chosen_at"]) for row in pairs] == [
        ("long?", "certainly", "yes", 1.0), ("short?", "certainly", "no", 0.0),
    ]  # fmt: skip
    assert [(row["prompt"], row["why"]) for row in apart] == [
        ("order?", "order"), ("same?", "equal answers"), ("broken?", "no answer came"),
    ]  # fmt: skip


def test_what_scores_say() -> None:
    assert verdict_of((0.9, 0.8), 0.1) == "first"
    assert verdict_of((0.1, 0.3), 0.1) == "second"
    assert verdict_of((0.55, 0.5), 0.1) == "tie"
    assert verdict_of((0.9, 0.1), 0.1) == "order"
    assert verdict_of((0.9, 0.5), 0.1) == "order"


def test_a_constitution_criticises_and_revises_by_each_principle() -> None:
    question, principles = "color of zor?", ["be short.", "be kind."]
    first, short = "it is red i think", principles[0]
    known = {
        question: first,
        CRITIQUE.format(prompt=question, answer=first, principle=short): "too long",
        REVISION.format(prompt=question, answer=first, principle=short, critique="too long"): "red",
        CRITIQUE.format(prompt=question, answer="red", principle=principles[1]): "rude",
        REVISION.format(prompt=question, answer="red", principle=principles[1], critique="rude"): "red, friend",
        "same?": "yes",
    }  # fmt: skip
    writer = Writer(fake(known))
    pairs, apart = constitution([Root(question)], writer, principles)
    assert apart == []
    assert pairs[0] | {"by": ""} == {
        "prompt": question, "chosen": "red, friend", "rejected": "it is red i think", "by": "", "seed": 0,
        "critiques": ["too long", "rude"], "principles": principles,
    }  # fmt: skip

    class Likes:
        def __init__(self, word: str) -> None:
            self.word = word

        def orders(self, cases: Sequence[Case]) -> tuple[list[tuple[float, ...] | None], dict[int, str]]:
            return [(float(self.word in case.answer),) * 2 for case in cases], {}

    confirmed, _ = constitution([Root(question)], writer, principles, judge=Likes("friend"))
    assert [row["scores"] for row in confirmed] == [[1.0, 1.0]]
    none, apart = constitution([Root(question)], writer, principles, judge=Likes("think"))
    assert none == []
    assert apart[0]["why"] == "the judge prefers the first answer"


# ---------------------------------------------------------------- the commands


def test_preferences_of_the_bundled_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "p.jsonl"
    asked = ["data", "preferences", "--prompts", "bundled:train=24", "--out", str(out), "--device", "cpu", "--json"]
    assert main([*asked, "--judge", "verifier", "--max-tokens", "24"]) == 0
    told = json.loads(capsys.readouterr().out)
    pairs, rows = read_pairs(out), [json.loads(line) for line in out.read_text().splitlines()]
    apart = [json.loads(line) for line in (tmp_path / "p.apart.jsonl").read_text().splitlines()]
    assert told["pairs"] == len(pairs)
    assert told["pairs"] + told["apart"] == 24
    assert told["requests"] == 48
    prompts = load_prompts("bundled:train=24")
    by_prompt = {root.prompt: root for root in prompts.roots}
    assert all(prompts.verify(by_prompt[pair.prompt], pair.chosen) == 1.0 for pair in pairs)
    assert all(prompts.verify(by_prompt[pair.prompt], pair.rejected) == 0.0 for pair in pairs)
    assert {row["by"] for row in rows} == {"tiny-primary"}
    assert {row["why"] for row in apart} <= {"tie", "equal answers", "cut"}
    assert not (tmp_path / "p.jsonl.journal").exists()
    assert main([*asked, "--judge", "verifier"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_unusable_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "none.txt").write_text("# a comment\n\n")
    (tmp_path / "some.txt").write_text("Be short.\n")
    (tmp_path / "empty.jsonl").write_text("")
    out = ["--out", str(tmp_path / "o.jsonl"), "--device", "cpu"]
    cases = [
        (["self-instruct", "--seeds", str(tmp_path / "empty.jsonl")], "the prompt file is empty"),
        (["self-instruct", "--seeds", "bundled:train=3", "--rounds", "0"], "rounds is 0"),
        (["self-instruct", "--seeds", "bundled:train=3", "--perplexity", "3", "1"], "the lower one first"),
        (["self-instruct", "--seeds", "bundled:train=3", "--solve", "bundled"], "not in this model's vocabulary"),
        (["constitution", "--principles", str(tmp_path / "none.txt")], "a constitution without principles"),
        (["constitution", "--principles", str(tmp_path / "missing.txt")], "cannot be read"),
        (["preferences", "--judge", '{"length": 1.0}'], "a reward of one judge term was expected"),
        (["preferences", "--principles", str(tmp_path / "some.txt")], "give a template with {principle} in it"),
        (["preferences", "--margin", "0.5", "--limit", "2"], "a margin below 0.5"),
        (["preferences", "--max-tokens", "0"], "--max-tokens is 0"),
        (["preferences", "--model", "no-such-model"], "no such model directory"),
    ]
    for words_, said in cases:
        assert main(["data", *words_, *out]) == 1, words_
        error = capsys.readouterr().err
        assert said in error, words_
        assert len(error.strip().splitlines()) == 1, error
        (tmp_path / "o.jsonl.journal").unlink(missing_ok=True)
    with pytest.raises(DataError, match="no seed prompts"):
        self_instruct([], Writer(fake({})), Screens(likeness=words()))
    with pytest.raises(ConfigError, match="needs a model that reads"):
        self_instruct(SEEDS, Writer(fake({})), Screens(likeness=words(), perplexity=(0.0, 1.0)))
    with pytest.raises(DataError, match="without principles"):
        constitution(SEEDS, Writer(fake({})), [])
    assert read_principles(tmp_path / "some.txt") == ["Be short."]


KILLED = """
import sys, time
from treegym.synthesis.preferences import Verified, preferences
from treegym.synthesis.writer import Output, Writer
from treegym.models.local.fake import FakeLanguageModel
from treegym.tree.roots import Root

class Slow(FakeLanguageModel):
    def generate(self, contexts, **settings):
        time.sleep(float(sys.argv[2]))
        return super().generate(contexts, **settings)

prompts = [Root(f"{i}+1=", str(i + 1)) for i in range(12)]
with Output(sys.argv[1]) as output:
    writer = Writer(Slow(ending=2.0), output.journal, max_tokens=40, batch=2)
    pairs, apart = preferences(prompts, writer, Verified(prompts, lambda root, text: float(len(text) % 2)))
    output.finish(pairs, apart=[{**row, "costs": writer.costs.written} for row in apart])
"""


def test_a_run_that_was_killed_ends_in_the_same_files(tmp_path: Path) -> None:
    def start(folder: str, slow: float) -> subprocess.Popen[bytes]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-c", KILLED, str(tmp_path / folder / "o.jsonl"), str(slow)]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})

    assert start("whole", 0.0).wait(120) == 0
    journal = tmp_path / "killed" / "o.jsonl.journal"
    for batches in (2, 5):
        run = start("killed", 0.3)
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= batches):
            assert run.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait(60)
    assert start("killed", 0.0).wait(120) == 0
    for name in ("o.jsonl", "o.apart.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not journal.exists()
