"""What a run of `treegym iterate` is made of; a TOML file and flags give the same settings."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError, DataError, suggest

__all__ = ["ALGORITHMS", "IterateSettings", "load_settings"]

ALGORITHMS = ("ppo", "dapo", "vapo", "expert")
GROUNDS = ("tree", "text")


@dataclass(frozen=True)
class IterateSettings:
    """A run; every round does the same with the primary the last round left."""

    rounds: int = 3
    algorithm: str = "dapo"  # ppo, dapo, vapo, or expert: search, then imitate what was found
    model: str = "tiny-primary"  # the primary to begin with
    ground: str = "tree"  # "tree": choose among children; "text": every token may follow
    tree: str | None = None  # a .tree file; None: the bundled tree
    reward: Any = None  # reward terms; None: the verifier
    steps: int = 40_000  # tokens a round for ppo, dapo and vapo
    simulations: int = 64  # for expert: simulations a token
    epochs: int = 4  # for expert: passes over what was found
    batch: int = 64  # examples a supervised step
    learning_rate: float = 1e-4
    imitation_rate: float = 1e-3  # learning rate of supervised steps
    reference: int = 256  # examples mixed in after a round whose reward fell; 0: never
    prompts: str = "bundled:train=400"  # what ground "text" writes after
    evaluate: str = "bundled:test=400"  # held-out prompts, answered without a tree
    max_tokens: int = 24
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # further switches of the algorithm

    def __post_init__(self) -> None:
        for name, known in (("algorithm", ALGORITHMS), ("ground", GROUNDS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}.{suggest(str(getattr(self, name)), known)}")
        for name in ("rounds", "steps", "simulations", "epochs", "batch", "max_tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
        if self.algorithm == "expert" and self.ground == "text":
            raise ConfigError("expert iteration searches trees; use ground='tree', or ppo, dapo or vapo on text")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def load_settings(path: str | None, changes: dict[str, Any]) -> IterateSettings:
    """Returns the settings in a TOML file, with changes from flags (None leaves a setting alone)."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not valid TOML: {error}") from error
    known = [entry.name for entry in fields(IterateSettings)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{path}: unknown setting {name!r}.{suggest(name, known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(IterateSettings(**values), **given)
