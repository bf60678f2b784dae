"""Runs inside vLLM's own environment: asks `VllmModel`, writes what it says.

python in_process.py MODEL OTHER_MODEL OUT
"""

import json
import sys

import numpy as np

from treegym.files import write_arrays
from treegym.models.local.vllm_model import VllmModel
from treegym.models.tree_scores import Branches

TEXTS = ("12+3=", "ny", "7*8", "0", "1234567890+1234567890=", "9-9=0.")
CONTINUATIONS = ("15.", "n", "", "1", "2469", "y")


def main(first: str, other: str, out: str) -> None:
    model = VllmModel(first, dtype="float32", max_length=256, cache_bytes=2**28, eager=True)
    encode = model.tokenizer.encode
    contexts = [encode(text) for text in TEXTS]
    ids, values = model.top_logprobs(contexts, 6)
    tree = Branches(tuple(contexts[0]), np.array([3, 4, 5], np.int32), np.array([-1, 0, 0], np.int32))
    [scores] = model.score_trees([tree], best=3, worst=2, hidden=True)
    sampled = [model.generate([contexts[0]] * 4, max_new_tokens=8, temperature=1.5, seed=s) for s in (1, 1, 2)]
    told = {
        "greedy": model.generate(contexts, max_new_tokens=24),
        "sampled": sampled,
        "empty": [model.generate([], max_new_tokens=3), len(model.next_logprobs([]))],
        "fingerprint": model.fingerprint(),
    }
    arrays = {
        "next": model.next_logprobs(contexts),
        "top_ids": ids,
        "top_values": values,
        "score": np.concatenate(model.score(contexts, [encode(text) for text in CONTINUATIONS])),
        "tree_logp": scores.logp,
        "tree_best": scores.best_ids,
        "tree_worst": scores.worst_ids,
        "states": scores.hidden,
    }
    model.update_weights(other)
    arrays["next_updated"] = model.next_logprobs(contexts)
    told["fingerprint_updated"] = model.fingerprint()
    model.update_weights(first)
    arrays["next_back"] = model.next_logprobs(contexts)
    write_arrays(out, arrays, {"told": json.dumps(told)})
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
