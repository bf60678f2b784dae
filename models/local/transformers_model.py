"""The back end `transformers`: causal language models of Hugging Face behind the `LanguageModel` protocol.

Letters: B rows of a batch, T tokens of the longest row, D hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import numpy as np
import torch

from treegym.errors import BackendError
from treegym.models.base import Sampling, SamplingSettings, TextTokenizer, TokenIds, check_contexts, check_length
from treegym.models.local.decoding import row_generators
from treegym.models.local.decoding_batch import (
    SHARING_PAYS,
    decode,
    last_states_shared,
    read_shared,
    shared_tokens,
)
from treegym.models.local.row_cache import RowCache
from treegym.models.local.tree_attention import score_trees_by_attention
from treegym.models.local.tree_reader import TreeReader
from treegym.models.local.vocabulary_head import LARGE, read_vocabulary
from treegym.models.readings import Readings
from treegym.models.tokens.boundary import pieces_of
from treegym.models.tokens.ends import barred_by, cut_at_stop, declared_ends, ends_by
from treegym.models.tree_scores import Branches, Known, TreeScores, Trie, score_trees_naively

__all__ = ["TransformersModel"]

_VOLATILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "_attn_implementation_autoset")


class TransformersModel:
    """A causal language model, batched by length, in inference mode only."""

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer,
        *,
        name: str = "model",
        batch_tokens: int | None = None,
        compile_model: bool = False,
    ) -> None:
        """Wraps a loaded model.

        Args:
            model: a causal language model of `transformers`, in evaluation mode.
            tokenizer: its tokenizer.
            name: what reports and provenance call it.
            batch_tokens: most tokens (with padding) of one forward pass; bounds the memory. By default 2**24 hidden
                values, between 4,096 and 65,536 tokens.
            compile_model: run the layers through ``torch.compile``.
        """
        self.name = name
        self.tokenizer = tokenizer
        self.model = model.eval()
        self.config = model.config.get_text_config()
        self.batch_tokens = batch_tokens or min(max(2**24 // self.config.hidden_size, 4096), 65_536)
        self.share_beginnings = True  # read what contexts have in common once; the result is the same
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        self.attention: str = getattr(self.config, "_attn_implementation", None) or "eager"
        self.supports_tree_attention = self.attention in ("sdpa", "eager")  # flash-attention takes no such masks
        # GPT-2 warns when it meets its padding token without a mask; a mask of ones costs little and says the same.
        self.warns_of_padding = hasattr(model.base_model, "warn_if_padding_and_no_attention_mask")
        self.forward_tokens = 0  # tokens sent through the layers so far, padding included
        self._backbone = torch.compile(model.base_model, dynamic=True) if compile_model else model.base_model
        self._output = model.get_output_embeddings()
        if self._output is None:
            raise BackendError(f"{name}: not a causal language model (it has no output embeddings)")
        self._plain_head = self._head_is_plain()
        linear = isinstance(self._output, torch.nn.Linear)  # anything but a plain matrix is asked for whole rows
        self.reads_sets = linear  # the mass of sets of tokens, for models of other vocabularies
        self.reads_blocks = linear and tokenizer.vocab_size >= LARGE
        self._fingerprint: str | None = None
        self.ends = declared_ends(getattr(model, "generation_config", None), tokenizer)  # EOS first
        self.barred: tuple[int, ...] = ()  # tokens with a stop string inside
        self.stops: tuple[str, ...] = ()  # strings at which answers are over

    @property
    def context_length(self) -> int | None:
        """Returns how many tokens a text may have, None where the configuration does not say."""
        told = getattr(self.config, "max_position_embeddings", None)
        if not isinstance(told, int) or told <= 0:
            return None
        rope = getattr(self.config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "yarn":  # the configuration may still tell the length before it was stretched
            stretched = rope.get("original_max_position_embeddings", told) * rope.get("factor", 1.0)
            return max(told, int(stretched))
        return told

    def ending_at(self, stops: Sequence[str]) -> TransformersModel:
        """Returns this model, its weights shared, with answers that are over at stop strings too (see `ends`)."""
        view = copy.copy(self)
        view.ends = tuple(dict.fromkeys([*self.ends, *ends_by(self.tokenizer, stops)]))
        view.barred = tuple(dict.fromkeys([*self.barred, *barred_by(self.tokenizer, stops)]))
        view.stops = (*self.stops, *stops)
        return view

    def describe(self) -> dict[str, str]:
        """Returns what was chosen: name, device, dtype, attention, class, parameters."""
        return {
            "name": self.name,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self.attention,
            "class": type(self.model).__name__,
            "parameters": str(sum(p.numel() for p in self.model.parameters())),
        }

    # ---------------------------------------------------------------- forward passes

    @torch.inference_mode()
    def hidden(
        self,
        ids: torch.Tensor,
        *,
        positions: torch.Tensor | None = None,
        mask: Any = None,
        cache: Any = None,
    ) -> torch.Tensor:
        """Returns the last hidden states ``[B, T, D]``; `mask` and `cache` are handed to the layers as they are."""
        self.forward_tokens += ids.numel()
        options: dict[str, Any] = {"attention_mask": mask, "use_cache": cache is not None}
        if positions is not None:
            options["position_ids"] = positions
        if cache is not None:
            options["past_key_values"] = cache
        return self._backbone(input_ids=ids, **options).last_hidden_state

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the logits ``[..., V] float32`` of last hidden states ``[..., D]``, all ends as EOS."""
        logits = self._output(hidden).float()
        if not self._plain_head:
            cap = self.config.final_logit_softcapping
            logits = torch.tanh(logits / cap) * cap
        logits = logits[..., : self.tokenizer.vocab_size]
        if len(self.ends) > 1:
            ends = torch.tensor(self.ends, device=logits.device)
            together = logits[..., ends].logsumexp(dim=-1)
            logits[..., ends] = -torch.inf
            logits[..., self.tokenizer.eos_id] = together
        return logits

    @torch.inference_mode()
    def block_of_logits(self, hidden: torch.Tensor, low: int, high: int) -> torch.Tensor:
        """Returns the logits ``[R, high - low] float32`` of some tokens alone, ends apart from each other."""
        bias = getattr(self._output, "bias", None)
        logits = torch.nn.functional.linear(
            hidden, self._output.weight[low:high], None if bias is None else bias[low:high]
        ).float()
        if not self._plain_head:
            cap = self.config.final_logit_softcapping
            logits = torch.tanh(logits / cap) * cap
        return logits

    def read_vocabulary(self, states: torch.Tensor, **asked: Any) -> Readings:
        """Returns what is asked of the distributions after states ``[R, D]``; see `vocabulary_head`."""
        return read_vocabulary(self, states, **asked)

    @torch.inference_mode()
    def likeliest(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the likeliest next token of each state ``[B] int64``, on the CPU."""
        if not self.reads_blocks:
            return self.logits(hidden).argmax(dim=-1).cpu()
        return torch.from_numpy(read_vocabulary(self, hidden, best=1).best_ids[:, 0].astype(np.int64))

    def _head_is_plain(self) -> bool:
        """Whether the logits are the output embedding alone; proved on one token, as models may scale or cap them."""
        ids = torch.zeros((1, 2), dtype=torch.long, device=self.device)
        with torch.inference_mode():
            seen = torch.ones_like(ids)
            theirs = self.model(input_ids=ids, attention_mask=seen, use_cache=False).logits.float()
            hidden = self.model.base_model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
            plain = self._output(hidden).float()
            if torch.allclose(theirs, plain, atol=1e-3, rtol=1e-3):
                return True
            cap = getattr(self.config, "final_logit_softcapping", None)
            if cap and torch.allclose(theirs, torch.tanh(plain / cap) * cap, atol=1e-3, rtol=1e-3):
                return False
        raise BackendError(f"{self.name}: {type(self.model).__name__} computes its logits in a way not supported yet")

    # ---------------------------------------------------------------- the protocol

    @torch.inference_mode()
    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        result = np.empty((len(contexts), self.tokenizer.vocab_size), np.float32)
        for rows, last in self._last_hidden(contexts):
            result[rows] = torch.log_softmax(self.logits(last), dim=-1).cpu().numpy()
        return result

    @torch.inference_mode()
    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, self.tokenizer.vocab_size)
        ids = np.empty((len(contexts), k), np.int32)
        values = np.empty((len(contexts), k), np.float32)
        for rows, last in self._last_hidden(contexts):
            if self.reads_blocks:
                said = read_vocabulary(self, last, best=k)
                ids[rows], values[rows] = said.best_ids, said.best_logp
                continue
            best = torch.log_softmax(self.logits(last), dim=-1).topk(k, dim=-1)
            ids[rows], values[rows] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        return ids, values

    @torch.inference_mode()
    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        result = np.empty((len(contexts), self.config.hidden_size), np.float32)
        for rows, last in self._last_hidden(contexts):
            result[rows] = last.float().cpu().numpy()
        return result

    @torch.inference_mode()
    def last_states(self, contexts: Sequence[Sequence[TokenIds]]) -> torch.Tensor:
        """Returns the last hidden state of every context of every group ``[B, D]``, in the model's own precision.

        A group's contexts begin alike: their trie is read in one pass, no token twice.
        """
        if not self.supports_tree_attention:
            flat = [context for group in contexts for context in group]
            found = torch.empty((len(flat), self.config.hidden_size), dtype=self.dtype, device=self.device)
            for rows, last in self._last_hidden(flat):
                found[torch.tensor(rows, device=self.device)] = last
            return found
        tries = [Trie(group) for group in contexts]
        reader = TreeReader(self, [trie.branches for trie in tries])
        return reader.states(np.concatenate([reader.ends(tree, trie.nodes) for tree, trie in enumerate(tries)]))

    @torch.inference_mode()
    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        joined = [[*c, *t] for c, t in zip(contexts, continuations, strict=True)]
        check_contexts(contexts)
        longest = max(map(len, joined), default=0) - 1  # the last token is scored, not read
        check_length(longest, name=self.name, limit=self.context_length)
        scores = [np.zeros(len(t), np.float32) for t in continuations]
        asked = [row for row, t in enumerate(continuations) if len(t)]
        for rows in self._chunks([len(joined[row]) - 1 for row in asked]):
            chosen = [asked[row] for row in rows]
            ids = self._padded([joined[row][:-1] for row in chosen])
            hidden = self.hidden(ids)
            where = [
                (b, p) for b, row in enumerate(chosen) for p in range(len(contexts[row]) - 1, len(joined[row]) - 1)
            ]
            targets = [token for row in chosen for token in continuations[row]]
            values = self._token_logprobs(hidden, where, targets)
            cut = np.cumsum([len(continuations[row]) for row in chosen])[:-1]
            for row, part in zip(chosen, np.split(values, cut), strict=True):
                scores[row] = part
        return scores

    def _token_logprobs(self, hidden: torch.Tensor, where: list[tuple[int, int]], targets: list[int]) -> np.ndarray:
        """Returns the log-probability of each target after the state at (row, position), in blocks of bounded size."""
        if self.reads_blocks:
            places, row_of = np.unique(np.array(where, np.int64), axis=0, return_inverse=True)  # where is in order
            states = hidden[torch.from_numpy(places[:, 0]), torch.from_numpy(places[:, 1])]
            return read_vocabulary(self, states, rows=row_of.reshape(-1), tokens=np.array(targets, np.int64)).singles
        index = torch.tensor(where, device=self.device)  # [n, 2]
        target = torch.tensor(targets, device=self.device)  # [n]
        block = max(1, 2**24 // self.tokenizer.vocab_size)
        parts = []
        for start in range(0, len(targets), block):
            rows, columns = index[start : start + block].unbind(dim=1)
            logprobs = torch.log_softmax(self.logits(hidden[rows, columns]), dim=-1)
            parts.append(logprobs.gather(1, target[start : start + block, None])[:, 0])
        return torch.cat(parts).cpu().numpy()

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]:
        """Scores every tree in one forward pass; path by path where the attention takes no masks of trees."""
        score = score_trees_by_attention if self.supports_tree_attention else score_trees_naively
        return score(self, trees, best=best, worst=worst, hidden=hidden)

    def read_trees(self, trees: Sequence[Branches], known: Known | None = None) -> TreeReader | None:
        """Returns trees read once, to be scored and gone on from; None where the attention takes no masks of trees."""
        return TreeReader(self, trees, known) if self.supports_tree_attention else None

    @torch.inference_mode()
    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        """Returns a continuation for each context; a row also ends where the model has no further position."""
        check_contexts(contexts, name=self.name, limit=self.context_length)
        asked = Sampling(**settings)
        made: list[list[int]] = [[] for _ in contexts]
        generators = [] if asked.greedy else row_generators(asked.seed, len(contexts))
        order = self._sharing_order(contexts)
        for rows in self._chunks([len(context) + asked.max_new_tokens for context in contexts], order):
            chosen = [contexts[row] for row in rows]
            running = RowCache.read(self, chosen) if order is None else read_shared(self, chosen)
            continuations = decode(
                running,
                over=self._stops_within() if self.stops else None,
                max_new_tokens=asked.max_new_tokens,
                temperature=asked.temperature,
                generators=[generators[row] for row in rows] if generators else [],
                stops=set(asked.stops(self.tokenizer)),
            )
            for row, continuation in zip(rows, continuations, strict=True):
                made[row] = cut_at_stop(self.tokenizer, continuation, self.stops) if self.stops else continuation
        return made

    def _stops_within(self) -> Callable[[list[int]], bool]:
        """Returns whether the end of a continuation holds a stop string."""
        pieces, marks = pieces_of(self.tokenizer), [stop.encode() for stop in self.stops]
        longest = max(map(len, marks))

        def within(continuation: list[int]) -> bool:
            tail = b""
            for token in reversed(continuation):
                tail = pieces[token] + tail
                if len(tail) >= len(pieces[continuation[-1]]) + longest:
                    break
            return any(mark in tail for mark in marks)

        return within

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            settings = {k: v for k, v in self.config.to_dict().items() if k not in _VOLATILE}
            digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
            for name, tensor in sorted(self.model.state_dict().items()):
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def weights_changed(self) -> None:
        """Forgets the fingerprint; to be called after the weights were trained in place."""
        self._fingerprint = None

    # ---------------------------------------------------------------- batching

    def _chunks(self, lengths: list[int], order: Sequence[int] | None = None) -> Iterator[list[int]]:
        """Yields row numbers, rows of similar length together (or in `order`), at most `batch_tokens` with padding."""
        rows = order if order is not None else sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
        chunk: list[int] = []
        longest = 0
        for row in rows:
            longest = max(longest, lengths[row])
            if chunk and longest * (len(chunk) + 1) > self.batch_tokens:
                yield chunk
                chunk, longest = [], lengths[row]
            chunk.append(row)
        if chunk:
            yield chunk

    def _sharing_order(self, contexts: Sequence[TokenIds]) -> list[int] | None:
        """Returns the contexts sorted, so that shared beginnings meet; None where reading them once does not pay."""
        if not (self.share_beginnings and self.supports_tree_attention and len(contexts) > 1):
            return None
        order = sorted(range(len(contexts)), key=lambda row: (tuple(contexts[row]), row))
        total = sum(len(context) for context in contexts)
        pays = total > SHARING_PAYS * shared_tokens([contexts[row] for row in order])
        return order if pays else None

    def _padded(self, rows: list[Sequence[int]]) -> torch.Tensor:
        """Returns ids ``[B, T]`` padded on the right; causal attention never lets a token see what follows it."""
        longest = max(len(row) for row in rows)
        array = np.array([[*row, *[row[-1]] * (longest - len(row))] for row in rows], dtype=np.int64)
        return torch.from_numpy(array).to(self.device)

    def _last_hidden(self, contexts: Sequence[TokenIds]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yields row numbers and the hidden state of each one's last token ``[b, D]``."""
        check_contexts(contexts, name=self.name, limit=self.context_length)
        order = self._sharing_order(contexts)
        for rows in self._chunks([len(context) for context in contexts], order):
            chosen = [contexts[row] for row in rows]
            if order is not None:
                yield rows, last_states_shared(self, chosen)
                continue
            hidden = self.hidden(self._padded(chosen))
            last = torch.tensor([len(contexts[row]) - 1 for row in rows], device=self.device)
            yield rows, hidden[torch.arange(len(rows), device=self.device), last]
