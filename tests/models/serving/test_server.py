"""The server over real sockets: the protocol, its refusals, the key, back-pressure, metrics, an orderly end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from treegym.errors import ConfigError
from treegym.models.serving.server import ServeSettings, _listen, running_server, serve


@pytest.fixture
def served(slow):
    with running_server(slow, max_batch_size=4, max_queue=8, max_wait_ms=0.0) as made:
        yield made
        slow.gate.set()


def post(served, path, body, **headers):
    return httpx.post(f"{served.url}/{path}", json=body, headers=headers, timeout=30)


def test_a_completion_has_the_protocols_form(served, slow):
    answer = post(served, "completions", {"prompt": "12+3=", "max_tokens": 6, "temperature": 0, "logprobs": 2}).json()
    [ids] = slow.generate([slow.tokenizer.encode("12+3=")], max_new_tokens=6)
    [choice] = answer["choices"]
    assert choice["text"] == slow.tokenizer.decode(ids)
    assert choice["finish_reason"] == ("stop" if ids[-1] == 1 else "length")
    assert len(choice["logprobs"]["tokens"]) == len(choice["logprobs"]["token_logprobs"]) == len(ids)
    assert all(len(row) == 2 for row in choice["logprobs"]["top_logprobs"])
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": len(ids), "total_tokens": 5 + len(ids)}
    assert answer["model"] == "fake"
    assert answer["object"] == "text_completion"


def test_text_offsets_point_at_the_tokens(served):
    body = {"prompt": "12+3=", "max_tokens": 0, "echo": True, "logprobs": 0}
    [choice] = post(served, "completions", body).json()["choices"]
    assert choice["text"] == "12+3="
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    assert choice["logprobs"]["tokens"] == list("12+3=")
    assert choice["logprobs"]["token_logprobs"][0] is None


def test_streamed_text_is_the_same_text(served):
    for path, body, read in (
        ("completions", {"prompt": "12+3="}, lambda choice: choice["text"]),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "12+3="}]},
            lambda choice: choice["delta"].get("content", ""),
        ),
    ):
        body |= {"max_tokens": 9, "temperature": 0}
        whole = post(served, path, body).json()["choices"][0]
        text, last = "", None
        with httpx.stream("POST", f"{served.url}/{path}", json={**body, "stream": True}, timeout=30) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        for line in lines[:-1]:
            [choice] = json.loads(line)["choices"]
            text += read(choice)
            last = choice["finish_reason"] or last
        assert text == (whole["text"] if "text" in whole else whole["message"]["content"])
        assert last == whole["finish_reason"]


def test_streaming_holds_back_what_may_become_a_stop_string(served):
    body = {"prompt": "12+3=", "max_tokens": 9, "temperature": 0}
    whole = post(served, "completions", body).json()["choices"][0]["text"]
    stop = whole[2:5]
    with httpx.stream("POST", f"{served.url}/completions", json={**body, "stop": stop, "stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]) == whole[: whole.find(stop)]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "a prompt must be text or a list of token ids"),
        ({"prompt": ""}, "not empty"),
        ({"prompt": []}, "not empty"),
        ({"prompt": [[]]}, "not empty"),
        ({"prompt": [99999]}, "whole numbers from 0 to 47"),
        ({"prompt": [-1]}, "whole numbers from 0 to 47"),
        ({"prompt": [1.5]}, "whole numbers"),
        ({"prompt": [True]}, "whole numbers"),
        ({"prompt": {"a": 1}}, "text or a list"),
        ({"prompt": "ÄÖ"}, "is not in the vocabulary"),
        ({"prompt": ["1"] * 600}, "600 prompts in one request"),
        ({"prompt": "1", "max_tokens": -1}, "max_tokens must be a whole number"),
        ({"prompt": "1", "max_tokens": "9"}, "max_tokens must be a whole number"),
        ({"prompt": "1", "max_tokens": 10**9}, "max_tokens must be"),
        ({"prompt": "1", "max_tokens": 9000}, "more than this model's 4096"),
        ({"prompt": "1", "max_tokens": 0}, "nothing to answer"),
        ({"prompt": "1", "temperature": -0.5}, "temperature must be a number"),
        ({"prompt": "1", "seed": 2**70}, "seed must be"),
        ({"prompt": "1", "logprobs": True}, "logprobs must be"),
        ({"prompt": "1", "n": 2}, "n is served only as 1"),
        ({"prompt": "1", "top_p": 0.5}, "top_p is served only as 1"),
        ({"prompt": "1", "logit_bias": {"1": 5}}, "logit_bias is not served"),
        ({"prompt": "1", "stop": [""]}, "stop must be text"),
        ({"prompt": "1", "stop_token_ids": "x"}, "stop_token_ids must be"),
        ({"prompt": "1", "echo": 1}, "echo must be true or false"),
        ({"prompt": "1", "model": "gpt"}, "serves 'fake', not 'gpt'"),
        ({"prompt": ["1", "2"], "stream": True}, "one prompt at a time"),
    ],
)
def test_requests_that_cannot_be_served_are_a_sentence(served, body, sentence):
    response = post(served, "completions", body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert sentence in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"prompt": ' + b"9" * 9000 + b"}"]
)
def test_bodies_that_are_no_requests(served, content):
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{served.url}/completions", content=content, headers=headers)
    assert response.status_code == 400


@pytest.mark.parametrize("messages", [None, [], [{}], [{"role": "user"}], [{"role": "system", "content": "x"}], "hi"])
def test_chats_that_cannot_be_served(served, messages):
    assert post(served, "chat/completions", {"messages": messages}).status_code == 400


def test_web_pages_cannot_send_requests(served):
    """Neither by a form's content type, nor under a name of their own that points to this machine."""
    body = json.dumps({"prompt": "1"}).encode()
    plain = httpx.post(f"{served.url}/completions", content=body, headers={"Content-Type": "text/plain"})
    assert plain.status_code == 400
    renamed = post(served, "completions", {"prompt": "1"}, Host="evil.example")
    assert renamed.status_code == 400
    options = httpx.options(f"{served.url}/completions", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in options.headers


def test_a_body_too_long_or_too_slow_is_refused(slow):
    from treegym.models.serving.app import build_app
    from treegym.models.serving.batcher import Batcher
    from treegym.models.serving.protocol import Speaker

    batcher = Batcher(slow, max_wait_ms=0.0)
    speaker = Speaker("fake", slow.tokenizer, slow.tokenizer.pieces(), "f", 64)
    app = build_app(batcher, speaker, max_body_bytes=1000, body_timeout_s=0.2)
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        long = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json={"prompt": "1" * 2000})
        assert "longer than 1000 bytes" in long.json()["error"]["message"]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            connection.settimeout(10)
            assert b"did not arrive within 0.2 s" in _all(connection)
    finally:
        server.should_exit = True
        thread.join(10)
        batcher.close()


