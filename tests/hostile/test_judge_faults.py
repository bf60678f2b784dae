"""Item 5: whatever a judge's server does, a score is the right one or none, and one fault costs one case at most."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from treegym.models.remote.pacing import RetryPolicy
from treegym.rewards.judge.prompt import Case
from treegym.rewards.judge.term import Judge

_spec = importlib.util.spec_from_file_location("faulty_server", Path(__file__).with_name("faulty_server.py"))
assert _spec is not None
faulty: Any = importlib.util.module_from_spec(_spec)
assert _spec.loader is not None
_spec.loader.exec_module(faulty)

CASES = int(os.environ.get("TREEGYM_HOSTILE_CASES", "60"))
FORMS: dict[str, dict[str, Any]] = {
    "score": {},
    "principles": {"principles": ("short", "right")},
    "better": {"mode": "pairwise", "rival": "the other answer"},
    "yes_no": {"form": "yes_no"},
    "yes_no better": {"form": "yes_no", "mode": "pairwise", "rival": "the other answer"},
}


def expected(form: str, answer: str) -> set[float]:
    score = faulty.right_score(answer)
    rival = faulty.right_score("the other answer")
    if form == "yes_no":
        return {float(score >= 5)}
    if "better" in form:  # the word forms know no tie
        return {1.0} if score > rival else {0.0} if score < rival else {0.5}
    return {score / 10}


def judged(form: str, faults: list[str], *, share: float, seed: int, attempts: int = 8) -> tuple[Any, ...]:
    server = faulty.FaultyServer(faults, share=share, seed=seed)
    judge = Judge(
        url=server.url, model="m", cache=False, timeout=0.3, total=20.0, attempts=attempts, concurrency=8, **FORMS[form]
    )
    judge.backend.endpoint.retry = RetryPolicy(attempts=attempts, first_wait_s=0.001, longest_wait_s=0.01)  # type: ignore[attr-defined]
    answers = [f"{seed} answer {i}" for i in range(CASES)]
    rival = "the other answer" if "better" in form else None
    try:
        scores, reasons = judge.judge([Case("question", answer, rival=rival) for answer in answers])
    finally:
        judge.close()
        server.close()
    return answers, scores, reasons, server.done


@pytest.mark.parametrize("form", FORMS)
def test_no_fault_changes_a_score(form: str) -> None:
    """All faults but the one that takes a whole timeout, mixed, on shared connections."""
    faults = [name for name in faulty.FAULTS if name != "never ends"]
    answers, scores, reasons, done = judged(form, faults, share=0.5, seed=len(form))
    assert sum(done.values()) >= CASES // 4
    changed = [
        (answer, score)
        for answer, score in zip(answers, scores, strict=True)
        if score is not None and round(score, 6) not in expected(form, answer)
    ]
    assert changed == []
    assert sum(score is not None for score in scores) > CASES // 2
    assert all(len(reason) <= 500 for reason in reasons.values())


@pytest.mark.parametrize("fault", faulty.FAULTS)
def test_each_fault_alone(fault: str) -> None:
    """A server that knows one fault and does it every second time: the batch ends, and what is scored is right."""
    global CASES
    before, CASES = CASES, 6
    try:
        for form in ("score", "yes_no"):
            answers, scores, reasons, _ = judged(form, [fault], share=0.4, seed=1, attempts=6)
            for i, (answer, score) in enumerate(zip(answers, scores, strict=True)):
                assert score is None or score in expected(form, answer)
                assert score is not None or 0 < len(reasons[i]) <= 500
    finally:
        CASES = before


def test_a_long_body_is_not_read_to_its_end() -> None:
    from treegym.rewards.judge.http import HttpJudge
    from treegym.rewards.judge.prompt import JudgePrompt

    judge = HttpJudge(url="http://127.0.0.1:9/v1", prompt=JudgePrompt(), max_tokens=256)
    assert judge.endpoint._max_answer_bytes <= 4 * 2**20
    judge.close()
