"""ComputeWorld: a pool of chains with the rules of TestTimeCompute, shared by all lanes.

Letters: B lanes, Q prompts, M branches, K actions, D features of a prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from treegym.checks import number, one_of, whole
from treegym.envs.compute import render, transition
from treegym.envs.compute.bounds import references_of
from treegym.envs.compute.lanes import Lanes
from treegym.envs.compute.observation import CHILD, STATE, confidences, observe
from treegym.envs.compute.pool import ChainPool, pool_of_tree, synthetic_pool
from treegym.envs.compute.transition import AGGREGATES, KINDS, Cells
from treegym.envs.layout import ObservationLayout
from treegym.envs.spaces import Spaces
from treegym.envs.states import origin_of
from treegym.errors import ConfigError
from treegym.tree.opening import load_tree
from treegym.tree.token_tree import SPLITS, TokenTree

__all__ = ["TERMS", "ComputeWorld", "load_pool"]

KNOWN = ("context", "kind", "nothing")  # what a controller may know of a prompt beforehand
TERMS = ("correct", "tokens")  # the vector reward, in order
_UNBOUNDED = 2**60
_PRICES = 64  # of a range, as far apart in proportion
_remembered: dict[Any, ChainPool] = {}


class ComputeWorld(Spaces):
    """Everything that `TestTimeCompute` looks things up in."""

    name: ClassVar[str] = "TestTimeCompute"
    terms: ClassVar[tuple[str, ...]] = TERMS
    live: ClassVar[bool] = False

    def __init__(
        self,
        *,
        pool: str | TokenTree | ChainPool | None = None,
        split: str = "train",
        max_branches: int = 8,
        token_cost: float | Sequence[float] = 0.05,
        budget: float | None = None,
        probe_cost: int = 1,
        aggregate: str = "plurality",
        segment: int = 4,
        samples: int = 64,
        policy: str = "primary",
        pool_seed: int = 0,
        known: str = "context",
        max_iterations: int = 64,
        illegal_penalty: float = 0.1,
    ) -> None:
        self.chains = load_pool(pool, segment=segment, samples=samples, policy=policy, seed=pool_seed)
        self.split = one_of("split", split, (*SPLITS, "all"))
        self.branches = whole("max_branches", max_branches, low=1, high=64)
        self.num_actions = 2 + 4 * self.branches
        self.prices = _prices(token_cost)
        self.aggregate = one_of("aggregate", aggregate, AGGREGATES)
        self.max_iterations = whole("max_iterations", max_iterations, low=2)
        self.illegal_penalty = number("illegal_penalty", illegal_penalty, low=0)
        self.unit = float(self.chains.length.mean())  # tokens of a chain, on average
        self.budget = None if budget is None else number("budget", budget, low=0)
        shortest = int(self.chains.length.min())
        if self.budget is not None and self.budget * self.unit < max(shortest, self.chains.segment):
            raise ConfigError(
                f"budget is {budget}, i.e. {self.budget * self.unit:.0f} tokens, below one sample: the shortest chain "
                f"of this pool has {shortest} tokens, a segment {self.chains.segment}, and a chain {self.unit:.1f} on "
                "average"
            )
        self.pool = self.chains.roots_in(self.split).astype(np.int64)  # prompts that episodes start at
        if not len(self.pool):
            raise ConfigError(f"the pool has no prompt in split {self.split!r}; choose another split")
        p = self.chains
        self.cells = Cells(
            start=p.start.astype(np.int64), length=p.length, answer=p.answer, score=p.score, right=p.right,
            probe=np.ascontiguousarray(p.probe), low=np.ascontiguousarray(p.low), high=np.ascontiguousarray(p.high),
            starts=self.pool, segment=p.segment,
            probe_cost=whole("probe_cost", probe_cost, low=0),
            budget=_UNBOUNDED if self.budget is None else int(self.budget * self.unit),
            rates=self.prices / self.unit, dear=_dear(self.prices), penalty=self.illegal_penalty,
            rule=AGGREGATES.index(self.aggregate), unit=self.unit, likelihood=p.likelihood,
            longest=float(p.length.max()),
        )  # fmt: skip
        self.scale = float(self.cells.budget if self.budget is not None else self.unit * self.branches)
        names, self.known = _known(p, one_of("known", known, KNOWN))
        self.layout = ObservationLayout(self.num_actions, (*STATE, *names), CHILD)
        self.confidence = confidences(self.branches)
        self.low = np.zeros(self.layout.size, np.float32)
        self.high = np.ones(self.layout.size, np.float32)
        self.low[len(STATE) : len(STATE) + len(names)] = -1.0

    def lanes(self, count: int, *, max_steps: int | None = None) -> Lanes:
        """Returns so many lanes of this world; `max_steps` truncates episodes earlier than `max_iterations` does."""
        return Lanes(self, count, max_steps=max_steps)

    def term_weights(self, places: np.ndarray) -> np.ndarray:
        """Returns what each term of the vector reward counts in the scalar one at places ``[B, width]``: ``[B, 2]``."""
        price = self.prices[places[:, transition.PRICE]]
        return np.stack([np.ones(len(places)), price], axis=1)

    def flops(self, tokens: float, parameters: float) -> float:
        """Returns what generating so many tokens costs: 2 per token and parameter of the model."""
        return 2.0 * parameters * tokens

    def references(self, prompts: np.ndarray) -> dict[str, float]:
        """Returns what is known of the best that can be done at these prompts; see `bounds`."""
        return references_of(self, prompts)

    # ---------------------------------------------------------------- states

    @functools.cached_property
    def origin(self) -> int:
        """A number for this world, which the states of its lanes carry."""
        return origin_of([self.name, self.num_actions, self.max_iterations], self.cells.start, self.cells.length)

    def sound(self, places: np.ndarray) -> np.ndarray:
        """Returns which places ``[B, width]`` a lane of this world can be at: prompts, chains and depths that exist."""
        roots, count = places[:, transition.ROOT], places[:, transition.COUNT]
        good = (roots >= 0) & (roots < self.chains.num_prompts) & (count >= 0) & (count <= self.branches)
        good &= (places[:, transition.STEPS] >= 0) & (places[:, transition.SPENT] >= 0)
        good &= (places[:, transition.PRICE] >= 0) & (places[:, transition.PRICE] < len(self.prices))
        at = np.where(good, roots, 0)
        chain, depth, shown, status, _, used = (transition.block(places, n, self.branches) for n in range(6))
        there = np.arange(self.branches) < count[:, None]
        low, high = self.cells.start[at][:, None], self.cells.start[at + 1][:, None]
        fits = (chain >= low) & (chain < high) & (used >= low) & (used < high)
        last = -(-self.cells.length[np.where(fits, chain, 0)] // self.chains.segment)
        fits &= (depth >= 1) & (depth <= last) & (status >= transition.ACTIVE) & (status <= transition.PRUNED)
        fits &= (shown >= transition.NOTHING) & (shown < self.chains.right.shape[1])
        fits &= (status != transition.ACTIVE) | (depth < last)
        return good & (fits | ~there).all(axis=1)

    # ---------------------------------------------------------------- observations

    def observe(self, place: np.ndarray) -> dict[str, np.ndarray]:
        """Returns fresh observations of lanes at these places ``[b, width]``."""
        rows = np.empty((len(place), self.layout.size), np.float32)
        masks = np.empty((len(place), self.num_actions), np.int8)
        observe(
            place,
            self.cells,
            float(self.max_iterations),
            self.known,
            self.confidence,
            self.scale,
            rows,
            masks,
        )
        return {"observations": rows, "action_mask": masks}

    # ---------------------------------------------------------------- words

    def drawing(self) -> Any:
        """Returns the module that draws a lane: `as_text` and `as_image` of a world and a place."""
        return render

    def action_name(self, action: int) -> str:
        """Returns an action in words, such as "continue 2"."""
        if action < 2:
            return KINDS[action]
        return f"{KINDS[2 + (action - 2) // self.branches]} {(action - 2) % self.branches}"

    def action_of(self, kind: str, branch: int = 0) -> int:
        """Returns the action of a kind, such as "continue", on a branch."""
        which = KINDS.index(one_of("kind", kind, KINDS))
        return which if which < 2 else 2 + (which - 2) * self.branches + branch

    def text(self, place: np.ndarray) -> str:
        """Returns the episode in words: the prompt, and what has been spent on how many branches."""
        prompt = self.chains.prompts[int(place[transition.ROOT])]
        return f"{prompt}: {int(place[transition.COUNT])} branches, {int(place[transition.SPENT])} tokens"


def _prices(token_cost: Any) -> np.ndarray:
    """Returns the prices that an episode may be played at ``[P] float64``, one of which it draws."""
    if not isinstance(token_cost, Sequence):
        return np.array([number("token_cost", token_cost, low=0)])
    if isinstance(token_cost, str) or len(token_cost) != 2:
        raise ConfigError(
            f"token_cost is {token_cost!r}; expected what the tokens of an average chain cost, or the lowest and the "
            "highest of such prices, of which every episode draws one"
        )
    low, high = (number("token_cost, of a range,", price, low=1e-6) for price in token_cost)
    if low >= high:
        raise ConfigError(f"token_cost is a range from {low} to {high}; the lower price must come first")
    return np.geomspace(low, high, _PRICES)


def _dear(prices: np.ndarray) -> np.ndarray:
    """Returns prices by powers of ten: 1 for what a right answer is worth, 0 for a thousandth of it or less."""
    return np.clip(1.0 + np.log10(np.maximum(prices, 1e-6)) / 3.0, 0.0, 1.0).astype(np.float32)


def _known(pool: ChainPool, what: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns names of what is known of a prompt beforehand, and ``[Q, D] float32``."""
    if what == "context":
        return tuple(f"prompt_{d}" for d in range(pool.features.shape[1])), pool.features
    if what == "nothing":
        return (), np.zeros((pool.num_prompts, 0), np.float32)
    kinds = sorted(set(pool.kinds))
    if kinds == [""]:
        raise ConfigError("known is 'kind', and this pool's prompts have no kinds; choose 'context' or 'nothing'")
    return tuple(f"kind_{kind}" for kind in kinds), np.array(
        [[own == kind for kind in kinds] for own in pool.kinds], np.float32
    )


