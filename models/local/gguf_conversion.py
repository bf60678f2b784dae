"""GGUF files as models: converted once into safetensors of half precision, which are then mapped into memory.

`transformers` reads a GGUF file by dequantising every tensor, and its tokenizer by rebuilding it from the metadata:
that takes from ten seconds to a minute and several times the model's memory. So it is done once per file, in a process
of its own, and the result is kept in a cache as an ordinary model directory that loads in a fraction of a second and
whose pages are shared by all processes that use it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from treegym.errors import BackendError, DataError, require
from treegym.files import cache_folder
from treegym.models.local.gguf_header import GgufHeader, read_gguf_header
from treegym.models.local.memory import check_memory

__all__ = ["converted"]

FORM = 3  # of the converted directory; raised when conversions have to be made anew
BYTES_PER_WEIGHT = 11  # at the peak of a conversion, measured: 3.3 GB for 268 million weights with their tokenizer
ENDS = ("eot", "eom")  # further tokens that end a turn; transformers' reader knows only EOS


def converted(file: str | Path) -> Path:
    """Returns the model directory of a GGUF file, converting it where no earlier run has."""
    source = Path(file).resolve()
    try:
        stat = source.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    key = hashlib.sha256(f"{source} {stat.st_size} {stat.st_mtime_ns} {FORM}".encode()).hexdigest()[:16]
    target = cache_folder() / "gguf" / f"{source.stem}-{key}"
    if (target / "config.json").is_file():
        return target
    header = read_gguf_header(source)
    require("transformers", extra="models", purpose="loading a language model")
    require("gguf", extra="gguf", purpose="reading a GGUF file")
    check_memory(BYTES_PER_WEIGHT * header.parameters, doing=f"converting {source.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _convert_elsewhere(source, staging)
        (staging / "gguf.json").write_text(json.dumps(_provenance(source, header), indent=1))
        try:
            os.replace(staging, target)
        except OSError:
            if not (target / "config.json").is_file():  # else another process was quicker, with the same result
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _provenance(source: Path, header: GgufHeader) -> dict[str, Any]:
    """Returns what is worth knowing of where the weights came from."""
    about = {key: header.metadata.get(f"general.{key}") for key in ("name", "license", "file_type", "architecture")}
    return {"file": str(source), **about}


def _convert_elsewhere(source: Path, target: Path) -> None:
    """Converts in another process, so that its peak of memory is not this one's."""
    command = [sys.executable, "-m", "treegym.models.local.gguf_conversion", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    words = done.stderr.strip().splitlines() or [f"the conversion ended with exit code {done.returncode}"]
    if done.returncode < 0:
        raise BackendError(f"{source}: converting it was killed (signal {-done.returncode}), most likely for memory")
    raise DataError(f"{source}: {words[-1]}")


def convert(source: Path, target: Path) -> None:
    """Writes a GGUF file's model into a directory: bfloat16 safetensors, tokenizer, chat template, generation."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    model.hf_quantizer = None  # its tensors are plain by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    header = read_gguf_header(source)
    ends = [end for role in ("eos", *ENDS) if (end := header.token(role)) is not None]
    if len(set(ends)) > 1:
        model.generation_config.eos_token_id = list(dict.fromkeys(ends))
    model.save_pretrained(target, safe_serialization=True)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**where)
    tokenizer.save_pretrained(target)
    settings = json.loads((target / "tokenizer_config.json").read_text("utf-8"))
    settings["tokenizer_class"] = "TokenizersBackend"  # takes tokenizer.json as it is, in half the time
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False), "utf-8")


def _main(source: str, target: str) -> int:
    """Converts for `_convert_elsewhere`; the last line of standard error is the reason where it fails."""
    try:
        convert(Path(source), Path(target))
    except (ValueError, KeyError, OSError, NotImplementedError, RuntimeError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        kind = read_gguf_header(source).architecture
        print(f"a GGUF model of architecture {kind!r} that transformers cannot read: {said[:300]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
