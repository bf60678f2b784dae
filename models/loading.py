"""Finding and loading a model: bundled and provided names, directories, GGUF files, names on a hub.

Weights are safetensors only; GGUF files are converted into them once (`treegym.models.local.gguf_conversion`).
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treegym.errors import DataError, require, suggest
from treegym.models.local.claims import check_claims
from treegym.models.local.gguf_conversion import converted
from treegym.models.local.memory import check_memory
from treegym.models.local.precision import WIDTH, choose_attention, choose_device, choose_dtype
from treegym.models.local.progress import no_progress_bar
from treegym.models.provided import PROVIDED, provided_file
from treegym.registry import is_hearsay
from treegym.untrusted import read_json

if TYPE_CHECKING:
    from treegym.models.base import TextTokenizer
    from treegym.models.local.transformers_model import TransformersModel

__all__ = [
    "DATA",
    "LOADING",
    "bundled_names",
    "choose_attention",
    "choose_device",
    "choose_dtype",
    "gguf_file",
    "load_model",
    "resolve",
    "stored_weights",
]

DATA = Path(__file__).resolve().parent / "data"
VISION = DATA.parent / "vision" / "data"  # models that see: by name only, they know nothing of the bundled prompts
LONGEST = 255  # bytes of a part of a path
LOADING = threading.RLock()  # transformers changes settings of the whole process while it loads a model
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def bundled_names() -> list[str]:
    """Returns the names of the models that ship with the package."""
    return sorted(path.parent.name for path in DATA.glob("*/config.json"))


def resolve(name: str) -> tuple[str, bool]:
    """Returns the directory or hub name of a model, and whether it is local; raises when it can be neither."""
    if any(len(os.fsencode(part)) > LONGEST for part in name.split("/")):
        raise DataError(f"{name}: no directory and no model has so long a name")
    for folder in (DATA, VISION):
        if (folder / name / "config.json").is_file() and "/" not in name and not name.startswith("."):
            return str(folder / name), True
    path = Path(name)
    file = gguf_file(name)
    if file is not None:
        return str(converted(file)), True
    if path.is_dir():
        _check_directory(path)
        return str(path), True
    if path.exists():
        raise DataError(
            f"{name}: a model is a GGUF file, or a directory with config.json and safetensors weights, but this is a "
            "file of another kind"
        )
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~"):
        raise DataError(
            f"{name}: there is no such model directory, nor a bundled model of that name."
            f"{suggest(name, [*bundled_names(), *PROVIDED])}"
        )
    return name, False


def gguf_file(name: str) -> Path | None:
    """Returns the GGUF file that a name leads to, None where it is a model of another form."""
    return provided_file(name) or _gguf_of(Path(name))


def _gguf_of(path: Path) -> Path | None:
    """Returns the GGUF file that a path names, itself or as the only model of a directory; None if it names none."""
    if path.is_file():
        return path if path.suffix.lower() == ".gguf" else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise DataError(f"{path}: holds {len(files)} GGUF files; name one of them, such as {files[0]}")
    return files[0] if files else None


def _check_directory(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise DataError(f"{path}: not a model directory: it has no config.json")
    _check_config(path / "config.json")
    if any(path.glob("*.safetensors")):
        return
    pickled = sorted(file.name for pattern in PICKLED for file in path.glob(pattern))
    if pickled:
        raise DataError(
            f"{path}: holds pickled weights only ({pickled[0]}), which can run code when loaded and are refused; "
            "save the model with save_pretrained(..., safe_serialization=True)"
        )
    raise DataError(f"{path}: holds no weights (*.safetensors)")


def _check_config(file: Path) -> None:
    try:
        config = read_json(file)
    except DataError as error:
        raise DataError(f"{str(error).replace(': not', ': damaged, it is not', 1)}; save the model anew") from error
    if not isinstance(config, dict):
        raise DataError(f"{file}: damaged, it holds no JSON object but a {type(config).__name__}; save the model anew")


def _cached(name: str) -> str:
    """Returns the directory of a hub's model that was downloaded before; the hub's own library may ask the network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        config = None
    if not isinstance(config, str):
        raise DataError(f"{name}: this model is not on this machine, and no network is asked for it; download it first")
    return str(Path(config).parent)


def _sees(directory: Path) -> bool:
    """Whether a model's directory holds one that sees; `transformers` then knows its class."""
    file = directory / "config.json"
    told = read_json(file) if file.is_file() else {}
    if not isinstance(told, dict) or told.get("model_type") != "treegym_captioner":
        return False
    importlib.import_module("treegym.models.vision.captioner")
    return True


def _seeing(name: str, tokenizer: TextTokenizer, *, parts: int) -> TextTokenizer:
    """Returns the tokenizer of a model that sees."""
    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer
    from treegym.models.vision.tokens import SeeingTokenizer

    if not isinstance(tokenizer, HuggingFaceTokenizer):
        raise DataError(f"{name}: a model that sees needs a Hugging Face tokenizer; save its own tokenizer there")
    return SeeingTokenizer(tokenizer.hf, parts=parts)


def _check_settings(transformers: Any, directory: Path, *, trust_remote_code: bool) -> None:
    """Raises where config.json is not the configuration of a model that `transformers` knows."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = transformers.AutoConfig.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=trust_remote_code
        )
        if not trust_remote_code:
            check_claims(transformers, config, directory)
    except (OSError, ValueError, LookupError, TypeError, ImportError, AttributeError, ArithmeticError, RuntimeError,
            StrictDataclassError) as error:  # fmt: skip
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{directory / 'config.json'}: the model cannot be loaded: {reason.split('. ')[0].removesuffix('.')}; "
            "put a config.json there that save_pretrained wrote"
        ) from error


def _damaged_weights(directory: Path) -> str:
    """Returns which weights of a directory cannot be opened, the directory itself if each can."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return str(file)
    return str(directory)


