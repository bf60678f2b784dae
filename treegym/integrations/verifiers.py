"""verifiers (v1): our prompts as a taskset, our reward as its rubric, and a harness that asks for one answer.

treegym export verifiers bundled:test=100 --out environments/arithmetic       writes a package of verifiers
pip install -e environments/arithmetic
vf-eval arithmetic -m tiny-primary --client.base-url URL --no-push            against `treegym serve tiny-primary`
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import lru_cache

import httpx
import verifiers.v1 as vf

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import DataError
from treegym.integrations.scoring import TextReward

__all__ = ["OneAnswer", "PromptData", "PromptTask", "PromptTaskset", "RewardConfig", "SourceConfig"]


class PromptData(vf.TaskData):
    """A prompt's row."""

    answer: str = ""
    kind: str = ""


class RewardConfig(vf.TaskConfig):
    """How answers are scored, under ``--env.taskset.task.*``."""

    reward: str = ""
    """A .json or .toml file that describes a reward; empty is the verifier."""


class PromptTask(vf.Task[PromptData, vf.State, RewardConfig]):
    """Scores the last answer of a conversation with a reward of ours."""

    @vf.reward(weight=1.0)
    async def treegym(self, trace: vf.Trace) -> float:
        """Returns the reward; a score that failed raises, since verifiers knows no missing reward."""
        data = self.data
        [score] = _scorer(self.config.reward)(
            [data.prompt_text], [trace.last_reply], [data.answer], [data.kind], truncated=[trace.is_truncated]
        )
        if score is None:
            raise DataError(f"the answer to {data.prompt_text[:80]!r} could not be scored: {trace.last_reply[:80]!r}")
        return score


class SourceConfig(vf.TasksetConfig):
    """Which prompts, under ``--env.taskset.*``."""

    prompts: str = "bundled:test=100"
    """As for --prompts: bundled, a JSONL, CSV or Parquet file, hf:user/name#..., reasoning-gym:NAME, ..."""
    split: str = "all"
    """train, validation, test or all."""
    seed: int = 0
    """Seed of sources that are generated."""
    task: RewardConfig = RewardConfig()


class PromptTaskset(vf.Taskset[PromptTask, SourceConfig]):
    """The prompts of a source, one task each."""

    def load(self) -> Iterator[PromptTask]:
        """Yields them in the source's order."""
        config = self.config
        roots = load_prompts(config.prompts, seed=config.seed).roots
        chosen = [root for root in roots if config.split in ("all", root.split)]
        if not chosen:
            raise DataError(f"{config.prompts} has no prompts of split {config.split!r}")
        needs = _scorer(config.task.reward).needs_answers
        for root in chosen:
            if needs and not root.answer:
                raise DataError(f"{config.prompts}: the prompt {root.prompt[:80]!r} has no answer to compare with")
            yield PromptTask(PromptData(prompt=root.prompt, answer=root.answer, kind=root.kind), config.task)


class OneAnswer(vf.Harness[vf.HarnessConfig]):
    """Asks once, within the evaluating process: a language model is judged here, no program that it drives."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Sends the prompt to the interception server, which adds the sampling settings and records the answer."""
        system, prompt = self.resolve_text_prompt(data)
        said = [{"role": "system", "content": system}] if system else []
        body = {"model": ctx.model, "messages": [*said, {"role": "user", "content": prompt or ""}]}
        async with httpx.AsyncClient(timeout=None, verify=_trust()) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
            )
        failed = answer.status_code != 200
        return vf.ProgramResult(int(failed), "" if failed else answer.text, answer.text if failed else "")


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """Reads the certificates once: a client that reads its own spends more on that than on asking."""
    return ssl.create_default_context()


@lru_cache(maxsize=8)
def _scorer(spec: str) -> TextReward:
    return TextReward(spec or None)
