"""`serve --search`: the same protocol, answers chosen by a reward, with cost and score in the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("transformers")
from treegym.errors import ConfigError  # noqa: E402
from treegym.integrations.search_serving import METHODS, SearchingBatcher  # noqa: E402
from treegym.models.loading import load_model  # noqa: E402
from treegym.models.serving.server import running_server  # noqa: E402

PROMPTS = ["12+7-3=", "95-23+8=", "3+4*2="]


def many_fives(path: Any) -> float:
    """Rewards what no sensible answer has, so that the search's choice can be told from the model's."""
    return float(path.text.count("5"))


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("tiny-primary", device="cpu")


def _serving(model: Any, method: str, budget: int) -> Any:
    def around(batcher: Any, loaded: Any) -> Any:
        return SearchingBatcher(batcher, loaded.tokenizer.decode, method=method, reward=many_fives, budget=budget)

    return running_server(model, around=around)


def _ask(url: str, prompt: str, **more: Any) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": 24, "temperature": 1.0, "seed": 3, **more}
    answer = httpx.post(f"{url}/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def plain(model: Any) -> Iterator[str]:
    with running_server(model) as served:
        yield served.url


@pytest.mark.parametrize("method", METHODS)
def test_search_finds_what_pays_more_and_says_what_it_cost(model: Any, method: str, plain: str) -> None:
    usual = [_ask(plain, prompt)["choices"][0] for prompt in PROMPTS]
    assert all("search" not in choice for choice in usual)
    with _serving(model, method, 8) as served:
        found = [_ask(served.url, prompt)["choices"][0] for prompt in PROMPTS]
        again = _ask(served.url, PROMPTS[0])["choices"][0]
    for choice in found:
        told = choice["search"]
        assert told["method"] == method
        ended = choice["finish_reason"] == "stop"  # an answer that was cut is not judged
        assert told["score"] == (choice["text"].count("5") if ended else 0)
        assert told["tokens"] >= 1
        assert choice["finish_reason"] in ("stop", "length")
    assert again == found[0]  # the same seed, the same answer
    assert sum(c["text"].count("5") for c in found) >= sum(c["text"].count("5") for c in usual)


def test_a_stream_and_a_chat_are_served_too(model: Any) -> None:
    with _serving(model, "best_of_n", 16) as served:
        whole = _ask(served.url, PROMPTS[0])["choices"][0]["text"]
        body = {"prompt": PROMPTS[0], "max_tokens": 24, "temperature": 1.0, "seed": 3, "stream": True}
        with httpx.stream("POST", f"{served.url}/completions", json=body, timeout=60) as stream:
            events = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
        pieces = [json.loads(event) for event in events if event != "[DONE]"]
        assert "".join(piece["choices"][0].get("text", "") for piece in pieces if piece["choices"]) == whole
        told = [choice["search"] for piece in pieces for choice in piece["choices"] if "search" in choice]
        assert (told[0]["answers"], told[-1]["answers"]) == (8, 16)  # how far it is, and the winner
        assert told[-1]["score"] == whole.count("5")
        chat = {"messages": [{"role": "user", "content": PROMPTS[0]}], "max_tokens": 8, "seed": 1}
        answer = httpx.post(f"{served.url}/chat/completions", json=chat, timeout=60).json()
        assert answer["choices"][0]["search"]["answers"] == 16


def test_bad_settings_are_one_sentence(model: Any) -> None:
    with pytest.raises(ConfigError, match="--search"):
        SearchingBatcher(None, str, method="magic", reward=None, budget=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--budget"):
        SearchingBatcher(None, str, method="beam", reward=None, budget=0)  # type: ignore[arg-type]
