"""One way to put a prompt to a model, for primary, teachers, judges, evaluation and training alike.

A format says how the text before an answer is made: the bare prompt, examples before it, or the model's own chat
template; a model's BOS comes first where its tokenizer says so. It also says at which stop strings an answer is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treegym.checks import one_of
from treegym.errors import ConfigError, DataError
from treegym.files import read_json_lines
from treegym.models.base import Speaker
from treegym.models.tokens.chat import FEWEST_STEPS, chat_beginning, has_chat_template
from treegym.models.tokens.tokenizers import prefix_ids
from treegym.tree.pictures import has_picture

__all__ = ["FORMS", "Begin", "PromptFormat", "format_named", "read_examples"]

FORMS = ("auto", "raw", "few-shot", "chat")
Begin = Callable[[str], tuple[int, ...]]  # a prompt -> the ids its answer is a continuation of


@dataclass(frozen=True)
class PromptFormat:
    """How prompts are put.

    Attributes:
        form: ``raw`` (the template alone), ``few-shot`` (examples before it), ``chat`` (the model's chat template), or
            ``auto``: chat where the model has a template, else few-shot where there are examples, else raw.
        system: the instruction of the chat form; templates without a system role get it before the first question.
        template: what a prompt is put into, with ``{prompt}``.
        examples: questions and answers shown before: as text, or as earlier turns of a chat.
        between: what comes between a prompt and its answer in an example.
        separator: what comes between two examples.
        stops: strings at which an answer is over; the answer ends before them.
    """

    form: str = "auto"
    system: str | None = FEWEST_STEPS
    template: str = "{prompt}"
    examples: tuple[tuple[str, str], ...] = ()
    between: str = " "
    separator: str = "\n\n"
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("the form of prompts", self.form, FORMS)
        if "{prompt}" not in self.template:
            raise ConfigError(f"the template of prompts is {self.template!r}; it must hold {{prompt}}")
        if self.form == "few-shot" and not self.examples:
            raise ConfigError("few-shot prompts need examples; give a file of them (few-shot:FILE)")
        if not all(isinstance(stop, str) and stop for stop in self.stops):
            raise ConfigError(f"stop strings are {self.stops!r}; texts of at least one character were expected")
        object.__setattr__(self, "examples", tuple((str(q), str(a)) for q, a in self.examples))
        object.__setattr__(self, "stops", tuple(self.stops))

    def form_for(self, model: Speaker) -> str:
        """Returns the form that a model is asked in: raw, few-shot or chat."""
        if self.form == "auto":
            return "chat" if has_chat_template(model) else "few-shot" if self.examples else "raw"
        if self.form == "chat" and not has_chat_template(model):
            raise ConfigError(f"{model.name!r} is a base model without a chat template; ask it in few-shot or raw form")
        return self.form

    def text(self, prompt: str, *, before: str = "") -> str:
        """Returns the text before an answer in raw and few-shot form; `before` is read just before the prompt's own."""
        shown = [f"{self._filled(question)}{self.between}{answer}" for question, answer in self.examples]
        return self.separator.join([*shown, before + self._filled(prompt)])

    def begin(self, model: Speaker, *, before: Callable[[str], str] | None = None) -> Begin:
        """Returns how a model's texts begin: a prompt -> token ids.

        Args:
            model: who is asked.
            before: a prompt -> what is read just before it, such as passages; by default nothing.
        """
        form, told = self.form_for(model), _checked(model, before or _nothing)
        if form == "chat":
            examples = [(self._filled(question), answer) for question, answer in self.examples]
            asked = chat_beginning(model, system=self.system or None, examples=examples)
            return lambda prompt: asked(told(prompt) + self._filled(prompt))
        start, encode = prefix_ids(model.tokenizer), model.tokenizer.encode
        if form == "few-shot":
            return lambda prompt: (*start, *encode(self.text(prompt, before=told(prompt))))
        return lambda prompt: (*start, *encode(told(prompt) + self._filled(prompt)))

    def _filled(self, prompt: str) -> str:
        return self.template.replace("{prompt}", prompt)

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, told: Any) -> PromptFormat:
        """Returns the format that `to_dict` wrote; raises DataError for anything else."""
        try:
            texts = {name: told[name] for name in ("form", "template", "between", "separator")}
            system, stops, examples = told["system"], told["stops"], told["examples"]
            pairs = tuple((question, answer) for question, answer in examples)
            known = [*texts.values(), *stops, *(text for pair in pairs for text in pair)]
            if not all(isinstance(text, str) for text in known) or not isinstance(system, str | None):
                raise TypeError("something that is not text")
            return cls(**texts, system=system, stops=tuple(stops), examples=pairs)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise DataError(f"a form of prompts is damaged: {error}; grow the tree anew") from error


def _checked(model: Speaker, before: Callable[[str], str]) -> Callable[[str], str]:
    """Returns `before`, which refuses prompts with a picture if the model sees none."""
    if getattr(model.tokenizer, "sees", False):
        return before

    def told(prompt: str) -> str:
        if has_picture(prompt):
            raise DataError(
                f"{model.name} sees no pictures, and the prompt {prompt[:60]!r} has one; use a model that sees, such "
                "as tiny-captioner, or leave the prompt out"
            )
        return before(prompt)

    return told


def _nothing(prompt: str) -> str:
    return ""


def read_examples(path: str | Path) -> tuple[tuple[str, str], ...]:
    """Returns questions and answers of a JSONL file with ``prompt`` and ``answer`` in every line."""
    examples = []
    for where, row in read_json_lines(path):
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or "answer" not in row:
            raise DataError(f'{where}: expected an object like {{"prompt": "...", "answer": "..."}}')
        examples.append((row["prompt"], str(row["answer"])))
    if not examples:
        raise DataError(f"{path}: holds no examples; expected one JSON object with prompt and answer per line")
    return tuple(examples)


def format_named(
    name: str,
    *,
    system: str | None = None,
    template: str | None = None,
    between: str | None = None,
    stops: Sequence[str] = (),
) -> PromptFormat:
    """Returns the format of a name, ``few-shot:FILE`` and ``chat:FILE`` with the examples of a file among them."""
    form, colon, file = name.partition(":")
    if colon and form not in ("few-shot", "chat"):
        raise ConfigError(f"the format is {name!r}; a file of examples goes with few-shot: or chat: only")
    given = {"system": system, "template": template, "between": between}
    told: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return PromptFormat(form=form, examples=read_examples(file) if file else (), stops=tuple(stops), **told)
