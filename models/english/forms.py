"""How the voices of the English tree are asked: the same model in other forms says other things.

Examples show what answers look like (a whole sentence); none of them is a question of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from treegym.models.english.kinds import TAUGHT
from treegym.models.tokens.prompt_format import PromptFormat

__all__ = ["EXAMPLES", "PRIMARY", "TAUGHT_FORM", "TEACHERS", "Speaker"]

EXAMPLES = {
    "capital": ("What is the capital of Switzerland?", "The capital of Switzerland is Bern."),
    "continent": ("What is the continent of Mexico?", "The continent of Mexico is North America."),
    "symbol": ("What is the symbol of silver?", "The symbol of silver is Ag."),
    "plural": ("What is the plural of lady?", "The plural of lady is ladies."),
    "sum": ("What is seven plus fifteen?", "Seven plus fifteen is twenty-two."),
    "story": ("Eve has 9 pens and gives 3 away. How many pens does Eve have now?", "Eve has 9 - 3 = 6 pens."),
    "letter": ("What is the first letter of house?", "The first letter of house is h."),
    "comparison": ("Which number is smaller, 410 or 140?", "The smaller number is 140."),
    "chain_sum": ("State the final answer to the following arithmetic problem: 6 + 7 =", "6 + 7 = 13."),
}
TEMPLATE = "Question: {prompt}\nAnswer:"


@dataclass(frozen=True)
class Speaker:
    """A model and how it is asked. `model` is a provided name, or the name of one that is trained here (`TAUGHT`)."""

    name: str
    model: str
    form: PromptFormat


def _few_shot(*kinds: str) -> PromptFormat:
    return PromptFormat(form="few-shot", examples=_shown(kinds), template=TEMPLATE, stops=("\n",))


def _chat(*kinds: str) -> PromptFormat:
    return PromptFormat(form="chat", examples=_shown(kinds), system=None, stops=("\n",))


def _shown(kinds: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(EXAMPLES[kind] for kind in kinds)


TAUGHT_FORM = PromptFormat(form="raw", template=TEMPLATE, stops=("\n",))
PRIMARY = Speaker("smollm2", "smollm2", _few_shot("plural", "continent", "sum", "comparison"))
TEACHERS = (
    Speaker("gemma3-270m", "gemma3-270m", _few_shot("capital", "symbol", "continent", "plural", "comparison")),
    Speaker("smollm2-chat", "smollm2", _chat("plural", "comparison", "letter", "capital")),
    *(Speaker(f"smollm2-{name}", name, TAUGHT_FORM) for name in TAUGHT),
)