def _all(connection):
    received = b""
    while b"}}" not in received and (chunk := connection.recv(65536)):
        received += chunk
    return received


def test_a_full_queue_answers_429_and_recovers(served, slow):
    slow.gate.clear()
    answers = []
    body = {"prompt": "1", "max_tokens": 1, "temperature": 0}

    def ask():
        answers.append(post(served, "completions", body))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(answers) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    # At most 4 run and 8 wait, so at least 8 of 20 are sent away at once, and told when to come back.
    assert {response.status_code for response in answers} == {429}
    assert all(response.headers["retry-after"] == "1" for response in answers)
    slow.gate.set()
    for thread in threads:
        thread.join(30)
    codes = [response.status_code for response in answers]
    assert codes.count(200) >= 8
    assert set(codes) == {200, 429}
    assert post(served, "completions", body).status_code == 200


def test_a_client_that_goes_away_frees_its_place(served, slow):
    slow.seconds = 0.005
    body = {"prompt": "1", "max_tokens": 4000, "temperature": 0, "stop_token_ids": []}
    client = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    client.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    deadline = time.monotonic() + 30
    while served.batcher.load[0] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client.close()
    while served.batcher.load != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert served.batcher.metrics.cancelled == 1


def test_a_failing_model_is_an_error_answer_not_the_end(served, slow):
    slow.poison = slow.tokenizer.encode("z")[0]
    response = post(served, "completions", {"prompt": "z", "max_tokens": 1})
    assert response.status_code == 500
    assert "the model failed on this request (ValueError)" in response.json()["error"]["message"]
    assert post(served, "completions", {"prompt": "1", "max_tokens": 1}).status_code == 200


