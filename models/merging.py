r"""Several models made one: their weights merged tensor by tensor, out of files that are not to be trusted.

Of each expert only its task vector counts, what training added to the base: :math:`\tau_i = \theta_i - \theta_0`. A
folder of adapters is one, too, :math:`\tau = \frac{\alpha}{r} B A` for every matrix it adapts. The methods differ in
how task vectors become one. Only one tensor of each model is in memory at a time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from treegym.checks import number, one_of, whole
from treegym.errors import ConfigError, DataError, require
from treegym.models.loading import resolve
from treegym.models.local.saving import whole_directory
from treegym.models.merging_files import Tensors, adapters_in, write_tensors
from treegym.models.tokens.tokenizers import load_tokenizer

__all__ = ["METHODS", "MergeSettings", "merge", "place_of", "slerp"]

METHODS = ("task_arithmetic", "ties", "dare", "slerp")
STRAIGHT = 1e-3  # sines of angles below which an arc is a line, to float32
KEPT = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip


@dataclass(frozen=True)
class MergeSettings:
    """How models are merged."""

    method: str = "ties"
    scale: float = 0.5  # what task vectors are multiplied by, before they are added to the base
    density: float = 0.8  # share of a task vector's numbers that ties and dare keep
    at: float = 0.5  # slerp: where between the first model (0) and the second (1)
    seed: int = 0  # of what dare drops

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        number("scale", self.scale)
        if not 0.0 < number("density", self.density, high=1) <= 1.0:
            raise ConfigError(f"density is {self.density}; it must be above 0")
        number("at", self.at, low=0, high=1)
        whole("seed", self.seed, low=0)


def merge(
    experts: Sequence[str], out: str | Path, *, base: str | None = None, settings: MergeSettings | None = None
) -> Path:
    """Writes the merged model to a directory, whole or not at all; returns it.

    Args:
        experts: model directories, rounds of `treegym iterate`, bundled names, or folders of adapters of the base.
        out: a directory; a model that is there already is replaced.
        base: what the experts were trained from; slerp of two models needs none.
        settings: the method and its switches.
    """
    how = settings or MergeSettings()
    if how.method == "slerp" and len(experts) != 2:
        raise ConfigError(f"slerp goes from one model to another, and {len(experts)} came; name two, or use ties")
    if len(experts) < 2:
        raise ConfigError(f"{len(experts)} model came; at least two are needed to merge")
    sources = [_Source.of(name) for name in experts]
    if base is None and (how.method != "slerp" or any(source.adapters for source in sources)):
        raise ConfigError(f"{how.method} adds what the experts learned to what they learned from: name it (base)")
    ground = None if base is None else _Source.of(base)
    if ground is not None and ground.adapters:
        raise ConfigError(f"{base} is a folder of adapters; the base is the model that they adapt")
    first = ground or sources[0]
    for source in sources:
        _check_alike(first, source)
    combine = _method(how)

    def merged(name: str) -> torch.Tensor:
        own = first.tensors.read(name)
        if not own.is_floating_point():
            return _the_same(name, own, sources)
        there = [source.read(name, own) for source in sources]
        start = own.float() if ground is not None else None
        return combine(name, start, there).to(own.dtype)

    with whole_directory(Path(out)) as staging:
        write_tensors(staging / "model.safetensors", first.tensors, merged)
        for name in KEPT:
            if (first.path / name).is_file():
                shutil.copyfile(first.path / name, staging / name)
    return Path(out)


def place_of(name: str) -> str:
    """Returns the model that a name leads to: that of a round of `treegym iterate`, where it is one."""
    inside = Path(name) / "model"
    return str(inside) if (inside / "config.json").is_file() else name


@dataclass(frozen=True)
class _Source:
    """A model on disk, or adapters of the base."""

    name: str
    path: Path
    tensors: Tensors
    adapters: Mapping[str, tuple[str, str, float]] = field(default_factory=dict)  # weight -> its A, its B, their scale

    @classmethod
    def of(cls, name: str) -> _Source:
        if (Path(name) / "adapter_config.json").is_file():
            tensors, adapters = adapters_in(Path(name))
            return cls(name, Path(name), tensors, adapters)
        where, local = resolve(place_of(name))
        if not local:
            raise DataError(f"{name}: only models on this machine are merged; download it, and name its directory")
        return cls(name, Path(where), Tensors(Path(where)))

    def read(self, name: str, own: torch.Tensor) -> torch.Tensor:
        """Returns a tensor of an expert in float32; of adapters, the base's `own` with what they add."""
        if not self.adapters:
            return self.tensors.read(name).float()
        if name not in self.adapters:
            return own.float()
        low, high, scale = self.adapters[name]
        return own.float() + scale * self.tensors.read(high).float() @ self.tensors.read(low).float()


