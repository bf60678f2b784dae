"""The switches of learning from preferences."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from treegym.agents.preferences import LOSSES
from treegym.agents.schedules import Schedule, as_schedule
from treegym.checks import number, one_of, whole
from treegym.errors import ConfigError, suggest

__all__ = ["PreferenceSettings"]

PAIRS = ("answers", "siblings")
# SimPO compares mean log-probabilities, which are smaller than sums of them.
USUAL: dict[str, dict[str, float]] = {"dpo": {}, "ipo": {}, "simpo": {"beta": 2.0, "margin": 0.5}}
# A difference of siblings says nothing of all other tokens, which then rise above both.
HELD = 0.5


@dataclass(frozen=True)
class PreferenceSettings:
    """Switches of DPO, IPO and SimPO; names as in the policy-gradient learners where those have them."""

    loss: str = "dpo"
    pairs: str = "answers"  # right over wrong ones, siblings of a tree by the gap in value, or a file: PAIRS.jsonl
    beta: float = 0.1  # how much a difference counts; of DPO and IPO, what keeps to the reference
    margin: float = 0.0  # what a difference has to reach
    nll_coef: float = 0.0  # weight of the likelihood of preferred answers
    samples: int = 8  # answers to each prompt
    n_episodes: int = 2048  # answers between which the model stays as it is
    n_epochs: int = 1  # passes over the pairs of so many answers, or of a tree
    batch_size: int = 64  # pairs per gradient step
    learning_rate: Schedule = "lin_3e-4"
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        one_of("loss", self.loss, LOSSES)
        if not self.written:
            one_of("pairs (where they are no .jsonl file)", self.pairs, PAIRS)
        if number("beta", self.beta) <= 0.0:
            raise ConfigError(f"beta is {self.beta}; it must be above 0")
        for name in ("margin", "nll_coef", "max_grad_norm"):
            number(name, getattr(self, name), low=0)
        for name in ("n_episodes", "n_epochs", "batch_size"):
            whole(name, getattr(self, name), low=1)
        whole("samples", self.samples, low=2)
        as_schedule(self.learning_rate, name="learning_rate")

    @property
    def written(self) -> bool:
        """Whether pairs come from a file."""
        return isinstance(self.pairs, str) and self.pairs.endswith(".jsonl")

    @classmethod
    def of(cls, loss: str, switches: dict[str, Any]) -> Self:
        """Returns the settings of a loss, others than given ones as suit it; ConfigError for an unknown switch."""
        known = [entry.name for entry in fields(cls)]
        for name in switches:
            if name not in known or name == "loss":
                raise ConfigError(f"{loss} has no switch {name!r}.{suggest(name, known)}")
        held = {"nll_coef": HELD} if switches.get("pairs") == "siblings" else {}
        return cls(loss=loss, **{**USUAL[one_of("loss", loss, LOSSES)], **held, **switches})
