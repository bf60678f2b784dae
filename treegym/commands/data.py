"""`treegym data`: prompts, revisions and preferences that models make themselves."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from treegym.commands.actions import add_action
from treegym.commands.prompting import answer_rule, configure_prompting, prompt_format
from treegym.display import say
from treegym.errors import ConfigError

if TYPE_CHECKING:
    from treegym.envs.token_tree.prompts import PromptSet
    from treegym.rewards.judge.term import Judge
    from treegym.synthesis.writer import Output, Writer

__all__ = ["ACTIONS", "configure", "configure_pairs", "judge_of", "prompts_of", "run", "tell", "writing"]

ACTIONS = {  # name: module with configure(parser) and run(args), one line of help
    "self-instruct": ("treegym.commands.data_instruct", "new prompts from a few, written and answered by a model"),
    "constitution": ("treegym.commands.data_constitution", "answers criticised and revised by principles, as pairs"),
    "preferences": ("treegym.commands.data_preferences", "pairs of answers, compared by a judge in both orders"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (module, summary) in ACTIONS.items():
        sub = add_action(actions, name, summary)
        sub.add_argument("--out", required=True, help="the JSONL file to write")
        sub.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
        sub.add_argument("--model", default="tiny-primary", help="who writes: any back end (default: %(default)s)")
        sub.add_argument("--max-tokens", type=int, default=64, help="longest text written (default: %(default)s)")
        sub.add_argument("--batch", type=int, default=16, help="texts asked for at once (default: %(default)s)")
        sub.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda when there is one)")
        implementation = importlib.import_module(module)
        implementation.configure(sub)
        configure_prompting(sub)
        sub.set_defaults(act=implementation.run)


def run(args: argparse.Namespace) -> int:
    return int(args.act(args))


def configure_pairs(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that both kinds of pairs share."""
    parser.add_argument("--prompts", default="bundled:train=100", help="as for `treegym grow` (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="at most so many prompts")
    parser.add_argument("--margin", type=float, default=0.1, help="how far from a tie a score must be (default: 0.1)")


@contextmanager
def writing(args: argparse.Namespace) -> Iterator[tuple[Output, Writer]]:
    """Yields the file to write and the model that writes, with the file's journal."""
    from treegym.checks import whole
    from treegym.synthesis.writer import Output, Writer

    most, batch = whole("--max-tokens", args.max_tokens, low=1), whole("--batch", args.batch, low=1)
    form = prompt_format(args)
    output = Output(args.out, overwrite=args.overwrite)
    model = opened(args.model, args)
    with output:
        yield output, Writer(model, output.journal, form=form, max_tokens=most, batch=batch)


def opened(name: str, args: argparse.Namespace) -> Any:
    """Returns the model of a name."""
    from treegym.models.backends import open_model

    return open_model(name, device=args.device)


def prompts_of(source: str, args: argparse.Namespace, *, limit: int | None = None) -> PromptSet:
    """Returns the prompts that a source names."""
    from treegym.envs.token_tree.prompts import load_prompts

    return load_prompts(source, seed=args.seed, limit=limit, rule=answer_rule(args))


def judge_of(text: str, principles: Sequence[str] = ()) -> Judge:
    """Returns the judge that a reward of one judge term describes, with principles as its rubric where there are some.

    Judgements are kept in the cache that the term names; those of servers are by default.
    """
    from treegym.commands.rewards import parse_reward
    from treegym.rewards.judge.term import Judge

    terms = parse_reward(text).part.terms()
    if len(terms) != 1 or not isinstance(terms[0], Judge):
        raise ConfigError(f"--judge is {text!r}; a reward of one judge term was expected, such as '{{\"judge\": 1.0}}'")
    return Judge(**{**terms[0].arguments, "principles": tuple(principles)}) if principles else terms[0]


def tell(args: argparse.Namespace, writer: Writer, figures: dict[str, Any]) -> int:
    """Says what was made, and what it cost."""
    costs = {
        "requests": writer.costs.requests,
        "tokens_read": writer.costs.read,
        "tokens_written": writer.costs.written,
    }
    if args.json:
        say(json.dumps({"out": args.out, **figures, "model": writer.model.name, **costs}))
        return 0
    shown = (f"{value:,} {name}" for name, value in figures.items() if isinstance(value, int))
    say(f"{args.out}: {', '.join(shown)}")
    for why, count in figures.get("refused", figures.get("apart_because", {})).items():
        say(f"{count:>8,}  {why}")
    say(
        f"{writer.model.name}: {costs['requests']:,} texts, {costs['tokens_read']:,} tokens read and "
        f"{costs['tokens_written']:,} written",
        file=sys.stderr,
    )
    return 0
