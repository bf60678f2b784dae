"""A prompt with a picture: a model that sees describes it, and two towers say how well each text fits.

The command does the same for a file: treegym eval tiny-captioner --prompts questions.jsonl
"""

import json
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from treegym.envs.token_tree.prompts import load_prompts
from treegym.iterate.evaluate import answer_prompts
from treegym.models import load_model
from treegym.models.vision.towers import load_towers

folder = Path(tempfile.mkdtemp())
canvas = Image.new("RGB", (32, 32), "white")
drawing = ImageDraw.Draw(canvas)
drawing.ellipse((3, 10, 14, 21), fill=(220, 40, 40))
drawing.rectangle((18, 14, 29, 17), fill=(50, 80, 220))
canvas.save(folder / "shapes.png")
line = {"prompt": "<image> shows", "answer": "red circle left of blue bar", "image": "shapes.png"}
(folder / "questions.jsonl").write_text(json.dumps(line) + "\n")
prompts = load_prompts(str(folder / "questions.jsonl"))
[answered] = answer_prompts(load_model("tiny-captioner"), prompts, max_tokens=12)
texts = [answered.texts[0].strip(), prompts.roots[0].answer, "green ring above black circle"]
for text, cosine in zip(texts, load_towers("tiny-clip").cosines([prompts.roots[0].image] * 3, texts), strict=True):
    print(f"{cosine:.3f}  {text}")
