"""Numbers written in English words, as models write them: "forty-two" and "one hundred and five" have a value."""

from __future__ import annotations

__all__ = ["in_figures"]

ONES = {
    word: value
    for value, word in enumerate(
        [
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
        ]
    )
}  # fmt: skip
TENS = {
    word: value
    for value, word in zip(
        range(20, 100, 10), ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], strict=True
    )
}
SCALES = {"thousand": 1_000, "million": 1_000_000}
LONGEST = 100  # characters; "nine hundred and ninety-nine thousand ..." has fewer


def in_figures(text: str) -> int | None:
    """Returns the number that the whole text is, below a billion, None where it is anything else."""
    if len(text) > LONGEST:
        return None
    words = text.casefold().replace("-", " ").split()
    total, scale = 0, 10**9
    while words:
        place = next((place for place, word in enumerate(words) if word in SCALES), None)
        head, name = (words, None) if place is None else (words[:place], words[place])
        value = _below_thousand(head[1:] if total and head[:1] == ["and"] else head)
        step = 1 if name is None else SCALES[name]
        if value is None or step >= scale or (total and not value):
            return None
        total, scale, words = total + value * step, step, [] if place is None else words[place + 1 :]
    return total if text.strip() else None


def _below_thousand(words: list[str]) -> int | None:
    """Returns the value of words such as "two hundred and five"."""
    hundreds = 0
    if len(words) > 1 and words[1] == "hundred":
        hundreds = ONES.get(words[0], 0)
        if not 1 <= hundreds <= 9:
            return None
        words = words[2:]
        if not words:
            return 100 * hundreds
        words = words[1:] if words[0] == "and" else words
    if len(words) == 1:
        rest = ONES.get(words[0], TENS.get(words[0]))
    elif len(words) == 2 and words[0] in TENS and 1 <= ONES.get(words[1], 0) <= 9:
        rest = TENS[words[0]] + ONES[words[1]]
    else:
        rest = None
    return None if rest is None or (hundreds and not rest) else 100 * hundreds + rest
