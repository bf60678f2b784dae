"""What a run of `treegym iterate` is made of; a TOML file and flags give the same settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from treegym.checks import whole
from treegym.errors import ConfigError, suggest
from treegym.iterate.kinds import check_kinds
from treegym.models.tokens.prompt_format import PromptFormat, format_named
from treegym.rewards.answers import AnswerRule
from treegym.tree.curriculum import CURRICULA
from treegym.untrusted import read_text, toml_of

__all__ = ["ALGORITHMS", "DEFAULTS", "PREFERENCES", "IterateSettings", "load_settings"]

PREFERENCES = ("dpo", "ipo", "simpo")
ALGORITHMS = ("ppo", "dapo", "vapo", *PREFERENCES, "expert")
GROUNDS = ("tree", "text")
GROWTHS = ("answers", "step", "mixed", "samples")
SEARCHES = ("alphazero", "muzero", "mcts", "search", "expert-iteration", "expert_iteration", "exit")

# One pass over a rollout: a second one unsettled long runs of every algorithm.
_COMMON: dict[str, Any] = {
    "gamma": 1.0, "n_episodes": 256, "n_epochs": 1, "batch_size": 512, "learning_rate": "lin_3e-4",
}  # fmt: skip
# Where a critic judges, nothing holds the policy once most answers are right: without a little KL to the model that
# learning began from, long runs of PPO and VAPO fell to nothing. DAPO leaves such prompts out, and did not.
_HELD: dict[str, Any] = {**_COMMON, "kl_coef": 0.02}
# Switches of the learners for a language model of a hundred thousand weights; `options` overrides them.
DEFAULTS: dict[str, dict[str, Any]] = {
    "ppo": _HELD,
    "dapo": {**_COMMON, "group_size": 16, "max_resamples": 2},
    "vapo": {**_HELD, "group_size": 8, "pretrain_updates": 10, "vf_coef": 0.1},
}


@dataclass(frozen=True)
class IterateSettings:
    """A run; every round does the same with the primary the last round left.

    The defaults of ppo, dapo and vapo are the ones that raise held-out accuracy of the bundled primary within a
    minute: free text, fresh prompts, small rates (docs/language_models.md has the figures).
    """

    rounds: int = 3
    algorithm: str = "dapo"  # ppo, dapo, vapo; dpo, ipo, simpo; or expert: search, then imitate what was found
    model: str = "tiny-primary"  # the primary to begin with
    ground: str | None = None  # "tree": choose among children; "text": any token; None: tree for expert, else text
    tree: str | None = None  # a .tree file; None: the bundled tree, or grown ones
    grow: bool | None = None  # whether each round grows a tree over fresh `prompts`; None: for expert without a tree
    growth: str = "answers"  # how: an answer of each teacher, branching ("step", "mixed"), or "samples" of each model
    samples: int = 16  # texts per prompt and model, where trees are sampled
    teachers: list[str] = field(default_factory=list)  # who proposes when trees are grown; empty: the bundled ones
    reward: Any = None  # reward terms; None: the verifier
    steps: int = 40_000  # tokens per round for all but expert; preferences on trees walk as the tree has prompts
    simulations: int = 64  # for expert: simulations a token
    epochs: int = 4  # for expert: passes over what was found
    batch: int = 64  # examples a supervised step
    learning_rate: float | str | None = None  # a number or "lin_3e-4" (falling), of all but expert; None: that one
    anchor: float = 0.3  # on trees: weight of the loss that keeps probability on the children; 0: off
    imitation_rate: float = 1e-3  # learning rate of supervised steps
    reference: int = 256  # examples mixed in after a round whose reward fell; 0: never
    prompts: str = "bundled:train=2000"  # fresh ones every round: what text is written after, and trees are grown over
    prompts_each: int | None = None  # so many of them, drawn anew in every round; None: all
    curriculum: str | None = None  # "middle" or "sample": practise where the primary is right now and then
    evaluate: str = "bundled:test=400"  # held-out prompts, answered without a tree
    evaluate_between: int | None = None  # so many of them, evenly spread, after rounds before the last; None: all
    actors: int = 1  # shares that episodes are collected in, each with draws of its own, here or on a cluster
    max_tokens: int = 24
    format: str = "auto"  # how prompts are put: raw, few-shot:FILE, chat, chat:FILE, auto
    system: str | None = None  # the instruction in chat form; "": none; None: the usual one
    template: str | None = None  # what a prompt is put into, such as "Question: {prompt}\nAnswer:"
    between: str | None = None  # what stands between prompt and answer
    stops: list[str] = field(default_factory=list)  # strings at which an answer is over
    extract: str = "stated"  # how the answer is found in a text
    cut_counts: bool = False  # whether an answer that was cut at the limit of tokens may be right
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # further switches of the algorithm
    policy: dict[str, Any] = field(default_factory=dict)  # further arguments of LMPolicy, such as lora_rank

    def __post_init__(self) -> None:
        for name, value, known in (("algorithm", self.algorithm, ALGORITHMS), ("ground", self.ground, GROUNDS)):
            if value not in known and not (name == "ground" and value is None):
                searches = name == "algorithm" and str(value).lower() in SEARCHES
                hint = " Did you mean 'expert', which searches with the model and imitates what it found?"
                raise ConfigError(f"{name} is {value!r}.{hint if searches else suggest(str(value), known)}")
        check_kinds(self)
        if self.reward is not None and not self.on_tree:
            raise ConfigError(
                f"reward is {self.reward!r}, but rewards of free text are the verdict on the answer; "
                'use ground="tree", or leave reward out'
            )
        if self.grow and self.tree is not None:
            raise ConfigError(f"tree is {self.tree!r}, but with grow every round makes its own; leave one of them out")
        if self.grow and not self.on_tree:
            raise ConfigError("grow makes trees, and ground 'text' walks none; use ground='tree'")
        if self.growth not in GROWTHS:
            raise ConfigError(f"growth is {self.growth!r}.{suggest(str(self.growth), GROWTHS)}")
        whole("actors", self.actors, low=1)
        if self.actors > 1 and self.algorithm in PREFERENCES:
            raise ConfigError(
                f"actors is {self.actors}, and {self.algorithm} answers prompts with the weights it has just learned; "
                "take ppo, dapo, vapo or expert, or leave actors out"
            )
        if self.curriculum is not None and self.curriculum not in CURRICULA:
            raise ConfigError(f"curriculum is {self.curriculum!r}.{suggest(str(self.curriculum), CURRICULA)}")
        if self.curriculum == "sample" and self.algorithm == "expert":
            raise ConfigError("expert iteration plays every prompt once, so nothing is drawn; use curriculum 'middle'")
        if self.algorithm == "expert" and self.ground == "text":
            raise ConfigError("expert iteration searches trees; use ground='tree', or ppo, dapo or vapo on text")

    @property
    def dtype(self) -> str:
        """The precision of the primary's weights."""
        return str(self.policy.get("dtype", "auto"))

    @property
    def form(self) -> PromptFormat:
        """How prompts are put to the primary; reads the file of examples, if there is one."""
        return format_named(
            self.format, system=self.system, template=self.template, between=self.between, stops=self.stops
        )

    @property
    def rule(self) -> AnswerRule:
        """What counts as a right answer."""
        return AnswerRule(extract=self.extract, cut_counts=self.cut_counts)

    @property
    def on_tree(self) -> bool:
        """Whether episodes walk a tree."""
        return self.algorithm == "expert" if self.ground is None else self.ground == "tree"

    @property
    def grows(self) -> bool:
        """Whether every round grows a tree of its own."""
        return self.algorithm == "expert" and self.tree is None if self.grow is None else self.grow

    @property
    def warning(self) -> str | None:
        """What a run of these settings should be told, or None."""
        if self.on_tree and self.algorithm not in (*PREFERENCES, "expert") and not self.anchor:
            return (
                f"{self.algorithm} on a tree without an anchor: nothing holds down tokens that are no children, so "
                "answers without a tree may get worse; use ground text, or anchor 0.3"
            )
        return None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def load_settings(path: str | None, changes: dict[str, Any]) -> IterateSettings:
    """Returns the settings in a TOML file, with changes from flags (None leaves a setting alone)."""
    values: dict[str, Any] = {}
    if path is not None:
        values = toml_of(read_text(path, limit=2**20), where=path)
    known = [entry.name for entry in fields(IterateSettings)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{path}: unknown setting {name!r}.{suggest(name, known)}")
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(IterateSettings(**values), **given)