def test_health_and_metrics(served):
    for _ in range(3):
        post(served, "completions", {"prompt": "12", "max_tokens": 2, "temperature": 0, "stop_token_ids": []})
    post(served, "completions", {"prompt": ""})
    root = served.url.removesuffix("/v1")
    assert httpx.get(f"{root}/health").json()["status"] == "ok"
    lines = dict(line.rsplit(" ", 1) for line in httpx.get(f"{root}/metrics").text.splitlines() if line[0] != "#")
    assert lines['treegym_requests_total{route="completions",status="200"}'] == "3"
    assert lines['treegym_requests_total{route="completions",status="400"}'] == "1"
    assert lines["treegym_prompt_tokens_total"] == "6"
    assert lines["treegym_generated_tokens_total"] == "6"
    assert lines["treegym_waiting"] == "0"
    assert lines['treegym_batch_size_bucket{le="+Inf"}'] == lines["treegym_batch_size_count"] == "6"


def test_the_key_is_required_where_set(slow, monkeypatch):
    monkeypatch.setenv("TREEGYM_TEST_KEY", "sk-open-sesame")
    with running_server(slow, key_env="TREEGYM_TEST_KEY") as locked:
        root = locked.url.removesuffix("/v1")
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "sk-open-sesame"}):
            refused = post(locked, "completions", {"prompt": "1"}, **headers)
            assert refused.status_code == 401
            assert "sesame" not in refused.text
            assert httpx.get(f"{locked.url}/models", headers=headers).status_code == 401
            assert httpx.get(f"{root}/metrics", headers=headers).status_code == 401
        assert httpx.get(f"{root}/health").status_code == 200
        right = {"Authorization": "Bearer sk-open-sesame"}
        assert post(locked, "completions", {"prompt": "1"}, **right).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.com"])
def test_other_machines_are_let_in_only_with_a_key(slow, host):
    with pytest.raises(ConfigError, match="a key is required"):
        serve(lambda: slow, ServeSettings(host=host, port=0), ready=lambda served: None, handle_signals=False)


def test_a_port_in_use_is_a_sentence_before_the_model_is_loaded():
    def load():
        raise AssertionError("the model was loaded")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServeSettings(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="cannot listen on 127"):
            serve(load, settings, ready=lambda served: None, handle_signals=False)


def test_sigterm_ends_the_server_after_its_requests(tmp_path):
    command = [sys.executable, "-m", "treegym", "serve", "fake", "--port", "0", "--json", "--max-length", "100000"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "takes 4096 tokens" in refused.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command[:-2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    body = {"prompt": "1", "max_tokens": 4000, "temperature": 0, "stop_token_ids": [], "stream": True}
    with httpx.stream("POST", f"{url}/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)  # the first token is here, so the request is under way
        process.send_signal(signal.SIGTERM)
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert process.wait(30) == 0
    assert response.status_code == 200
    assert rest[-1]["choices"][0]["finish_reason"] == "length"
    assert "stopped" in process.stderr.read()


def test_small_answers_are_sent_at_once():
    """A socket that is not named as TCP is left with Nagle's algorithm by asyncio, which costs 40 ms an answer."""
    with _listen(ServeSettings(port=0)) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize(("most", "asked", "status"), [(5, 5, 200), (5, 6, 400), (5, -1, 400), (0, 0, 400)])
def test_no_more_log_probabilities_are_told_than_allowed(slow, most, asked, status):
    with running_server(slow, max_logprobs=most, max_wait_ms=0.0) as made:
        body = {"prompt": "1+2=", "max_tokens": 1, "temperature": 0}
        answer = post(made, "completions", {**body, "logprobs": asked})
        assert answer.status_code == status
        assert post(made, "completions", body).status_code == 200
    with pytest.raises(ConfigError, match="max_logprobs is -1"):
        ServeSettings(max_logprobs=-1)
