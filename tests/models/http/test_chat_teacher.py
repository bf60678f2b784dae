"""A teacher that can only be talked to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.errors import BackendError, ConfigError
from treegym.models.base import Embeds, Generates, Scores, needed
from treegym.models.connect import connect
from treegym.models.local.fake import FakeTokenizer
from treegym.models.remote.chat import FEWEST_STEPS, ChatTeacher
from treegym.models.tokens.retokenize import Retokenized
from treegym.tree.token_tree import Root


def talker(proxy, text, finish="stop", seen=None):
    """A server that answers every chat with `text`."""

    def change(answer):
        if "choices" in answer:
            answer["choices"] = [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]
        return answer

    return proxy(lambda number, path: change if "chat" in path else "")


def test_answers_are_written_in_the_primarys_tokens(proxy, fake):
    teacher = ChatTeacher(talker(proxy, " 12+3=15. ").url, tokenizer=fake.tokenizer)
    assert isinstance(teacher, Generates)
    assert not isinstance(teacher, Scores)
    encode, eos = fake.tokenizer.encode, fake.tokenizer.eos_id
    asked = [encode("12+3="), encode("4")]
    assert teacher.generate(asked, max_new_tokens=20) == [[*encode("12+3=15."), eos]] * 2
    assert teacher.generate(asked, max_new_tokens=4) == [encode("12+3")] * 2
    assert teacher.name == "fake"


def test_an_answer_cut_short_has_no_end(proxy, fake):
    teacher = ChatTeacher(talker(proxy, "15", finish="length").url, tokenizer=fake.tokenizer)
    assert teacher.generate([[5]], max_new_tokens=20) == [fake.tokenizer.encode("15")]


def test_what_the_primary_cannot_say_is_cut_there_with_a_notice(proxy, fake):
    teacher = ChatTeacher(talker(proxy, "15 → FÜNFZEHN").url, tokenizer=fake.tokenizer)
    with pytest.warns(UserWarning, match="cannot say and is cut there"):
        assert teacher.generate([[5]], max_new_tokens=20) == [fake.tokenizer.encode("15 ")]


def test_the_system_prompt_asks_for_the_fewest_steps(fake, quick):
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))
    bodies = []

    def answer():
        connection, _ = listener.accept()
        with connection:
            head, _, rest = connection.recv(65536).partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(rest) < length:
                rest += connection.recv(65536)
            bodies.append(json.loads(rest))
            content = json.dumps({"choices": [{"message": {"content": "3"}, "finish_reason": "stop"}]}).encode()
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    teacher = ChatTeacher(url, tokenizer=fake.tokenizer, model="big", retry=quick)
    teacher.generate([fake.tokenizer.encode("1+2=")], max_new_tokens=5)
    thread.join(10)
    listener.close()
    assert bodies[0]["messages"] == [
        {"role": "system", "content": FEWEST_STEPS},
        {"role": "user", "content": "1+2="},
    ]
    assert bodies[0]["model"] == "big"


@pytest.mark.parametrize("mode", ["answers", "mixed"])
def test_trees_grow_with_its_answers_and_without_its_opinions(proxy, fake, tmp_path, mode):
    made = talker(proxy, "7.")
    teacher = connect(f"{made.url}#chat=yes&name=talker", tokenizer=fake.tokenizer)
    settings = GrowSettings(mode=mode, right=3, wrong=2, max_children=5, max_tokens=6, max_nodes=40)
    prompts = [Root(prompt=f"{a}+1=", answer=str(a + 1)) for a in range(3)]
    tree = grow(prompts, primary=fake, teachers=[teacher], out=tmp_path / "t.tree", settings=settings)
    for root in range(3):
        texts = {tree.text(int(node)) for node in np.flatnonzero(tree.root_of(np.arange(tree.size)) == root)}
        assert "7." in texts
    below = tree.parent >= 0
    assert np.isnan(tree.teacher_logp[below].astype(np.float32)).all()
    assert (tree.proposers[below] & 2).any()


def test_opinions_are_refused_in_a_sentence(server, fake):
    teacher = ChatTeacher(server, tokenizer=fake.tokenizer)
    for ability, what in ((Scores, "log-probabilities"), (Embeds, "hidden states")):
        with pytest.raises(BackendError, match=f"fake gives no {what}; use it as a teacher, which needs words only"):
            needed(teacher, ability)
    foreign = Retokenized(teacher, FakeTokenizer("0123456789+=;"))
    with pytest.raises(BackendError, match="fake gives no log-probabilities"):
        foreign.next_logprobs([[5]])
    assert teacher.fingerprint() == ChatTeacher(server, tokenizer=fake.tokenizer).fingerprint()
    assert teacher.fingerprint() != ChatTeacher(server, tokenizer=fake.tokenizer, system="be long").fingerprint()


def test_a_wrong_address(fake):
    with pytest.raises(ConfigError, match="yes or no"):
        connect("http://h/v1#chat=1", tokenizer=fake.tokenizer)
