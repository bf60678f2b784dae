"""`treegym doctor`: what is installed, which extras are missing, threads, GPU; a model's own files; completion."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from typing import Any, NamedTuple

from treegym.display import say
from treegym.errors import require

__all__ = ["EXTRAS", "configure", "examine", "run"]

SHELLS = ("bash", "zsh", "tcsh")
OK, FAILED = 0, 1


class Extra(NamedTuple):
    packages: tuple[str, ...]
    gives: str


EXTRAS: dict[str, Extra] = {
    "agents": Extra(("torch", "stable-baselines3", "tqdm", "rich"), "PPO, DAPO, VAPO, AlphaZero and their relatives"),
    "models": Extra(
        ("torch", "transformers", "tokenizers"), "language models on this machine, growing trees, training them"
    ),
    "gguf": Extra(("gguf",), "GGUF files as models"),
    "llama": Extra(("xllamacpp",), "llama.cpp in this process"),
    "embeddings": Extra(("sentence-transformers",), "sentence embeddings for similarity"),
    "http": Extra(
        ("httpx", "starlette", "uvicorn"), "models and judges behind OpenAI-compatible servers, and serving one"
    ),
    "selection": Extra(("torch", "pymoo"), "choosing optimisations for your own torch module"),
    "torchao": Extra(("torchao",), "quantised candidates in candidate selection"),
    "onnx": Extra(("onnx", "onnxscript", "onnxruntime"), "modules run by ONNX Runtime, as candidates and exports"),
    "openvino": Extra(("onnx", "onnxscript", "openvino"), "modules run by OpenVINO, as candidates and exports"),
    "lora": Extra(("peft",), "training language models through adapters"),
    "8bit": Extra(("bitsandbytes",), "training language models with an optimizer's moments in 8 bits"),
    "accelerate": Extra(("accelerate",), "training language models in several processes, with copies or shards"),
    "litellm": Extra(("litellm", "boto3"), "hosted models through LiteLLM, Bedrock among them"),
    "prompts": Extra(("reasoning-gym", "datasets"), "prompt sets beyond the bundled tasks"),
    "images": Extra(("pillow",), "pictures in prompts"),
    "render": Extra(("pillow", "pygame"), "episodes as images and in a window"),
    "tensorboard": Extra(("tensorboard",), "TensorBoard logs"),
    "bench": Extra(("openskill", "shtab"), "skill ratings in benchmarks, shell completion"),
    "retrieval": Extra(("faiss-cpu",), "passages for teachers, beyond a million"),
    "rouge": Extra(("rouge-score",), "likeness of prompts by ROUGE-L"),
    "parquet": Extra(("pyarrow",), "benchmark episodes as one Parquet file"),
    "hub": Extra(("huggingface_hub",), "sharing trees, agents and runs: `treegym push` and `treegym pull`"),
    "minari": Extra(("minari",), "walks as offline datasets"),
    "optuna": Extra(("optuna",), "search for settings, with a space published per agent"),
    "tune": Extra(("ray", "optuna"), "`treegym tune`: search for an agent's settings"),
    "ray": Extra(("ray",), "bench, grow and others on the nodes of a Ray cluster"),
    "remote": Extra(("fsspec", "s3fs"), "trees at s3:// and other URLs"),
    "league": Extra(("openskill",), "`treegym league`: a population that learns from its failures"),
    "trackio": Extra(("trackio",), "`--track trackio`"),
    "wandb": Extra(("wandb",), "`--track wandb`"),
    "mlflow": Extra(("mlflow-skinny",), "`--track mlflow`"),
    "trl": Extra(("trl", "datasets"), "prompts, rewards and rollouts for TRL's trainers"),
    "torchrl": Extra(("torchrl",), "environments and agents of TorchRL"),
    "verifiers": Extra(("verifiers",), "prompts and rewards as tasksets of verifiers"),
    "openenv": Extra(("openenv", "uvicorn"), "environments behind the protocol of OpenEnv"),
    "vllm": Extra(("vllm",), "fast growing of trees with vLLM"),
    "flash": Extra(("flash-attn",), "flash attention for language models on a GPU"),
    "docs": Extra(("mkdocs", "mkdocstrings"), "building the documentation"),
}
CORE = ("gymnasium", "numpy", "numba", "safetensors")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym doctor`."""
    parser.add_argument("model", nargs="?", help="a model to examine instead: a name, a directory, a GGUF file")
    parser.add_argument("--completion", choices=SHELLS, help="print a completion script for a shell instead")


