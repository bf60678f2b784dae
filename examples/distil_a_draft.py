"""A draft of one's own for speculative decoding: one layer of a model, taught to say what all its layers say.

The command does the same: treegym distill tiny-llama --layers 1 --steps 40 --out draft
"""

from treegym.envs.token_tree.prompts import load_prompts
from treegym.models import load_model
from treegym.models.local.distilling import DistilSettings, distil, speculation, thinned
from treegym.models.local.speculative import SpeculativeModel
from treegym.models.local.transformers_model import TransformersModel

target = load_model("tiny-llama", dtype="float32", device="cpu")
prompts = load_prompts("bundled:train=200,test=24")
asked = {
    split: [target.tokenizer.encode(f"{root.prompt} ") for root in prompts.roots if root.split == split]
    for split in ("train", "test")
}
cut = TransformersModel(thinned(target, 1), target.tokenizer, name="one layer, as it was")
draft = distil(target, asked["train"], DistilSettings(layers=1, steps=40))
for model in (cut, draft):
    told = speculation(model, target, asked["test"], seed=0, max_new_tokens=24, temperature=1.0)
    print(
        f"{model.name}: {told['acceptance']:.2f} accepted, {told['tokens_per_pass']:.2f} tokens per pass of the target"
    )
pair = SpeculativeModel(draft, target)  # a model as any other; at temperature 0 its texts are the target's
texts = pair.generate(asked["test"][:4], max_new_tokens=24)
print([target.tokenizer.decode(text) for text in texts], texts == target.generate(asked["test"][:4], max_new_tokens=24))
