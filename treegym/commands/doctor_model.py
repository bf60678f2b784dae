"""`treegym doctor MODEL`: what a model's own files say, and what follows for prompts, answers and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treegym.errors import require

__all__ = ["examine_model", "model_as_text"]

SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_length", "max_new_tokens")


def examine_model(name: str) -> dict[str, Any]:
    """Returns what the files of a model say of it; its weights are not loaded."""
    from treegym.models.loading import resolve, stored_weights
    from treegym.models.local.memory import available_memory
    from treegym.models.local.precision import WIDTH, choose_device, choose_dtype
    from treegym.models.tokens.chat import knows_system
    from treegym.models.tokens.ends import declared_ends
    from treegym.models.tokens.tokenizers import HuggingFaceTokenizer, load_tokenizer, prefix_ids

    where, local = resolve(name)
    transformers: Any = require("transformers", extra="models", purpose="examining a language model")
    config = transformers.AutoConfig.from_pretrained(where, local_files_only=local).get_text_config()
    tokenizer = load_tokenizer(where, local_files_only=local)
    generation = _generation(transformers, where, local)
    hf = tokenizer.hf if isinstance(tokenizer, HuggingFaceTokenizer) else None
    stored, size = stored_weights(Path(where)) if local else (str(getattr(config, "dtype", "float32")), 0)
    device = choose_device(None)
    dtype = choose_dtype("auto", device=device, stored=stored)
    ends = declared_ends(generation, tokenizer)
    sampling = {} if generation is None else generation.to_diff_dict()
    return {
        "model": name,
        "directory": where if local else None,
        "origin": _origin(Path(where)) if local else None,
        "architecture": (config.architectures or [config.model_type])[0],
        "weights_stored": stored,
        "weights_bytes": size or None,
        "device": device,
        "dtype": dtype,
        "memory_bytes": size * WIDTH[dtype] // WIDTH.get(stored, 4) or None,
        "memory_free_bytes": available_memory(),
        "context": getattr(config, "max_position_embeddings", None),
        "vocabulary": tokenizer.vocab_size,
        "logits_row_bytes": 4 * tokenizer.vocab_size,
        "begins_with": [_word(tokenizer, token) for token in prefix_ids(tokenizer)],
        "ends_with": [_word(tokenizer, token) for token in ends],
        "chat_template": bool(hf is not None and hf.chat_template),
        "system_role": bool(hf is not None and hf.chat_template and knows_system(hf)),
        "added_tokens": len(hf.added_tokens_decoder) if hf is not None else 0,
        "generation": {name: sampling[name] for name in SAMPLING if name in sampling},
    }


def _generation(transformers: Any, where: str, local: bool) -> Any:
    """Returns a model's generation settings, None where it comes without."""
    try:
        return transformers.GenerationConfig.from_pretrained(where, local_files_only=local)
    except OSError:  # no such file
        return None


def _origin(directory: Path) -> dict[str, Any] | None:
    """Returns where converted weights came from."""
    file = directory / "gguf.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def _word(tokenizer: Any, token: int) -> str:
    hf = getattr(tokenizer, "hf", None)
    return str(hf.convert_ids_to_tokens(token)) if hf is not None else f"<{token}>"


def model_as_text(found: dict[str, Any]) -> str:
    """Returns the examination for people, with what follows from it."""
    size, needs, free = (found[key] for key in ("weights_bytes", "memory_bytes", "memory_free_bytes"))
    origin = found["origin"] or {}
    lines = [
        f"{found['model']}: {found['architecture']}, vocabulary {found['vocabulary']:,}, context {found['context']}",
        f"  files        {found['directory'] or 'a name on the hub'}",
    ]
    if origin:
        lines.append(f"  converted    from {origin['file']} ({origin.get('name')}; license: {origin.get('license')})")
    if size:
        lines.append(f"  weights      {size / 1e6:.0f} MB in {found['weights_stored']}")
    memory = f", {needs / 1e6:.0f} MB for the weights" if needs else ""
    lines.append(f"  runs         on {found['device']} in {found['dtype']}{memory}")
    lines.append(f"  begins with  {' '.join(found['begins_with']) or 'nothing before the prompt'}")
    lines.append(f"  ends with    {', '.join(found['ends_with'])}")
    template = (
        "none" if not found["chat_template"] else "with a system role" if found["system_role"] else "no system role"
    )
    lines.append(f"  chat         {template}")
    lines.append(
        f"  generation   {json.dumps(found['generation']) if found['generation'] else 'no settings of its own'}"
    )
    return "\n".join([*lines, "", *_implications(found, needs, free)])


def _implications(found: dict[str, Any], needs: int | None, free: int | None) -> list[str]:
    """Returns what the figures mean for whoever uses the model."""
    said = []
    if found["chat_template"]:
        said.append("It is asked in chat form unless a command is told another --format.")
    elif found["added_tokens"]:
        said.append(
            "It is a base model: it goes on with text and may never write its end, so give examples "
            "(--format few-shot:FILE) and a stop (--stop '\\n')."
        )
    if found["begins_with"]:
        said.append(f"Every prompt begins with {found['begins_with'][0]}; without it the model's answers are poor.")
    if found["generation"]:
        said.append("Its sampling settings are shown, not used: TreeGym samples by its own arguments.")
    row = found["logits_row_bytes"]
    if row >= 2**19:
        said.append(f"One row of log-probabilities takes {row / 1e6:.1f} MB, so they are computed in blocks.")
    if needs and free is not None and needs > free:
        said.append(f"It does not fit: {needs / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free.")
    return said
