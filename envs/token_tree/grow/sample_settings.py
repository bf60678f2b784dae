"""What a growth by sampling is told: how many texts, from which law, and where forks are put."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from treegym.checks import number, one_of, whole
from treegym.errors import ConfigError
from treegym.tree.samples import Sampler

__all__ = ["FORK_RULES", "MODES", "SampleSettings"]

MODES = ("samples", "forks")
FORK_RULES = ("surprise", "entropy", "boundary", "random")


@dataclass(frozen=True)
class SampleSettings:
    """How a tree is sampled. Equal settings, models and prompts give equal bytes."""

    mode: str = "samples"
    samples: int = 16  # chains per prompt and model, in the mode "forks" the trunks M
    temperature: float = 1.0
    top_p: float = 1.0  # the likeliest tokens that have this much probability together
    top_k: int = 0  # the k likeliest tokens; 0: all
    fork_at: str = "surprise"  # or "entropy", "boundary", "random": which tokens of a text are said anew
    rounds: int = 1  # L: later rounds fork what earlier ones said, too
    forks: int = 2  # N: places per trunk and round; 0 for all of them
    completions: int = 1  # T: texts said anew from each place
    segment: int = 0  # for "boundary": every so many tokens; 0: after a line or a sentence
    version: str = "0"  # of the policy
    max_tokens: int = 24  # longest text, with its end; longer ones are cut there
    shard: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("the growth mode", self.mode, MODES)
        one_of("fork_at", self.fork_at, FORK_RULES)
        for name, least in (("samples", 1), ("rounds", 1), ("forks", 0), ("completions", 1), ("segment", 0),
                            ("max_tokens", 1), ("shard", 1), ("top_k", 0), ("seed", 0)):  # fmt: skip
            whole(name, getattr(self, name), low=least)
        if number("temperature", self.temperature, low=0) == 0:
            raise ConfigError("temperature is 0, at which all samples are the same text; a number above 0 was expected")
        if number("top_p", self.top_p, low=0, high=1) == 0:
            raise ConfigError("top_p is 0, which leaves no token to say; a number above 0, at most 1, was expected")

    @property
    def truncated(self) -> bool:
        """Whether the law is cut off, so that a back end's plain sampling is another one."""
        return self.top_p < 1.0 or self.top_k > 0

    @property
    def plain(self) -> bool:
        """Whether the law is the model's own."""
        return self.temperature == 1.0 and not self.truncated

    def samplers(self, model: str, fingerprint: str) -> list[Sampler]:
        """Returns the samplers that one model becomes: its chains and, if there are any, its forks."""
        kinds = ("chains",) if self.mode == "samples" else ("chains", "forks")
        return [
            Sampler(
                model=model, kind=kind, fingerprint=fingerprint, version=self.version, temperature=self.temperature,
                top_p=self.top_p, top_k=self.top_k, seed=self.seed, rule=self.fork_at if kind == "forks" else "",
            )
            for kind in kinds
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
