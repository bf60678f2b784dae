"""LiteLLM between the client and a real server: answers, accounting, faults, and keys that stay where they are."""

from __future__ import annotations

import importlib.util

import pytest

from treegym.errors import BackendError, ConfigError, MissingDependency
from treegym.models.connect import connect, is_address
from treegym.models.remote import ChatClient
from treegym.models.remote.chat import ChatTeacher
from treegym.models.remote.endpoint import Refused

HERE = importlib.util.find_spec("litellm") is not None
needs_litellm = pytest.mark.skipif(not HERE, reason='LiteLLM is not installed: pip install "treegym[litellm]"')
SECRET = "sk-this-is-a-secret"


@pytest.fixture
def hosted(monkeypatch):
    """Makes teachers whose model LiteLLM reaches at an address, by a key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def make(url, fake, name="fake", **settings):
        more = "".join(f"&{key}={value}" for key, value in settings.items())
        return connect(f"litellm:openai/{name}#api_base={url}{more}", tokenizer=fake.tokenizer)

    return make


@pytest.mark.skipif(HERE, reason="LiteLLM is installed here")
def test_without_litellm_there_is_an_install_command(fake):
    with pytest.raises(MissingDependency, match=r'pip install "treegym\[litellm\]"'):
        connect("litellm:bedrock/some-model", tokenizer=fake.tokenizer)


@needs_litellm
def test_answers_come_through_and_are_counted(server, fake, hosted):
    assert is_address("litellm:bedrock/some-model")
    teacher = hosted(server, fake, concurrency=2)
    assert isinstance(teacher, ChatTeacher)
    assert teacher.name == "openai/fake"
    contexts = [fake.tokenizer.encode(text) for text in ("12+3=", "7*8=")]
    assert teacher.generate(contexts, max_new_tokens=12) == ChatTeacher(server, tokenizer=fake.tokenizer).generate(
        contexts, max_new_tokens=12
    )
    assert (teacher.usage.requests, teacher.usage.failures, teacher.usage.estimated) == (2, 0, False)
    assert teacher.usage.prompt_tokens == sum(len(context) for context in contexts)


@needs_litellm
@pytest.mark.parametrize("fault", ["503", "429", "close"])
def test_failures_are_repeated_and_counted(proxy, fake, quick, monkeypatch, fault):
    from treegym.models.remote.litellm_endpoint import LiteLLMEndpoint

    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    made = proxy(lambda number, path: fault if number == 1 else "")
    endpoint = LiteLLMEndpoint(retry=quick)
    client = ChatClient(endpoint, model="openai/fake", extra={"api_base": made.url})
    assert isinstance(client.complete([{"role": "user", "content": "12+3="}], max_tokens=4), str)
    assert endpoint.usage.failures == 1
    made.fault = lambda number, path: fault
    with pytest.raises(BackendError, match="failed 6 times in a row") as caught:
        client.complete([{"role": "user", "content": "12+3="}], max_tokens=4)
    assert SECRET not in str(caught.value)


@needs_litellm
def test_a_refusal_is_a_sentence_without_the_key(server, fake, hosted):
    teacher = hosted(server, fake, name="nobody")
    with pytest.raises(Refused, match="LiteLLM refused with status 400") as caught:
        teacher.generate([[5]], max_new_tokens=3)
    assert teacher.usage.failures == 0
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_litellm
def test_it_chats_only_and_finds_its_keys_itself(fake):
    from treegym.models.remote.litellm_endpoint import LiteLLMEndpoint

    with pytest.raises(BackendError, match="serves chats here"):
        LiteLLMEndpoint().get("models")
    with pytest.raises(ConfigError, match="finds servers and keys by itself"):
        connect("litellm:bedrock/some-model#key_env=MY_KEY", tokenizer=fake.tokenizer)
    with pytest.raises(ConfigError, match="unknown setting"):
        connect("http://127.0.0.1:1/v1#api_base=x", tokenizer=fake.tokenizer)
