"""How prompts are put and answers judged: the same flags for `eval` and `grow`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treegym.models.tokens.prompt_format import PromptFormat
    from treegym.rewards.answers import AnswerRule

__all__ = ["answer_rule", "configure_prompting", "prompt_format", "unescaped"]

ESCAPES = {"\\n": "\n", "\\t": "\t"}  # as people write them on a command line


def configure_prompting(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    group = parser.add_argument_group("how prompts are put and answers judged")
    group.add_argument(
        "--format",
        dest="prompt_form",
        default="auto",
        metavar="FORM",
        help="raw, few-shot:FILE (JSONL examples), chat, or auto: chat where the model has a template, else raw",
    )
    group.add_argument("--system", metavar="TEXT", help="the instruction in chat form; an empty text is none")
    group.add_argument("--template", metavar="TEXT", help="what a prompt is put into, such as 'Q: {prompt}\\nA:'")
    group.add_argument("--between", metavar="TEXT", help="what stands between prompt and answer (default: a space)")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="a string at which an answer is over (repeatable)"
    )
    group.add_argument(
        "--extract", default="stated", metavar="HOW",
        help="how the answer is found in a text: stated, last-number, boxed, choice, after:TEXT, ... (default: stated)",
    )  # fmt: skip
    group.add_argument("--cut-counts", action="store_true", help="answers cut at the limit of tokens may be right too")


def prompt_format(args: argparse.Namespace) -> PromptFormat:
    """Returns the format that the flags ask for."""
    from treegym.models.tokens.prompt_format import format_named

    texts = {
        name: None if (text := getattr(args, name)) is None else unescaped(text) for name in ("template", "between")
    }
    stops = [unescaped(stop) for stop in args.stop]
    return format_named(args.prompt_form, system=args.system, stops=stops, **texts)


def answer_rule(args: argparse.Namespace) -> AnswerRule:
    """Returns the rule that the flags ask for."""
    from treegym.rewards.answers import AnswerRule

    return AnswerRule(extract=unescaped(args.extract), cut_counts=args.cut_counts)


def unescaped(text: str) -> str:
    """Returns a text with the escapes that people write on a command line as what they mean."""
    for written, meant in ESCAPES.items():
        text = text.replace(written, meant)
    return text
