"""Serve a bundled model over the OpenAI-compatible protocol, and use it from the other side of the wire.

Run it from anywhere: `python serve_and_query.py`. In practice the server is a process of its own
(`treegym serve tiny-primary`, vLLM, SGLang, llama.cpp) and only the second half is your program.
"""

from __future__ import annotations

import numpy as np

from treegym.models import load_model
from treegym.models.remote import ChatClient, RemoteModel
from treegym.models.serving.server import running_server


def main() -> None:
    model = load_model("tiny-primary", device="cpu")
    with running_server(model, max_batch_size=16, max_wait_ms=2.0) as served:
        print(f"serving {served.name} on {served.url}")

        remote = RemoteModel(served.url, tokenizer=model.tokenizer)
        print(f"it speaks: {remote.dialect}")
        prompts = ["12+30=", "7*8=", "98-41="]
        contexts = [model.tokenizer.encode(prompt) for prompt in prompts]
        for prompt, answer in zip(prompts, remote.generate(contexts, max_new_tokens=20), strict=True):
            print(f"  {prompt}{model.tokenizer.decode(answer)}")
        difference = np.abs(remote.next_logprobs(contexts) - model.next_logprobs(contexts)).max()
        print(f"log-probabilities over the wire differ by at most {difference:.1e}")

        chat = ChatClient(served.url)
        print("chat:", chat.complete([{"role": "user", "content": "3+4="}], max_tokens=16))
        print("accounting:", remote.usage.summary())


if __name__ == "__main__":
    main()