def _check_alike(first: _Source, other: _Source) -> None:
    """Raises DataError, by name, where two models are no two trainings of one."""
    if other.adapters:
        for name, (low, high, _) in other.adapters.items():
            added = (other.tensors.shapes[high][0], other.tensors.shapes[low][-1])
            if first.tensors.shapes.get(name) != added:
                raise DataError(
                    f"{other.name}: its adapters are for {name} of shape {added}, and in {first.name} that is "
                    f"{first.tensors.shapes.get(name, 'missing')}; name the model that they were trained on as the base"
                )
        return
    ours, theirs = first.tensors.shapes, other.tensors.shapes
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise DataError(
                f"{other.name} cannot be merged with {first.name}: {name} is {theirs.get(name, 'missing')} in it and "
                f"{ours.get(name, 'missing')} there; only trainings of one model can be merged"
            )
    words = [load_tokenizer(str(source.path), local_files_only=True) for source in (first, other)]
    if words[0].pieces() != words[1].pieces() or words[0].eos_id != words[1].eos_id:
        raise DataError(
            f"{other.name} cannot be merged with {first.name}: their vocabularies differ ({words[1].vocab_size} and "
            f"{words[0].vocab_size} tokens), so equal rows stand for different tokens"
        )


def _the_same(name: str, own: torch.Tensor, sources: Sequence[_Source]) -> torch.Tensor:
    for source in sources:
        if not source.adapters and not torch.equal(source.tensors.read(name), own):
            raise DataError(f"{source.name}: {name} holds whole numbers and differs; such tensors cannot be merged")
    return own


Combine = Callable[[str, Any, list[torch.Tensor]], torch.Tensor]


def _method(how: MergeSettings) -> Combine:
    """Returns what makes one tensor of the base's (None where there is no base) and the experts'."""
    if how.method == "slerp":
        return lambda name, start, there: slerp(there[0], there[1], how.at)
    combine = {"task_arithmetic": _added, "ties": _elected, "dare": _dared}[how.method]
    return lambda name, start, there: start + combine([tensor - start for tensor in there], how, name)


def _added(vectors: list[torch.Tensor], how: MergeSettings, name: str) -> torch.Tensor:
    r"""Returns :math:`\lambda \sum_i \tau_i` (Ilharco et al. 2022, https://arxiv.org/abs/2212.04089)."""
    return how.scale * torch.stack(vectors).sum(0)


def _elected(vectors: list[torch.Tensor], how: MergeSettings, name: str) -> torch.Tensor:
    """Returns the mean of what is left of task vectors where they disagree no more, by peft's `ties`.

    Of each vector the largest numbers are kept; of each weight the sign that has more mass is elected, and the numbers
    of that sign are averaged (Yadav et al. 2023, https://arxiv.org/abs/2306.01708).
    """
    utilities: Any = require("peft.utils.merge_utils", extra="lora", purpose="merging models by their signs")
    kept = [utilities.magnitude_based_pruning(vector, how.density) for vector in vectors]
    stacked = torch.stack(kept)
    found: torch.Tensor = utilities.disjoint_merge(stacked, utilities.calculate_majority_sign_mask(stacked))
    return how.scale * found


def _dared(vectors: list[torch.Tensor], how: MergeSettings, name: str) -> torch.Tensor:
    r"""Returns :math:`\lambda \sum_i m_i \tau_i / d`, with a mask that keeps each number with probability d
    (Yu et al. 2023, https://arxiv.org/abs/2311.03099).

    The generator is made of seed, tensor and expert, so what is dropped does not depend on the order of files.
    """
    left = []
    for place, vector in enumerate(vectors):
        digest = hashlib.blake2b(f"{how.seed}/{name}/{place}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        left.append(vector * (torch.rand(vector.shape, generator=generator) < how.density) / how.density)
    return _added(left, how, name)


def slerp(a: torch.Tensor, b: torch.Tensor, at: float) -> torch.Tensor:
    r"""Returns the tensor `at` a share of the arc from a to b, taken as vectors.

    .. math:: \frac{\sin((1 - t)\Omega)}{\sin \Omega} a + \frac{\sin(t\Omega)}{\sin \Omega} b, \quad
              \cos \Omega = \frac{a \cdot b}{|a| |b|}

    Shoemake 1985 (https://doi.org/10.1145/325165.325242). Where they point the same way, or one is zero, the line.
    """
    lengths = torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)
    angle = torch.arccos(((a * b).sum() / lengths).clamp(-1.0, 1.0)) if lengths > 0 else torch.zeros(())
    if torch.sin(angle) < STRAIGHT:
        return (1.0 - at) * a + at * b
    return (torch.sin((1.0 - at) * angle) * a + torch.sin(at * angle) * b) / torch.sin(angle)
