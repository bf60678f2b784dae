"""How prompts are put and answers judged: the same flags for `eval`, `grow` and `iterate`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from treegym.errors import ConfigError

if TYPE_CHECKING:
    from treegym.models.tokens.prompt_format import PromptFormat
    from treegym.rewards.answers import AnswerRule

__all__ = ["answer_rule", "configure_prompting", "prompt_format"]

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
    from treegym.models.tokens.prompt_format import PromptFormat, read_examples

    form, colon, file = args.prompt_form.partition(":")
    if colon and form not in ("few-shot", "chat"):
        raise ConfigError(f"--format is {args.prompt_form!r}; a file of examples goes with few-shot: or chat: only")
    given = {} if args.system is None else {"system": args.system}
    if args.template is not None:
        given["template"] = _unescaped(args.template)
    if args.between is not None:
        given["between"] = _unescaped(args.between)
    examples = read_examples(file) if file else ()
    return PromptFormat(form=form, examples=examples, stops=tuple(_unescaped(stop) for stop in args.stop), **given)


def answer_rule(args: argparse.Namespace) -> AnswerRule:
    """Returns the rule that the flags ask for."""
    from treegym.rewards.answers import AnswerRule

    return AnswerRule(extract=_unescaped(args.extract), cut_counts=args.cut_counts)


def _unescaped(text: str) -> str:
    for written, meant in ESCAPES.items():
        text = text.replace(written, meant)
    return text
