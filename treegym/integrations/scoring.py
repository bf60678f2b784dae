"""Any reward of ours as a function of prompts, answers and texts: what every trainer's reward function rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError
from treegym.rewards.compose import Reward
from treegym.rewards.rollouts import score_rollouts
from treegym.rewards.spec import build, load

__all__ = ["TextReward", "column", "last_text"]


class TextReward:
    """Scores whole texts with a reward spec; a score that failed is None, never a number.

    Args:
        spec: what `treegym.rewards.build` takes, or the path of a .json or .toml file that describes it.
    """

    def __init__(self, spec: Any = None) -> None:
        is_file = isinstance(spec, str | Path) and Path(spec).suffix in (".json", ".toml")
        self.reward: Reward = load(spec) if is_file else build(spec)

    @property
    def needs_answers(self) -> bool:
        """Whether a term compares with a reference."""
        return any(term.kind == "verifier" for term in self.reward.part.terms())

    def __call__(
        self,
        prompts: Sequence[str],
        texts: Sequence[str],
        answers: Sequence[Any],
        kinds: Sequence[str] | None = None,
        truncated: Sequence[bool] | None = None,
        tokens: Sequence[Sequence[int]] | None = None,
        logprobs: Sequence[Sequence[float]] | None = None,
    ) -> list[float | None]:
        """Returns the reward of each text ``[B]``; step terms, such as length, need its tokens."""
        counts = {len(prompts), len(texts), len(answers)}
        if len(counts) != 1:
            raise DataError(f"{len(prompts)} prompts, {len(texts)} texts and {len(answers)} answers do not fit")
        records = [
            {
                "prompt": prompt,
                "text": text,
                "answer": "" if answer is None else str(answer),
                "kind": str(kinds[i] or "") if kinds is not None else "",
                "truncated": bool(truncated[i]) if truncated is not None else False,
                **({"tokens": [int(token) for token in tokens[i]]} if tokens is not None else {}),
                **({"logprobs": [float(value) for value in logprobs[i]]} if logprobs is not None else {}),
            }
            for i, (prompt, text, answer) in enumerate(zip(prompts, texts, answers, strict=True))
        ]
        return [row["reward"] for row in score_rollouts(self.reward, records)]


def column(columns: Mapping[str, Any], name: str, *, needed: bool, count: int) -> Sequence[Any]:
    """Returns a column of what a trainer passes on, or empty entries where it is not needed."""
    found = columns.get(name)
    if found is not None:
        return list(found)
    if needed:
        known = ", ".join(sorted(columns)) or "none"
        raise ConfigError(f"the data set has no column {name!r}, which the reward compares with; its columns: {known}")
    return [""] * count


def last_text(turns: Any) -> str:
    """Returns a text as it is, or that of the last message of a conversation."""
    if isinstance(turns, str):
        return turns
    try:
        content = turns[-1]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"a text or a list of messages was expected, got {str(turns)[:80]!r}") from error
    return str(content or "")
