"""Self-Instruct and a constitution with a back end of one's own: whatever has a tokenizer and generates will do.
Pretrained: treegym data self-instruct --seeds bundled:train=32 --model smollm2 --format raw --solve bundled
"""

import string

from treegym.models.embeddings import WordEmbedder
from treegym.models.local.fake import FakeLanguageModel, FakeTokenizer
from treegym.synthesis import InstructSettings, Screens, Writer, constitution, self_instruct
from treegym.synthesis.likeness import Vectors
from treegym.tree.roots import Root


class Rules(FakeLanguageModel):
    """Says what rules say: sums when asked for tasks, a long answer, a short one when asked to revise it."""

    def generate(self, contexts, **settings):
        known = {"Come up": "3+4=\nTask 9: 1+2=\nTask 10: 20+30=", "Write the answer again": "7", "Say in one": "Long."}
        texts = map(self.tokenizer.decode, contexts)
        said = [next((reply for key, reply in known.items() if key in text), "The answer is 7.") for text in texts]
        return [[*self.tokenizer.encode(text), self.tokenizer.eos_id] for text in said]


writer = Writer(Rules(name="rules", tokenizer=FakeTokenizer(string.printable)))
seeds = [Root("1+2=", "3"), Root("5+6=", "11")]
alike = Screens(likeness=Vectors(WordEmbedder(["1 2", "5 6"])))
made = self_instruct(seeds, writer, alike, InstructSettings(rounds=1, asked=1))
print([(row["prompt"], row["answer"], row["agreement"]) for row in made.rows], dict(made.refused))
pairs, _ = constitution(seeds[:1], writer, ["Give the number only."])
print(pairs[0]["chosen"], "over", pairs[0]["rejected"], writer.costs)