def run(args: argparse.Namespace) -> int:
    """Prints the examination; exit code 1 when something TreeGym cannot do without is missing or broken."""
    if args.completion:
        shtab: Any = require("shtab", extra="bench", purpose="shell completion")
        from treegym.__main__ import build_parser

        say(shtab.complete(build_parser("*"), shell=args.completion))
        return OK
    if args.model is not None:
        from treegym.commands.doctor_model import examine_model, model_as_text

        about = examine_model(args.model)
        say(json.dumps(about) if args.json else model_as_text(about))
        return OK
    found = examine()
    say(json.dumps(found) if args.json else as_text(found))
    return OK if found["healthy"] else FAILED


def examine() -> dict[str, Any]:
    """Returns what is installed, what is missing, and what the machine has."""
    core = {name: _version(name) for name in CORE}
    extras = {
        name: {
            "gives": extra.gives,
            "installed": {package: version for package in extra.packages if (version := _version(package))},
            "missing": [package for package in extra.packages if _version(package) is None],
            "install": f'pip install "treegym[{name}]"',
        }
        for name, extra in EXTRAS.items()
    }
    world, problem = _bundled_world()
    return {
        "treegym": _version("treegym"),
        "python": sys.version.split()[0],
        "core": core,
        "extras": extras,
        "threads": _threads(),
        "gpu": _gpu(),
        "bundled_tree": world,
        "problem": problem,
        "healthy": all(core.values()) and problem is None,
    }


def as_text(found: dict[str, Any]) -> str:
    """Returns the examination for people."""
    lines = [f"treegym {found['treegym'] or '(not installed, run from its folder)'} on Python {found['python']}", ""]
    lines += [
        f"  {'ok' if version else 'MISSING':<8}{name:<14}{version or ''}" for name, version in found["core"].items()
    ]
    lines += ["", "Extras"]
    for name, extra in found["extras"].items():
        state = "ok" if not extra["missing"] else "missing"
        lines.append(f"  {state:<8}{name:<14}{extra['gives']}")
        if extra["missing"]:
            lines.append(f"          lacks {', '.join(extra['missing'])}: {extra['install']}")
    threads = found["threads"]
    asked = ", ".join(f"{name}={value}" for name, value in threads["variables"].items()) or "none set"
    lines += ["", f"Threads: {threads['cores']} cores usable; {asked}", f"GPU: {found['gpu']}"]
    world = found["bundled_tree"]
    lines.append(f"Bundled tree: {world}" if world else "Bundled tree: not usable")
    if found["problem"]:
        lines += ["", f"Problem: {found['problem']}"]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _threads() -> dict[str, Any]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "variables": {name: os.environ[name] for name in names if name in os.environ}}


def _gpu() -> str:
    if _version("torch") is None:
        return "unknown (torch is not installed)"
    import torch

    if not torch.cuda.is_available():
        return f"none (torch {torch.__version__} sees no CUDA device); everything runs on the CPU"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _bundled_world() -> tuple[str | None, str | None]:
    """Returns a description of the bundled tree, and what is wrong with it if it cannot be used."""
    from treegym.errors import DataError
    from treegym.tree.opening import load_tree
    from treegym.tree.token_tree import BUNDLED

    try:
        tree = load_tree(None)
    except DataError as error:
        return None, str(error)
    return f"{tree.num_roots:,} prompts, {tree.size:,} nodes ({BUNDLED.stat().st_size / 1e6:.1f} MB)", None
