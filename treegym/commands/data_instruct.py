"""`treegym data self-instruct`: new prompts from a few, written and answered by a model, screened, in rounds."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from treegym.commands import data
from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--seeds", required=True, help="prompts to begin with: a JSONL file, bundled:train=30, ...")
    parser.add_argument("--rounds", type=int, default=2, help="rounds; each shows what earlier ones made (default: 2)")
    parser.add_argument("--asked", type=int, default=64, help="series gone on with in a round (default: %(default)s)")
    parser.add_argument("--shown", type=int, default=8, help="prompts in a series (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="of writing (default: %(default)s)")
    parser.add_argument("--answerer", metavar="MODEL", help="who answers the new prompts (default: --model)")
    parser.add_argument("--answers", type=int, default=4, help="sampled answers per prompt (default: %(default)s)")
    parser.add_argument("--agreement", type=float, default=0.5, help="least share of equal answers (default: 0.5)")
    group = parser.add_argument_group("what a prompt must pass")
    group.add_argument(
        "--like", default="words", metavar="HOW", help="likeness by words, rouge, or a sentence model (default: words)"
    )
    group.add_argument("--most-alike", type=float, default=0.7, help="from here on it is not new (default: 0.7)")
    group.add_argument("--held-out", metavar="SOURCE", help="prompts that none may be like, such as bundled:test=400")
    group.add_argument("--solve", choices=("bundled",), help="a rule must work its answer out: the bundled kinds")
    group.add_argument(
        "--perplexity", nargs=2, type=float, metavar=("LEAST", "MOST"), help="bounds under --reader (default: none)"
    )
    group.add_argument("--reader", metavar="MODEL", help="whose perplexity (default: --model)")
    group.add_argument("--judge", metavar="REWARD", help="a judge of prompt and answer, as a reward of one judge term")
    group.add_argument("--least-judged", type=float, default=0.5, help="its least score (default: %(default)s)")
    group.add_argument("--longest", type=int, default=500, help="characters of a prompt (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes the prompts."""
    from treegym.commands.prompting import answer_rule
    from treegym.synthesis.likeness import likeness_named
    from treegym.synthesis.self_instruct import InstructSettings, Screens, self_instruct
    from treegym.synthesis.writer import Writer

    names = ("rounds", "asked", "shown", "temperature", "answers", "agreement", "most_alike", "longest", "seed")
    settings = InstructSettings(**{name: getattr(args, name) for name in names})
    if args.perplexity is not None and not 0 < args.perplexity[0] < args.perplexity[1]:
        raise ConfigError(f"--perplexity is {args.perplexity}; two numbers above 0, the lower one first, were expected")
    seeds = data.prompts_of(args.seeds, args).roots
    held = [root.prompt for root in data.prompts_of(args.held_out, args).roots] if args.held_out else []
    with data.writing(args) as (output, writer):

        def by(name: str | None) -> Writer | None:
            return None if name is None else Writer(data.opened(name, args), output.journal, max_tokens=args.max_tokens)

        answerer, reader = by(args.answerer), by(args.reader)
        leaks = likeness_named(args.like, held) if held else None
        if leaks is not None:
            leaks.add(held)
        made = self_instruct(
            seeds,
            writer,
            Screens(
                likeness=likeness_named(args.like, [root.prompt for root in seeds]),
                leaks=leaks,
                solve=_bundled if args.solve else None,
                perplexity=args.perplexity and tuple(args.perplexity),
                reader=reader or writer,
                judge=data.judge_of(args.judge) if args.judge else None,
                least_judged=args.least_judged,
                rule=answer_rule(args),
            ),
            settings,
            answerer=answerer,
            report=lambda told: None if args.json else say(f"treegym: {_shown(told)}", file=sys.stderr),
        )
        for other in (answerer, reader):
            if other is not None:
                writer.costs.join(other.costs)
        output.finish(made.rows)
        return data.tell(args, writer, {"prompts": len(made.rows), "refused": dict(made.refused)})


def _bundled(prompt: str) -> tuple[str, str] | None:
    from treegym.models.tasks import KINDS

    kind = next((kind for kind in KINDS.values() if kind.matches(prompt)), None)
    return None if kind is None else (kind.answer(prompt), kind.name)


def _shown(told: dict[str, Any]) -> str:
    return f"round {told['round']}: {told['prompts']:,} prompts, {sum(told['refused'].values()):,} refused"
