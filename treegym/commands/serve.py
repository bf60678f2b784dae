"""`treegym serve`: serve a model over an OpenAI-compatible protocol."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from treegym.display import say
from treegym.models.base import LanguageModel
from treegym.models.serving.server import Served, ServeSettings, serve

if TYPE_CHECKING:
    from treegym.models.serving.batcher import Batcher

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    defaults = ServeSettings()
    parser.add_argument("model", help="a bundled model, a model directory, a name on a hub, or 'fake'")
    parser.add_argument("--host", default=defaults.host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=defaults.port, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--key-env",
        metavar="VARIABLE",
        help="environment variable with the key clients must send; required off loopback",
    )
    parser.add_argument("--max-batch-size", type=int, default=defaults.max_batch_size, metavar="N")
    parser.add_argument(
        "--max-wait-ms",
        type=float,
        default=defaults.max_wait_ms,
        metavar="MS",
        help="an idle server's wait for company",
    )
    parser.add_argument(
        "--max-queue", type=int, default=defaults.max_queue, metavar="N", help="sequences that may wait before 429"
    )
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="of prompt and answer (default: the model's)")
    parser.add_argument(
        "--max-logprobs", type=int, metavar="N", help="log-probabilities told per position (default: all; 0: none)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: CUDA when there is one)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--attention", default="auto", help="auto, sdpa, eager, flash_attention_2")
    parser.add_argument("--compile", action="store_true", help="run the layers through torch.compile")
    search = parser.add_argument_group("answers found by search")
    search.add_argument("--search", metavar="METHOD", help="best_of_n, beam or puct (default: none, the model answers)")
    search.add_argument(
        "--reward",
        metavar="SPEC",
        default='{"loglikelihood": 1.0}',
        help="what chooses among answers: JSON, a .json or .toml file, or module:function (default: %(default)s)",
    )
    search.add_argument("--budget", type=int, default=8, metavar="N", help="answers, beams or simulations per request")
    parser.add_argument("--offline", action="store_true", help="never ask a hub; models must be here already")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    settings = ServeSettings(
        host=args.host,
        port=args.port,
        max_batch_size=args.max_batch_size,
        max_wait_ms=args.max_wait_ms,
        max_queue=args.max_queue,
        max_length=args.max_length,
        max_logprobs=args.max_logprobs,
        key_env=args.key_env,
    )

    def load() -> LanguageModel:
        if args.model == "fake":
            from treegym.models.local.fake import FakeLanguageModel

            return cast(LanguageModel, FakeLanguageModel(seed=args.seed))
        from treegym.models.loading import load_model

        return load_model(
            args.model,
            device=args.device,
            dtype=args.dtype,
            attention=args.attention,
            compile_model=args.compile,
            local_files_only=args.offline,
        )

    def ready(served: Served) -> None:
        if args.json:
            say(json.dumps({"url": served.url, "model": served.name}), flush=True)
        else:
            say(f"serving {served.name} on {served.url} (stop with Ctrl-C)", flush=True)

    serve(load, settings, ready=ready, around=_around(args))
    say("treegym serve: stopped", file=sys.stderr)
    return 0


def _around(args: argparse.Namespace) -> Callable[[Batcher, LanguageModel], Any] | None:
    if args.search is None:
        return None
    from treegym.integrations.search_serving import SearchingBatcher

    try:
        reward = json.loads(args.reward)
    except ValueError:  # a file or an import path
        reward = args.reward

    def around(batcher: Batcher, model: LanguageModel) -> Any:
        decode = model.tokenizer.decode
        return SearchingBatcher(batcher, decode, method=args.search, reward=reward, budget=args.budget)

    return around
