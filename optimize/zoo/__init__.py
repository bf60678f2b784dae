"""A zoo of real PyTorch modules in seeded sizes: what candidate selection is recorded and learned on.

A zoo module is one file with two functions: ``build(size, seed) -> nn.Module`` and ``inputs(size, seed)``, its
arguments. This table names them; nothing is imported before a module is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from treegym.registry import Registry, resolve

if TYPE_CHECKING:
    import torch

__all__ = ["SIZES", "ZOO", "ZooEntry", "build", "inputs", "seed_of", "split_of"]

SIZES = (0, 1, 2)  # small, medium, large


class ZooEntry(NamedTuple):
    kind: str  # the kind of module, as strategy histories are kept by
    held_out: int  # the size that training never sees; -1: the whole module is held out
    split: str  # where the held-out part goes
    summary: str


ZOO: dict[str, ZooEntry] = {
    "mlp": ZooEntry("dense", 2, "test", "perceptron with ReLU, trained on a small task"),
    "mixer": ZooEntry("dense", 1, "validation", "MLP-Mixer: token and channel perceptrons"),
    "autoencoder": ZooEntry("generator", 0, "test", "dense autoencoder with batch norm"),
    "upsampler": ZooEntry("generator", 2, "validation", "small convolutional image generator"),
    "cnn": ZooEntry("convolution", 1, "test", "plain convolutions with batch norm"),
    "resnet": ZooEntry("convolution", 2, "test", "residual convolution blocks"),
    "encoder": ZooEntry("transformer", 2, "test", "transformer encoder, hand-written attention"),
    "decoder": ZooEntry("transformer", 0, "validation", "causal transformer decoder, hand-written attention"),
    "encoder_decoder": ZooEntry("transformer", 1, "test", "encoder and decoder with cross attention"),
    "llama": ZooEntry("llama", 2, "validation", "RMSNorm, rotary positions, grouped queries, SwiGLU"),
    "latent_attention": ZooEntry("latent_attention", 1, "validation", "attention over compressed keys and values"),
    "moe": ZooEntry("moe", 2, "test", "mixture of experts with load balancing"),
    "lstm": ZooEntry("recurrent", 1, "validation", "stacked LSTM tagger"),
    "conv_transformer": ZooEntry("conv_transformer", 0, "test", "convolutional stem and transformer blocks"),
    "language_model": ZooEntry("language_model", 2, "test", "the bundled tiny language models"),
    "vision_transformer": ZooEntry("transformer", -1, "test", "patches and a pre-norm encoder; never trained on"),
    "two_tower": ZooEntry("multimodal", -1, "test", "vision and text towers, contrastive; never trained on"),
    # from here on: not in the table that comes with the package
    "deepseek": ZooEntry("moe", -1, "test", "latent attention and experts"),
    "claude": ZooEntry("transformer", -1, "test", "causal encoder with a head for a constitution's principles"),
    "viral_clipper": ZooEntry("multimodal", -1, "test", "video and text towers"),
    "brandkit": ZooEntry("multimodal", -1, "test", "a page and a text through the same blocks"),
    "qwen": ZooEntry("qwen", -1, "test", "the Llama recipe with norms on queries and keys"),
}


_BUILDERS = Registry("zoo module", {name: (f"{__name__}.{name}:build", entry.summary) for name, entry in ZOO.items()})


def seed_of(name: str, size: int) -> int:
    """Returns the seed of a zoo module's weights: fixed, and different for every module and size."""
    _BUILDERS.path_of(name)  # tells who asks for one that is not there
    return 1_000 * (list(ZOO).index(name) + 1) + size


def split_of(name: str, size: int) -> str:
    """Returns ``"train"``, ``"validation"`` or ``"test"``: held-out sizes of known modules, and whole unknown ones."""
    entry = ZOO[name]
    return entry.split if entry.held_out in (-1, size) else "train"


def build(name: str, size: int) -> torch.nn.Module:
    """Builds a zoo module in evaluation mode, always with the same weights."""
    import torch

    from treegym.optimize.zoo.layers import shape_spectra

    seed = seed_of(name, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _BUILDERS.find(name)(size, seed)
    if not getattr(module, "trained", False):
        shape_spectra(module, decay=(0.0, 0.6, 1.2)[seed % 3], seed=seed)
    return module.eval()


def inputs(name: str, size: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Returns a fresh input of a zoo module; the same seed gives the same one."""
    _BUILDERS.path_of(name)
    made: tuple[torch.Tensor, ...] = resolve(f"{__name__}.{name}:inputs", f"zoo module {name!r}")(size, seed)
    return made
