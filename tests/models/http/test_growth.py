"""Trees grown through a server: equal to those grown at home, through faults, kills and restarts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from treegym.envs.token_tree.grow.growing import GrowSettings, grow
from treegym.errors import BackendError
from treegym.models.local.fake import FakeLanguageModel
from treegym.models.remote import RemoteModel, RetryPolicy
from treegym.models.remote.dialect import DifferentModel
from treegym.models.serving.server import running_server
from treegym.tree.token_tree import Root

SETTINGS = GrowSettings(mode="mixed", right=4, wrong=3, max_children=6, max_tokens=8, max_nodes=60, shard=2)
PROMPTS = [Root(prompt=f"{a}+{a + 1}=", answer=str(2 * a + 1)) for a in range(5)]


@pytest.fixture(scope="module")
def teacher() -> FakeLanguageModel:
    return FakeLanguageModel(seed=11, name="teacher")


@pytest.fixture(scope="module")
def at_home(fake, teacher, tmp_path_factory) -> bytes:
    """The bytes of the tree grown without any server."""
    out = tmp_path_factory.mktemp("home") / "home.tree"
    grow(PROMPTS, primary=fake, teachers=[teacher], out=out, settings=SETTINGS)
    return out.read_bytes()


def test_a_tree_grown_through_a_server_is_the_same_file(server, fake, teacher, at_home, tmp_path):
    primary = RemoteModel(server, tokenizer=fake.tokenizer)
    with running_server(teacher) as other:
        taught = RemoteModel(other.url, tokenizer=teacher.tokenizer)
        grow(PROMPTS, primary=primary, teachers=[taught], out=tmp_path / "t.tree", settings=SETTINGS)
    assert (tmp_path / "t.tree").read_bytes() == at_home


def test_a_tree_grown_through_a_failing_server_is_the_same_file(proxy, fake, teacher, at_home, tmp_path):
    dice = random.Random(5)

    def nameless(answer):
        return {**answer, "choices": [{**choice, "logprobs": None} for choice in answer.get("choices", [])]}

    def no_number(answer):
        for choice in answer.get("choices", []):
            (choice.get("logprobs") or {})["token_logprobs"] = [float("nan")]
        return answer

    faults = ["close", "half", "shut", "drip", "503", "429", b"[]", b'{"choices": [{"text": 1}]}', nameless, no_number]
    done: list[object] = []

    def script(number, path):
        if dice.random() >= 0.3:
            return ""
        done.append(faults[len(done) % len(faults)])
        return done[-1] if "completions" in path or not callable(done[-1]) else "close"

    made = proxy(script)
    policy = RetryPolicy(attempts=15, first_wait_s=0.005, longest_wait_s=0.02)
    primary = RemoteModel(made.url, tokenizer=fake.tokenizer, retry=policy, prompts_per_request=8, timeout_s=0.5)
    grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", settings=SETTINGS)
    assert (tmp_path / "t.tree").read_bytes() == at_home
    assert primary.usage.failures > 0
    assert len(done) >= len(faults)  # every one of them came up


def test_a_server_that_dies_for_good_leaves_what_was_grown(proxy, fake, teacher, at_home, tmp_path):
    dead = threading.Event()
    finished = []

    def script(number, path):
        # After the first shard was written whole, nobody answers any more.
        if not dead.is_set() and any(Path(tmp_path).glob("t.tree.growing/*.tree")):
            finished.append(number)
            dead.set()
        return "close" if dead.is_set() else ""

    made = proxy(script)
    policy = RetryPolicy(attempts=3, first_wait_s=0.005, longest_wait_s=0.01)
    primary = RemoteModel(made.url, tokenizer=fake.tokenizer, retry=policy)
    with pytest.raises(BackendError, match="failed 3 times in a row"):
        grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", settings=SETTINGS)
    assert finished
    assert not (tmp_path / "t.tree").exists()
    kept = sorted(Path(tmp_path).glob("t.tree.growing/*.tree"))
    assert kept
    made.fault = lambda number, path: ""
    grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", settings=SETTINGS)
    assert (tmp_path / "t.tree").read_bytes() == at_home


def test_another_model_behind_the_url_stops_the_growth(proxy, fake, teacher, tmp_path):
    with running_server(FakeLanguageModel(seed=99)) as stranger:
        port = int(stranger.url.split(":")[2].split("/")[0])
        made = proxy(lambda number, path: "")

        def script(number, path):
            if any(Path(tmp_path).glob("t.tree.growing/*.tree")):
                made.upstream = ("127.0.0.1", port)
            return ""

        made.fault = script
        primary = RemoteModel(made.url, tokenizer=fake.tokenizer)
        with pytest.raises(DifferentModel, match="another model answers"):
            grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", settings=SETTINGS)
        assert not (tmp_path / "t.tree").exists()


def _start(port: int) -> subprocess.Popen[bytes]:
    """Starts `treegym serve fake` as a process of its own and waits until it answers."""
    command = [
        sys.executable,
        "-m",
        "treegym",
        "serve",
        "fake",
        "--seed",
        "3",
        "--port",
        str(port),
        "--max-wait-ms",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return process
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)


def test_a_server_killed_in_mid_batch_and_started_again_changes_nothing(fake, teacher, at_home, tmp_path, free_port):
    processes = [_start(free_port)]
    primary = RemoteModel(
        f"http://127.0.0.1:{free_port}/v1",
        tokenizer=fake.tokenizer,
        prompts_per_request=1,
        retry=RetryPolicy(attempts=60, first_wait_s=0.05, longest_wait_s=0.5),
    )
    failures: list[BaseException] = []

    def work():
        try:
            grow(PROMPTS, primary=primary, teachers=[teacher], out=tmp_path / "t.tree", settings=SETTINGS)
        except BaseException as error:  # noqa: BLE001 (asserted on in the test's own thread)
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while primary.usage.requests < 40:  # in the midst of it
            assert time.monotonic() < deadline
            time.sleep(0.002)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert thread.is_alive()
        processes.append(_start(free_port))
        thread.join(120)
        assert not thread.is_alive()
        assert not failures
        assert primary.usage.failures > 0
        assert (tmp_path / "t.tree").read_bytes() == at_home
    finally:
        for process in processes:
            process.kill()
            process.wait()
