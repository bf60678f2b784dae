"""Where prompts come from: the bundled suite, JSONL files, Hugging Face datasets on disk, reasoning-gym.

Every source is named by a short text, the way the command line takes it:

    bundled                               the bundled suite, 400 train, 100 validation and 400 test prompts
    bundled:train=50,test=20              so many of each split
    english                               the questions of the English tree (some come from reasoning-gym)
    captions, captions:train=50           pictures of drawn shapes, to be described (300, 50 and 150)
    questions.jsonl                       {"prompt": ..., "answer": ..., "split": ..., "kind": ...} per line, and
                                          "extract" (how the answer is found) or "choices" (texts to choose among),
                                          "image" (a PNG or JPEG beside the file, shown where the prompt has <image>)
    path/to/dataset                       a Hugging Face dataset saved with save_to_disk
    questions.csv, questions.parquet      a table; its columns can be named: questions.csv#question=q,answer=a
    hf:openai/gsm8k#question=question,answer=answer,config=main      a data set of a hub, or of the local cache
    reasoning-gym:chain_sum,size=100      a generator of reasoning-gym with its options
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from treegym.envs.token_tree.grow.settings import Verifier
from treegym.envs.token_tree.prompt_tables import ANSWER_FIELDS, PROMPT_FIELDS, is_table, read_table
from treegym.envs.token_tree.puzzle_prompts import puzzles
from treegym.errors import ConfigError, DataError, require, suggest
from treegym.files import read_json_lines
from treegym.models import tasks
from treegym.rewards.answers import AnswerRule
from treegym.tree.pictures import picture_name
from treegym.tree.token_tree import SPLITS, Root

__all__ = ["PromptSet", "load_prompts"]

BUNDLED_COUNTS = {"train": 400, "validation": 100, "test": 400}
CAPTION_COUNTS = {"train": 300, "validation": 50, "test": 150}
CAPTION_TOKENS = 12
PLACE = "<image>"  # where a prompt of a file has its picture; by default before everything
SPLIT_NAMES = {**{name: name for name in SPLITS}, "valid": "validation", "dev": "validation", "eval": "validation"}


@dataclass(frozen=True)
class PromptSet:
    """Prompts with the verifier that knows how to compare an answer with their references."""

    roots: list[Root]
    verify: Verifier
    source: str
    max_tokens: int | None = None  # what the source suggests as the longest answer
    extra: Mapping[str, Any] = field(default_factory=dict)
    rule: AnswerRule = field(default_factory=AnswerRule)  # how the verifier finds answers in texts


def load_prompts(
    source: str,
    *,
    seed: int = 0,
    limit: int | None = None,
    shares: Sequence[float] | None = None,
    rule: AnswerRule | None = None,
) -> PromptSet:
    """Returns the prompts a source names.

    Args:
        source: see this module's docstring.
        seed: seed of sources that are generated.
        limit: at most so many prompts, the first ones.
        shares: shares of train, validation and test for prompts that come without a split; default all train.
        rule: how answers are found and compared where prompts come from files; a line's own "extract" goes before.
    """
    rule = rule or AnswerRule()
    name, _, rest = source.partition(":")
    if name == "bundled":
        found = _bundled(rest, seed)
    elif name == "captions":
        found = _captions(rest, seed)
    elif source == "english":
        found = _english()
    elif name == "reasoning-gym":
        found = _reasoning_gym(rest, seed)
    elif is_table(source):
        found = PromptSet([_root(*row, where) for where, row in read_table(source)], _verifier(rule), source)
    elif Path(source).is_dir():
        found = _dataset(Path(source), rule)
    elif Path(source).is_file():
        found = _jsonl(Path(source), rule)
    else:
        raise DataError(
            f"{source}: no such prompt file or dataset directory; other sources are bundled, captions, english "
            "and reasoning-gym:NAME"
        )
    roots = found.roots if limit is None else found.roots[:limit]
    if not roots:
        raise DataError(f"{source}: holds no prompts")
    if shares is not None:
        roots = [root if root.extra.get("split") else _split_by_hash(root, shares) for root in roots]
    cleaned = [replace(r, extra={k: v for k, v in r.extra.items() if k != "split"}) for r in roots]
    return replace(found, roots=cleaned, rule=rule)


def _split_by_hash(root: Root, shares: Sequence[float]) -> Root:
    """Assigns a split by the prompt's own hash: the same prompt is always on the same side."""
    if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
        raise ConfigError(f"split shares are three numbers (train, validation, test), not {list(shares)}")
    digest = hashlib.blake2b(root.prompt.encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64 * sum(shares)
    split = "train" if place < shares[0] else "validation" if place < shares[0] + shares[1] else "test"
    return replace(root, split=split)


def _options(text: str, what: str) -> dict[str, str]:
    pairs = [part for part in re.split(r",(?![^\[]*\])", text) if part]  # not within a list
    bad = [part for part in pairs if "=" not in part]
    if bad:
        raise ConfigError(f"{what}: expected name=value, got {bad[0]!r}")
    return {name.strip(): value.strip() for name, value in (part.split("=", 1) for part in pairs)}


def _verifier(rule: AnswerRule) -> Verifier:
    """Returns what compares a text with a reference; bundled tasks have one of their own, which knows worked steps."""

    def verify(root: Root, text: str) -> float:
        if not root.answer:
            return float("nan")
        if any(kind.matches(root.prompt) for kind in tasks.KINDS.values()):
            return float(tasks.is_correct(text, root.answer))
        own = root.extra.get("extract")
        return float((AnswerRule(own) if own is not None else rule).right(text, root.answer))

    return verify


# ---------------------------------------------------------------- the bundled suite


def _counts(text: str, usual: Mapping[str, int], what: str) -> dict[str, int]:
    """Returns how many prompts of each split are asked for."""
    counts = dict.fromkeys(SPLITS, 0) if text else dict(usual)
    for split, value in _options(text, what).items():
        if split not in counts:
            raise ConfigError(f"{what}: there is no split {split!r}.{suggest(split, SPLITS)}")
        if not value.isdecimal():
            raise ConfigError(f"{what}: {split}={value!r} is not a number of prompts")
        counts[split] = int(value)
    return counts


def _bundled(text: str, seed: int) -> PromptSet:
    counts = _counts(text, BUNDLED_COUNTS, "bundled prompts")
    roots = [
        Root(problem.prompt, problem.answer, split, problem.kind, extra={"half": problem.half, "split": True})
        for split in SPLITS
        for problem in tasks.problems(split, counts[split], seed=seed)  # type: ignore[arg-type]
    ]
    return PromptSet(
        roots,
        lambda root, answer: float(tasks.is_correct(answer, root.answer)),
        "bundled",
        max_tokens=tasks.MAX_ANSWER_TOKENS,
    )


def _captions(text: str, seed: int) -> PromptSet:
    from treegym.models.vision.shapes import QUESTION, draw, png_of, scenes

    roots = []
    for split, count in _counts(text, CAPTION_COUNTS, "captions").items():
        rng, there = np.random.default_rng([seed, SPLITS.index(split)]), scenes(split)
        for place in rng.integers(len(there), size=count):
            image = png_of(draw(there[place], rng))
            asked = picture_name(image) + QUESTION
            kind = "two shapes" if there[place].second else "one shape"
            roots.append(Root(asked, there[place].caption, split, kind, extra={"split": True}, image=image))
    return PromptSet(roots, _verifier(AnswerRule()), "captions", max_tokens=CAPTION_TOKENS)


def _english() -> PromptSet:
    from treegym.models.english.questions import questions

    roots = [
        Root(q.prompt, q.answer, split, q.kind, extra={"extract": q.extract, "split": True}) for split, q in questions()
    ]
    return PromptSet(roots, _verifier(AnswerRule()), "english")


# ---------------------------------------------------------------- files


def _jsonl(path: Path, rule: AnswerRule) -> PromptSet:
    roots = [_line(row, where, path.parent) for where, row in read_json_lines(path)]
    if not roots:
        raise DataError(f"{path}: the prompt file is empty; expected one JSON object per line with prompt and answer")
    return PromptSet(roots, _verifier(rule), str(path))


def _line(row: Any, where: str, folder: Path) -> Root:
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise DataError(f'{where}: expected an object like {{"prompt": "...", "answer": "..."}}')
    answer = row.get("answer", "")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise DataError(f"{where}: the answer must be a string or a number")
    root = _root(row["prompt"], answer, row.get("split"), row.get("kind", ""), where)
    root = replace(root, extra={**root.extra, **_how_judged(row, where)})
    return root if row.get("image") is None else _shown(root, row["image"], where, folder)


def _shown(root: Root, file: Any, where: str, folder: Path) -> Root:
    """Returns a prompt with the picture in a file beside the prompts."""
    from treegym.models.vision.pixels import plain_picture

    if not isinstance(file, str) or Path(file).is_absolute() or ".." in Path(file).parts:
        raise DataError(f"{where}: the image is {file!r}; the name of a file beside the prompts was expected")
    image = plain_picture(folder / file)
    prompt = root.prompt if PLACE in root.prompt else PLACE + root.prompt
    return replace(root, prompt=prompt.replace(PLACE, picture_name(image)), image=image)


def _how_judged(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns what a line says of its answer: how it is found in a text, or the texts it is chosen among."""
    said: dict[str, Any] = {}
    if (extract := row.get("extract")) is not None:
        try:
            AnswerRule(extract if isinstance(extract, str) else repr(extract))
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from error
        said["extract"] = extract
    if (choices := row.get("choices")) is not None:
        texts = isinstance(choices, list) and len(choices) > 1 and all(isinstance(c, str) and c for c in choices)
        if not texts:
            raise DataError(f"{where}: choices is {choices!r}; a list of at least two texts was expected")
        if row.get("answer") not in choices:
            raise DataError(f"{where}: the answer {row.get('answer')!r} is not among the choices {choices!r}")
        said["choices"] = list(choices)
    return said


def _root(prompt: str, answer: Any, split: Any, kind: Any, where: str) -> Root:
    known = SPLIT_NAMES.get(str(split)) if split is not None else "train"
    if known is None:
        raise DataError(f"{where}: the split is {split!r}; expected {', '.join(SPLITS)}")
    if answer is not None and not isinstance(answer, str | int | float):
        raise DataError(f"{where}: the answer is {str(answer)[:60]!r}; a column of texts or numbers was expected")
    return Root(
        prompt,
        "" if answer is None else str(answer),
        known,
        str(kind or ""),
        extra={"split": True} if split is not None else {},
    )


def _dataset(path: Path, rule: AnswerRule) -> PromptSet:
    if not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")):
        raise DataError(f"{path}: not a dataset directory (made by save_to_disk): it has no dataset_info.json")
    datasets = require("datasets", extra="prompts", purpose="reading a Hugging Face dataset")
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: the dataset cannot be read: {str(error).splitlines()[0]}") from error
    parts: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {None: loaded}
    roots: list[Root] = []
    for split, part in parts.items():
        prompt, answer = (_column(path, part.column_names, names) for names in (PROMPT_FIELDS, ANSWER_FIELDS))
        for row in part:
            roots.append(_root(str(row[prompt]), row[answer], split, row.get("kind", ""), f"{path}, split {split}"))
    return PromptSet(roots, _verifier(rule), str(path))


def _column(path: Path, names: Iterable[str], wanted: Sequence[str]) -> str:
    present = list(names)
    for name in wanted:
        if name in present:
            return name
    raise DataError(f"{path}: no column is called {' or '.join(wanted)}; it has {', '.join(present)}")


# ---------------------------------------------------------------- reasoning-gym


def _reasoning_gym(text: str, seed: int) -> PromptSet:
    name, _, rest = text.partition(",")
    roots, verify = puzzles(name, _options(rest, "reasoning-gym"), seed)
    return PromptSet(roots, verify, f"reasoning-gym:{text}")
