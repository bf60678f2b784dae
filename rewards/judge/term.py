"""The judge term: a language model's opinion of an answer, in [0, 1], local or behind a server.

A judge that fails does not score 0: the failure goes to the term's `on_error` policy and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from treegym.errors import ConfigError
from treegym.registry import refuse_hearsay
from treegym.rewards.base import Request, Scored, Term
from treegym.rewards.judge.cache import JudgeCache, content_key, default_cache
from treegym.rewards.judge.prompt import Case, JudgePrompt
from treegym.tree.token_tree import TokenTree

__all__ = ["Judge", "JudgeBackend"]

BUNDLED = "tiny-judge"
VERSION = 1  # of the prompts; part of the cache's key


class JudgeBackend(Protocol):
    """Whoever judges: `HttpJudge`, `LocalJudge`, or your own."""

    @property
    def identity(self) -> list[Any]: ...

    def scores(
        self, cases: Sequence[Case], *, keep: Callable[[int, float], None] | None = None
    ) -> tuple[list[float | None], dict[int, str]]: ...

    def close(self) -> None: ...


class Judge(Term):
    """A judge's score of the finished answer, in [0, 1].

    Without options the tree's stored judgements serve, and the bundled judge where there are none.

    Args:
        model: which model judges: a local one, or with `url` its name on the server.
        url: an OpenAI-compatible server, such as ``http://127.0.0.1:8000/v1``.
        key_env: the environment variable that holds the server's key.
        mode: ``pointwise``, or ``pairwise``: against `rival`, asked in both orders to cancel position bias.
        rival: what a pairwise judge compares with: ``"reference"``, or a fixed text.
        rubric: what to judge by.
        principles: a constitution; each principle is scored and the mean counts.
        show_reference: whether the judge is told the reference answer.
        form: how a served judge replies: ``score`` (JSON) or ``yes_no``.
        template: what a plain model reads, such as ``"{prompt}{answer}?"``.
        yes: the local model's word for yes (in a pair: the first answer is better).
        no: its word for no.
        chat: whether a local model is asked through its chat template; by default when it has one.
        cache: a file for judgements; by default the user's cache for a server and none for a local model; False: none.
        backend: a `JudgeBackend` of your own (Python only).
        concurrency: most requests to a server at once.
        timeout: seconds for one try.
        total: seconds for all tries at one judgement.
        attempts: tries, the first one included.
        max_tokens: longest reply of a server.
    """

    kind = "judge"
    deployable = True
    lazy = True
    bounds = (0.0, 1.0)

    def __init__(
        self,
        *,
        model: str | None = None,
        url: str | None = None,
        key_env: str | None = None,
        mode: str = "pointwise",
        rival: str = "reference",
        rubric: str | None = None,
        principles: Sequence[str] = (),
        show_reference: bool = False,
        form: str = "score",
        template: str | None = None,
        yes: str = "y",
        no: str = "n",
        chat: bool | None = None,
        cache: str | bool | None = None,
        backend: JudgeBackend | None = None,
        concurrency: int = 32,
        timeout: float = 60.0,
        total: float = 180.0,
        attempts: int = 5,
        max_tokens: int = 256,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if mode not in ("pointwise", "pairwise"):
            raise ConfigError(f"reward term {self.name!r}: mode is 'pointwise' or 'pairwise', not {mode!r}")
        if backend is None and url is None and model not in (None, BUNDLED) and template is None:
            raise ConfigError(
                f"reward term {self.name!r}: a local judge needs a template that says what it reads, such as "
                "'Question: {prompt}\\nAnswer: {answer}\\nIs the answer right? '"
            )
        if mode == "pairwise" and url is None and backend is None and (template is None or "{rival}" not in template):
            raise ConfigError(f"reward term {self.name!r}: a local pairwise judge needs a template with {{rival}}")
        if isinstance(principles, str) or not all(isinstance(principle, str) for principle in principles):
            raise ConfigError(f"reward term {self.name!r}: principles are {principles!r}; a list of texts was expected")
        reads = template or ""
        for name, given in (("rubric", rubric is not None), ("principle", bool(principles))):
            if given and url is None and backend is None and f"{{{name}}}" not in reads:
                raise ConfigError(
                    f"reward term {self.name!r}: a local judge reads its template and nothing else; "
                    f"give a template with {{{name}}} in it"
                )
        if rubric is not None and not isinstance(rubric, str):
            raise ConfigError(f"reward term {self.name!r}: the rubric is {rubric!r}; a text was expected")
        self.mode, self.rival = mode, rival
        self.show_reference = show_reference or "{reference}" in reads
        rest: dict[str, Any] = {"rubric": rubric} if rubric else {}
        self.prompt = JudgePrompt(form=form, principles=tuple(principles), template=template, **rest)
        # Stored judgements were made without any of these; what only says how to fail or to remember does not matter.
        self._stored = self.arguments.keys() <= {"cache", "on_error", "default", "range", "anneal"}
        self._local: dict[str, Any] = {"model": model or BUNDLED, "template": template or "{prompt}{answer}?"}
        self._local |= {"yes": yes, "no": no, "chat": chat, "rubric": rubric or ""}
        self._served: dict[str, Any] = {"url": url, "model": model, "key_env": key_env, "concurrency": concurrency}
        self._served |= {"timeout": timeout, "total": total, "attempts": attempts, "max_tokens": max_tokens}
        self._backend = backend
        self._cache = _cache(cache, served=url is not None)
        if url is not None:
            self._backend = backend or self._made()  # says at once when the address or the key is unusable

    @property
    def backend(self) -> JudgeBackend:
        """Whoever judges; made when first needed."""
        if self._backend is None:
            self._backend = self._made()
        return self._backend

    def _made(self) -> JudgeBackend:
        if self._served["url"] is not None:
            from treegym.rewards.judge.http import HttpJudge

            return HttpJudge(prompt=self.prompt, **self._served)
        from treegym.rewards.judge.local import LocalJudge

        return LocalJudge(principles=self.prompt.principles, **self._local)

    def ready(self, source: TokenTree, asked: Request) -> bool:
        """Whether stored judgements answer for all ends, so that nobody need be asked."""
        return self._stored and not np.isnan(np.asarray(source.judge)[asked.nodes[asked.ended]]).any()

    def values(self, source: TokenTree, asked: Request) -> Scored:
        values = np.full(len(asked.nodes), np.nan)
        if self._stored:
            values = np.asarray(source.judge)[asked.nodes].astype(np.float64)
        open_ = np.nonzero(np.isnan(values))[0]
        if not open_.size:
            return Scored(values, {})
        prompts, answers = source.prompts, source.answers  # may be built anew at each access
        cases = []
        for node, root in zip(asked.nodes[open_], np.asarray(source.root_of(asked.nodes[open_])), strict=True):
            reference = answers[int(root)]
            rival = None if self.mode == "pointwise" else reference if self.rival == "reference" else self.rival
            shown = reference if self.show_reference else None
            cases.append(Case(prompts[int(root)], source.text(int(node)), shown, rival))
        scores, reasons = self.judge(cases)
        values[open_] = [np.nan if score is None else score for score in scores]
        return Scored(values, {int(open_[i]): reason for i, reason in reasons.items()})

    def judge(self, cases: Sequence[Case]) -> tuple[list[float | None], dict[int, str]]:
        """Judges any cases: a score in [0, 1] or None for each, and the reasons of the failures.

        Equal cases are asked once. A case with a rival is asked in both orders; its score is the mean of "the first is
        better" and of 1 - "the second is better", 1/2 where the judge only follows the position.
        """
        found, why = self.orders(cases)
        means = [None if both is None else sum(both) / len(both) for both in found]
        return means, why

    def orders(self, cases: Sequence[Case]) -> tuple[list[tuple[float, ...] | None], dict[int, str]]:
        """Judges any cases and tells the orders apart: the answer's score in each, None for a failure.

        A case without a rival is asked in one order.
        """
        wanted: dict[Case, None] = {}
        for case in cases:
            wanted[case] = None
            if case.rival is not None:
                wanted[case.swapped()] = None
        unique = list(wanted)
        found, reasons = self._asked(unique)
        position = {case: i for i, case in enumerate(unique)}
        scores: list[tuple[float, ...] | None] = []
        why: dict[int, str] = {}
        for i, case in enumerate(cases):
            both = [position[case]] + ([position[case.swapped()]] if case.rival is not None else [])
            failed = [at for at in both if found[at] is None]
            if failed:
                scores.append(None)
                why[i] = reasons.get(failed[0], "the judge gave no score")
                continue
            first, *second = [score for at in both if (score := found[at]) is not None]
            scores.append((first, *(1.0 - other for other in second)))
        return scores, why

    def _asked(self, cases: Sequence[Case]) -> tuple[list[float | None], dict[int, str]]:
        """Asks about distinct cases, each in one order, through the cache."""
        if self._cache is None:
            return self.backend.scores(cases)
        settings = [VERSION, self.backend.identity, asdict(self.prompt)]
        keys = [content_key(settings, asdict(case)) for case in cases]
        known = self._cache.get(keys)
        open_ = [i for i, key in enumerate(keys) if key not in known]
        scores: list[float | None] = [known.get(key) for key in keys]
        if not open_:
            return scores, {}
        cache = self._cache
        fresh, reasons = self.backend.scores(
            [cases[i] for i in open_], keep=lambda at, score: cache.put(keys[open_[at]], score)
        )
        for i, score in zip(open_, fresh, strict=True):
            scores[i] = score
        return scores, {open_[i]: reason for i, reason in reasons.items()}

    def close(self) -> None:
        """Closes connections and cache."""
        if self._backend is not None:
            self._backend.close()
        if self._cache is not None:
            self._cache.close()

    def spec(self) -> dict[str, Any]:
        if "backend" in self.arguments:
            raise ConfigError(
                f"reward term {self.name!r} has a backend that is a Python object, so it has no JSON form"
            )
        return super().spec()


def _cache(given: str | bool | None, *, served: bool) -> JudgeCache | None:
    if given is False or (given is None and not served):
        return None
    refuse_hearsay(given, "the cache")
    return JudgeCache(given if isinstance(given, str) else default_cache())
