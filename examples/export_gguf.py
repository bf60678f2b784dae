"""A primary as a GGUF file: what llama.cpp, and all that is built on it, serves. Needs treegym[gguf].

The command does the same: treegym export gguf tiny-primary --out primary.gguf
"""

import importlib.util
import sys
import tempfile
from pathlib import Path

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import MissingDependency
from treegym.models import load_model
from treegym.models.backends import open_model
from treegym.models.local.gguf_export import export_gguf

primary, file = load_model("tiny-primary"), Path(tempfile.mkdtemp()) / "primary.gguf"
try:
    print(export_gguf(primary, file, kind="f16"))
except MissingDependency as error:
    print(error, file=sys.stderr)
    sys.exit(3)
readers = [str(file)]  # read by transformers
if importlib.util.find_spec("xllamacpp"):
    readers.append(f"llama:{file}")  # and by llama.cpp, in this process
for model in (primary, *(open_model(name, dtype="float32") for name in readers)):
    asked = [model.tokenizer.encode(f"{root.prompt} ") for root in load_prompts("bundled:test=4").roots]
    print(model.name, [model.tokenizer.decode(answer) for answer in model.generate(asked, max_new_tokens=16)])