def load_pool(source: Any, *, segment: int, samples: int, policy: str, seed: int) -> ChainPool:
    """Returns a pool by name: "synthetic:prompts=64,...", or the chains of a tree; None is the bundled tree."""
    if isinstance(source, ChainPool):
        return source
    if isinstance(source, str) and source.split(":", 1)[0] == "synthetic":
        return _kept(source, lambda: synthetic_pool(**_options(source)))
    if source is not None and not isinstance(source, str | TokenTree):
        raise ConfigError(f"pool is {source!r}; expected a .tree file's path, 'tree:synthetic:...' or 'synthetic:...'")
    name = source.removeprefix("tree:") if isinstance(source, str) else source
    tree = load_tree(name)
    make = functools.partial(pool_of_tree, tree, segment=segment, samples=samples, policy=policy, seed=seed)
    return _kept((id(tree), segment, samples, policy, seed), make)


def _kept(key: Any, make: Any) -> ChainPool:
    """Returns what was made last under this key: many environments share one pool."""
    if key not in _remembered:
        while len(_remembered) >= 4:
            _remembered.pop(next(iter(_remembered)))
        _remembered[key] = make()
    return _remembered[key]


def _options(source: str) -> dict[str, float]:
    options: dict[str, float] = {}
    for part in filter(None, source.removeprefix("synthetic").removeprefix(":").split(",")):
        name, _, value = part.partition("=")
        try:
            options[name.strip()] = float(value) if name.strip() == "difficulty" else int(value)
        except ValueError:
            raise ConfigError(f"synthetic pool: {name} is {value!r}; expected a number") from None
    return options
