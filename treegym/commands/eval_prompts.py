"""`treegym eval MODEL --prompts FILE`: a language model on prompts of one's own, without a tree."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treegym.commands.prompting import answer_rule, configure_prompting, prompt_format
from treegym.display import say
from treegym.errors import ConfigError

if TYPE_CHECKING:
    from treegym.iterate.evaluate import Answered

__all__ = ["configure_prompts", "run_prompts"]


def configure_prompts(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for language models."""
    parser.add_argument(
        "--prompts", type=Path, default=None, help="a JSONL file of prompts and answers, for language models"
    )
    parser.add_argument("--max-tokens", type=int, default=48, help="longest answer to --prompts (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="answers per prompt, for pass@k and majority")
    parser.add_argument("--temperature", type=float, default=None, help="of the samples (default: 0, or 1 for several)")
    parser.add_argument(
        "--beyond", default="refuse", choices=("refuse", "window"),
        help="texts beyond a model's positions: refuse, or read their first and latest tokens (default: refuse)",
    )  # fmt: skip
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print so many wrong answers")
    parser.add_argument("--device", help="cpu, cuda, cuda:N, for --prompts (default: cuda when there is one)")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16, for --prompts (default: auto)")
    configure_prompting(parser)


def run_prompts(args: argparse.Namespace) -> int:
    """Prints accuracy with its interval, by kind, and what is worth knowing about the answers."""
    from treegym.iterate.evaluate import answer_prompts, load_answered, summary
    from treegym.models.base import context_length
    from treegym.models.windowed import Windowed

    for name, least in (("max_tokens", 1), ("samples", 1), ("show", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least {least}")
    temperature = args.temperature if args.temperature is not None else float(args.samples > 1)
    if args.samples > 1 and temperature <= 0.0:
        raise ConfigError("--samples at temperature 0 gives equal answers; leave --temperature out, or raise it")
    form, rule = prompt_format(args), answer_rule(args)
    prompts = load_answered(str(args.prompts), seed=args.seed, rule=rule)
    model = _language_model(args)
    limit = context_length(model)
    answered = answer_prompts(
        Windowed(model) if args.beyond == "window" else model,
        prompts,
        max_tokens=args.max_tokens,
        form=form,
        samples=args.samples,
        temperature=temperature,
        seed=args.seed,
    )
    result = {"agent": args.agent, "prompts_file": str(args.prompts)} | summary(answered, rule)
    lengths = [(done, size) for one in answered for done, size in zip(one.ended, one.lengths, strict=True)]
    short = sum(not done and size < args.max_tokens for done, size in lengths)
    result |= {"positions": limit, "cut_by_positions": short}
    result |= {"form": form.form_for(model), "temperature": temperature}
    wrong = [one for one in answered if not one.right[0]][: args.show]
    if args.json:
        shown = {"wrong": [_as_json(one) for one in wrong]} if args.show else {}
        say(json.dumps({**result, **shown}))
        return 0
    say("\n".join([*_as_text(args, result), *_page(wrong)]))
    return 0


def _as_text(args: argparse.Namespace, result: dict[str, Any]) -> list[str]:
    how = "greedy" if not result["temperature"] else f"{args.samples} samples at temperature {result['temperature']:g}"
    lines = [
        f"{args.agent} on {result['prompts']} prompts of {args.prompts}, {result['form']} form, {how}, without a tree",
        f"  accuracy {result['accuracy']:.4f}  (95 %: {result['low']:.4f} to {result['high']:.4f})",
        *(f"  {kind:<16} {accuracy:.4f}" for kind, accuracy in result["by_kind"].items()),
        f"  mean length {result['mean_tokens']:.1f} tokens",
    ]
    for k, solved in result.get("pass_at", {}).items():
        lines.append(f"  pass@{k:<3} {solved:.4f}   majority@{k:<3} {result['majority_at'][k]:.4f}")
    if result["cut"] > 0.0 and not args.cut_counts:
        lines.append(
            f"  {result['cut']:.0%} of the answers were cut at {args.max_tokens} tokens and count as wrong: give a "
            "--stop or more --max-tokens, or judge them with --cut-counts"
        )
    if result["cut_by_positions"]:
        ended, positions = result["cut_by_positions"], result["positions"]
        lines.append(
            f"  {ended} answers ended where the {positions} positions of {args.agent} do: give shorter prompts, or "
            "--beyond window"
        )
    return lines


def _as_json(one: Answered) -> dict[str, Any]:
    return {"prompt": one.root.prompt, "answer": one.root.answer, "text": one.texts[0], "ended": one.ended[0]}


def _page(wrong: Sequence[Answered]) -> list[str]:
    """Returns wrong answers for reading."""
    lines = []
    for one in wrong:
        end = "" if one.ended[0] else "  [cut]"
        lines += [
            "",
            f"prompt    {one.root.prompt!r}",
            f"expected  {one.root.answer!r}",
            f"got       {one.texts[0]!r}{end}",
        ]
    return lines


def _language_model(args: argparse.Namespace) -> Any:
    """Returns the model in a directory, a bundled one by name, or the one that a checkpoint trained."""
    from treegym.models.backends import open_model

    if not args.agent.endswith(".zip"):
        inside = Path(args.agent) / "model"  # of a round of `treegym iterate`
        name = str(inside) if (inside / "config.json").is_file() else args.agent
        return open_model(name, device=args.device, dtype=args.dtype)
    from treegym.agents.checkpoint import describe
    from treegym.agents.registry import agent_class, class_that_saves

    about = describe(args.agent)
    if about["policy"] != "LMPolicy":
        raise ConfigError(
            f"--prompts needs a language model; {args.agent} holds a {about['policy']}, which only chooses children"
        )
    named = args.algorithm is not None
    found = agent_class(args.algorithm) if named else class_that_saves(about["algorithm"], args.agent)
    agent = found.load(args.agent)
    with tempfile.TemporaryDirectory() as folder:
        agent.policy.save_model(folder)
        return open_model(folder, device=args.device, dtype=args.dtype)
