"""Free text: every token of the vocabulary may follow, as in ordinary reinforcement learning of language models.

No tree is grown; a lane is a prompt and what was written after it. The same observations as TokenTree's view "tokens",
so the same policies run on both, and what a tree adds can be measured. Mask and children are the same in every lane and
step: they are views of one row, so a large vocabulary costs nothing, as long as nobody copies them.

Letters: B lanes, L context length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from treegym.envs.single import checked_options, whole_actions
from treegym.errors import ConfigError
from treegym.models.base import TextTokenizer, check_length
from treegym.models.tokens.boundary import pieces_of
from treegym.models.tokens.ends import text_before
from treegym.tree.pictures import FIRST_PICTURE_TOKEN, LAST_TOKEN
from treegym.tree.token_tree import Root

__all__ = ["FreeTextVectorEnv"]

Verify = Callable[[Root, str], float]


class FreeTextVectorEnv(VectorEnv):
    """Writes text after prompts, token by token; the verifier's score of the ended text is the reward.

    Autoreset is off: reset lanes that are done with ``options={"reset_mask": ...}``, and choose prompts with
    ``options={"roots": [...]}`` (an index into `prompts` a lane; -1 draws one).

    Args:
        num_envs: B.
        prompts: what to write after.
        tokenizer: the policy's; its end-of-sequence token terminates.
        verify: scores an ended text against its prompt's reference, 1.0 being correct.
        max_tokens: longer texts are truncated and score nothing.
        begin: a prompt -> the tokens its answer is a continuation of (`PromptFormat.begin`); by default its own.
        ends: tokens that end a text, EOS first: all count as EOS, so the others cannot be chosen.
        barred: further tokens that cannot be chosen.
        stops: strings at which a text is over; what comes after them is not judged.
        cut_counts: whether a truncated text is judged, too.
        context_length: tokens that the policy can read; None: any number.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        prompts: Sequence[Root],
        tokenizer: TextTokenizer,
        verify: Verify,
        max_tokens: int = 24,
        begin: Callable[[str], Sequence[int]] | None = None,
        ends: Sequence[int] = (),
        barred: Sequence[int] = (),
        stops: Sequence[str] = (),
        cut_counts: bool = False,
        context_length: int | None = None,
    ) -> None:
        if not prompts:
            raise ConfigError("no prompts came; at least one is needed")
        if num_envs < 1 or max_tokens < 1:
            raise ConfigError(f"num_envs is {num_envs} and max_tokens {max_tokens}; both must be at least 1")
        self.num_envs, self.max_tokens = num_envs, max_tokens
        self.prompts, self.tokenizer, self.verify = list(prompts), tokenizer, verify
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}
        self.stops, self.cut_counts = tuple(stops), cut_counts
        self._longest_stop = max((len(stop.encode()) for stop in stops), default=0)
        self.ends = tuple(dict.fromkeys([tokenizer.eos_id, *ends]))
        padding = () if tokenizer.pad_id == tokenizer.eos_id else (tokenizer.pad_id,)  # padding is not text
        self.barred = tuple(dict.fromkeys([*padding, *(token for token in barred if token not in self.ends)]))
        write = tokenizer.encode if begin is None else begin
        encoded = [list(root.tokens) or list(write(root.prompt)) for root in self.prompts]
        self._prompt_length = np.array([len(tokens) for tokens in encoded])  # [R]
        if not self._prompt_length.all():
            raise ConfigError(
                f"prompt {int(self._prompt_length.argmin())} is empty; a language model needs a beginning"
            )
        width = int(self._prompt_length.max()) + max_tokens
        check_length(width - 1, name="the policy's model", limit=context_length)
        self._prompt = np.full((len(encoded), width), -1, np.int32)  # [R, L]
        for row, tokens in zip(self._prompt, encoded, strict=True):
            row[: len(tokens)] = tokens
        vocabulary = tokenizer.vocab_size
        read = LAST_TOKEN if (self._prompt >= FIRST_PICTURE_TOKEN).any() else vocabulary - 1
        self.single_observation_space = spaces.Dict(
            {
                "action_mask": spaces.Box(0, 1, (vocabulary,), np.int8),
                "context": spaces.Box(-1, read, (width,), np.int32),
                "children": spaces.Box(-1, vocabulary - 1, (vocabulary,), np.int32),
            }
        )
        self.single_action_space = spaces.Discrete(vocabulary)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        legal = np.ones(vocabulary, np.int8)
        legal[[*self.ends[1:], *self.barred]] = 0
        self._legal = np.broadcast_to(legal, (num_envs, vocabulary))
        self._children = np.broadcast_to(np.arange(vocabulary, dtype=np.int32), (num_envs, vocabulary))
        self._root = np.zeros(num_envs, np.int64)
        self._context = self._prompt[self._root]
        self._written = np.zeros(num_envs, np.int64)
        self._done = np.ones(num_envs, bool)
        self._empty: dict[int, float] = {}  # the verifier's score of a prompt's empty answer: resting lanes give it

    @property
    def roots(self) -> np.ndarray:
        """The prompts that episodes can start at ``[R] int64``."""
        return np.arange(len(self.prompts))

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed if isinstance(seed, int) else None)
        options = dict(checked_options(options))
        which = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool)), bool)
        drawn = self.np_random.integers(len(self.prompts), size=self.num_envs)
        asked = whole_actions(options.get("roots", np.full(self.num_envs, -1)))
        if which.shape != (self.num_envs,) or asked.shape != (self.num_envs,):
            raise ConfigError(f"reset_mask and roots must have one entry for each of {self.num_envs} lanes")
        if asked.max() >= len(self.prompts):
            raise ConfigError(f"root {asked.max()} is out of range; there are prompts 0 to {len(self.prompts) - 1}")
        self._root[which] = np.where(asked >= 0, asked, drawn)[which]
        self._context[which] = self._prompt[self._root[which]]
        self._written[which] = 0
        self._done[which] = False
        return self._observe(), {"root": self._root.copy()}

    def step(self, actions: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        actions = whole_actions(actions)
        last = int(self.single_action_space.n) - 1  # type: ignore[attr-defined] # it is Discrete
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() > last:
            raise ConfigError(f"actions must be {self.num_envs} tokens from 0 to {last}; got {str(actions)[:80]}")
        if self._done.any():
            raise ConfigError(f"lane {int(np.flatnonzero(self._done)[0])} has ended; reset it with a reset_mask first")
        lanes = np.arange(self.num_envs)
        self._context[lanes, self._prompt_length[self._root] + self._written] = actions
        self._written += 1
        terminated = actions == self.tokenizer.eos_id
        if self.stops:
            terminated |= np.array([self._stopped(lane) for lane in range(self.num_envs)])
        truncated = ~terminated & (self._written >= self.max_tokens)
        self._done = terminated | truncated
        reward = np.zeros(self.num_envs)
        for lane in np.flatnonzero(self._done if self.cut_counts else terminated):
            reward[lane] = self._score(int(lane))
        info = {"root": self._root.copy(), "is_success": reward >= 0.5}
        return self._observe(), reward, terminated, truncated, info

    def _stopped(self, lane: int) -> bool:
        """Returns whether the token a lane wrote last completes a stop string."""
        pieces, tail = pieces_of(self.tokenizer), b""
        written = self._tokens(lane)
        for token in reversed(written):
            tail = pieces[token] + tail
            if len(tail) >= len(pieces[written[-1]]) + self._longest_stop:
                break
        return any(stop.encode() in tail for stop in self.stops)

    def _score(self, lane: int) -> float:
        """Returns the verifier's score of a lane; that of an empty text is asked for once per prompt.

        Lanes that wait for the others of their batch to end are stepped with a token, over and over.
        """
        index = int(self._root[lane])
        if self._tokens(lane):
            return self.verify(self.prompts[index], self.text(lane))
        if index not in self._empty:
            self._empty[index] = self.verify(self.prompts[index], "")
        return self._empty[index]

    def _tokens(self, lane: int) -> list[int]:
        """Returns what a lane has written so far, the end left out."""
        start = self._prompt_length[self._root[lane]]
        written: list[int] = self._context[lane, start : start + self._written[lane]].tolist()
        return written[:-1] if written and written[-1] == self.tokenizer.eos_id else written

    def text(self, lane: int) -> str:
        """Returns what a lane has written so far, up to a stop string."""
        return text_before(self.tokenizer.decode(self._tokens(lane)), self.stops)[0]

    def _observe(self) -> dict[str, np.ndarray]:
        return {"action_mask": self._legal, "context": self._context.copy(), "children": self._children}