def _fit_vocabulary(name: str, model: Any, tokenizer: TextTokenizer) -> None:
    """Raises where tokens have no embedding; the contrary is common, as embeddings are padded to round sizes.

    Tokens that were added after the vocabulary for other uses (for pictures, in a model that sees none) are left out.
    """
    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer

    rows = int(model.get_input_embeddings().weight.shape[0])
    if isinstance(tokenizer, HuggingFaceTokenizer) and rows < tokenizer.vocab_size:
        added = tokenizer.hf.added_tokens_decoder
        if all(token in added for token in range(rows, tokenizer.vocab_size)):
            tokenizer.vocab_size = rows
    if tokenizer.vocab_size > rows:
        raise DataError(
            f"{name}: its tokenizer has {tokenizer.vocab_size} tokens but its embedding only {rows}, so they do not "
            "belong together; save the model's own tokenizer there, or enlarge it with resize_token_embeddings"
        )


def stored_weights(directory: Path) -> tuple[str, int]:
    """Returns the precision that a model directory names for its weights, and their size in bytes."""
    config = read_json(directory / "config.json")
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    told = [config.get("dtype"), config.get("torch_dtype"), text.get("dtype"), text.get("torch_dtype")]
    size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    return next((name for name in told if isinstance(name, str)), "float32"), size


def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str = "auto",
    attention: str = "auto",
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    batch_tokens: int | None = None,
    compile_model: bool = False,
) -> TransformersModel:
    """Loads a causal language model and its tokenizer.

    Args:
        name: a bundled or provided model's name, a model directory, a GGUF file, or a name on the Hugging Face hub
            ("owner/model").
        device: "cpu", "cuda", "cuda:1"; default CUDA when there is one.
        dtype: "float32", "bfloat16", "float16"; "auto" is bfloat16 on CUDA and, for weights stored
            in it, on a processor that multiplies it in hardware; else float32.
        attention: "sdpa", "eager", "flash_attention_2"; "auto" as `choose_attention` says.
        local_files_only: never ask the network; names on the hub must be in the local cache.
        trust_remote_code: run Python code that comes with the model; never without your asking for it.
        batch_tokens: most tokens of one forward pass; default by the hidden size.
        compile_model: run the layers through ``torch.compile``.
    """
    where, local = resolve(str(name))
    local_files_only = local_files_only or is_hearsay(name)
    transformers = require("transformers", extra="models", purpose="loading a language model")
    from safetensors import SafetensorError

    from treegym.models.local.transformers_model import TransformersModel
    from treegym.models.tokens.tokenizers import load_tokenizer

    chosen_device = choose_device(device)
    stored, size = stored_weights(Path(where)) if local else ("float32", 0)
    chosen_dtype = choose_dtype(dtype, device=chosen_device, stored=stored)
    if chosen_device == "cpu":
        check_memory(size * WIDTH[chosen_dtype] // WIDTH.get(stored, 4), doing=f"loading {name}")
    chosen_attention = choose_attention(attention, device=chosen_device, dtype=chosen_dtype)
    offline = local or local_files_only
    source = where if local or not local_files_only else _cached(where)
    sees = _sees(Path(source))
    if local:
        _check_settings(transformers, Path(where), trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(source, local_files_only=offline, trust_remote_code=trust_remote_code)
    try:
        with LOADING, no_progress_bar(when=not sys.stderr.isatty()):
            model: Any
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                output_loading_info=True,
                dtype=chosen_dtype,
                attn_implementation=chosen_attention,
                local_files_only=offline,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are told below
            )
    except SafetensorError as error:
        file = _damaged_weights(Path(where)) if local else name
        raise DataError(f"{file}: damaged weights: {error}; save or download the model anew") from error
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{name}: the model cannot be loaded: {reason}") from error
    if wrong := sorted(report["mismatched_keys"]):
        key, stored, expected = wrong[0]
        raise DataError(
            f"{name}: its weights have {key} of shape {tuple(stored)}, but by config.json it is {tuple(expected)} "
            f"(of {len(wrong)} that differ); put the config.json there with which the weights were saved"
        )
    if missing := sorted(report["missing_keys"]):
        raise DataError(
            f"{name}: its weights lack {missing[0]} (of {len(missing)} missing), which would be random: this is not a "
            "causal language model with a generation head, or the download is not whole"
        )
    _fit_vocabulary(name, model, tokenizer)
    _check_numbers(name, model)
    if sees:
        tokenizer = _seeing(name, tokenizer, parts=model.config.parts)
    found = TransformersModel(
        model.to(chosen_device),
        tokenizer,
        name=_called(name, where) if local else where,
        batch_tokens=batch_tokens,
        compile_model=compile_model,
    )
    if not compile_model and not math.isfinite(found.next_logprobs([[tokenizer.eos_id]]).max()):
        raise DataError(f"{name}: damaged weights: what it says are not numbers; save or download the model anew")
    return found


def _check_numbers(name: str, model: Any) -> None:
    """Raises DataError for weights that are NaN or infinite: everything said with them would be, too."""
    import torch

    for key, tensor in model.named_parameters():
        if tensor.numel() and tensor.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            low, high = torch.aminmax(tensor.detach())
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise DataError(
                    f"{name}: damaged weights: {key} holds NaN or infinity; save or download the model anew"
                )


def _called(name: str, where: str) -> str:
    """Returns what reports call a local model: a provided name, the GGUF file's, or the directory's."""
    if name in PROVIDED:
        return name
    file = _gguf_of(Path(name))
    return file.stem if file is not None else Path(where).name
