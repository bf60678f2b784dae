"""Beyond a model's positions: refused by name, or read through a window that keeps the first tokens and the latest.

The command does the same: treegym eval tiny-primary --prompts FILE --format few-shot:FILE --beyond window
"""

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import TreeGymError
from treegym.models import load_model
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.models.windowed import Windowed

model = load_model("tiny-primary")
shown = [(root.prompt, root.answer) for root in load_prompts("bundled:train=12").roots]
begin = PromptFormat("few-shot", examples=shown, separator=" ").begin(model)
asked = [begin(root.prompt) for root in load_prompts("bundled:test=4").roots]
print(f"{model.context_length} positions, prompts of {[len(ids) for ids in asked]} tokens with their examples")
try:
    model.generate(asked, max_new_tokens=16)
except TreeGymError as error:
    print(error)
for ids in Windowed(model).generate(asked, max_new_tokens=16):  # a model as any other
    print(repr(model.tokenizer.decode(ids)))
