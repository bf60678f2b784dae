"""What a world on tensors must offer, and the checks of what it gives: of forms at once, of numbers without a look."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch

from treegym.errors import ConfigError
from treegym.search.checks import answered
from treegym.search.kernels import codes
from treegym.search.kernels.numeric import LARGEST
from treegym.search.simulator import Evaluation, Transition

__all__ = ["Judged", "Moved", "TensorSimulator", "World", "keep", "mixed", "room", "taken"]

WRONG_TURN = max(codes.NO_LEGAL_MOVE, codes.NO_PRIOR, codes.UNUSABLE_LOGIT, codes.UNUSABLE_NUMBER, codes.RAISED) + 1


class TensorSimulator(Protocol):
    """A world whose states are tensors [B, ..], or a tuple or dict of them, on one device.

    The fields of what it gives are tensors on that device, too. It is always asked about B states, and must not depend
    on what else is among them.
    """

    num_actions: int

    def expand(self, states: Any) -> Evaluation:
        """Returns prior logits [B, A], value [B] and legal mask [B, A] of each state."""
        ...

    def step(self, states: Any, actions: torch.Tensor) -> Transition:
        """Returns next states, rewards and whether each next state is terminal; `actions` are int64."""
        ...


class Judged(NamedTuple):
    """An evaluation in the dtypes that the trees hold."""

    logits: torch.Tensor  # [B, A] float32
    value: torch.Tensor  # [B] float32
    legal: torch.Tensor  # [B, A] bool
    second: torch.Tensor  # [B] bool
    problem: torch.Tensor  # [B] int64, what is wrong with the row, see `treegym.search.kernels.codes`


class Moved(NamedTuple):
    """A step in the dtypes that the trees hold."""

    states: Any
    reward: torch.Tensor  # [B] float32
    ended: torch.Tensor  # [B] bool
    second: torch.Tensor  # [B] bool
    problem: torch.Tensor  # [B] int64


class World:
    """A simulator on tensors, whose answers are checked."""

    def __init__(self, simulator: Any, states: Any, players: int) -> None:
        """Takes the form of the states from the roots'."""
        self.simulator, self.players = simulator, players
        self._like = states
        first = parts(states)[0][1]
        self.size, self.device = len(first), first.device
        self.actions = int(simulator.num_actions)
        self._form(states, "the roots' states")

    def expand(self, states: Any, what: str) -> Judged:
        """Judges B states."""
        given = self.simulator.expand(states)
        answered(given, Evaluation, "expand")
        logits = self._tensor("prior_logits", given.prior_logits, (self.size, self.actions), what).float()
        value = self._tensor("value", given.value, (self.size,), what).float()
        legal = self._tensor("legal", given.legal, (self.size, self.actions), what).bool()
        second, problem = self._turn(given, what)
        of_legal = torch.where(legal, logits, -torch.inf)
        unusable = (legal & (logits.isnan() | (logits == torch.inf))).any(1)
        for wrong, code in (
            (~(value.abs() <= float(LARGEST)), codes.UNUSABLE_NUMBER),
            (of_legal.amax(1) == -torch.inf, codes.NO_PRIOR),
            (unusable, codes.UNUSABLE_LOGIT),
            (~legal.any(1), codes.NO_LEGAL_MOVE),
        ):
            problem = torch.where(wrong, code, problem)
        return Judged(logits, value, legal, second, problem)

    def step(self, states: Any, actions: torch.Tensor) -> Moved:
        """Steps B states."""
        what = "below the roots"
        given = self.simulator.step(states, actions)
        answered(given, Transition, "step")
        self._form(given.states, "the simulator's states")
        reward = self._tensor("reward", given.reward, (self.size,), what).float()
        ended = self._tensor("terminated", given.terminated, (self.size,), what).bool()
        second, problem = self._turn(given, what)
        problem = torch.where(reward.abs() <= float(LARGEST), problem, codes.UNUSABLE_NUMBER)
        return Moved(given.states, reward, ended, second, problem)

    def _turn(self, given: Any, what: str) -> tuple[torch.Tensor, torch.Tensor]:
        nothing = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        if self.players == 1:
            return nothing.bool(), nothing
        turn = getattr(given, "to_play", None)
        if turn is None:
            raise ConfigError(
                f"{what}: there are two players, and the simulator does not say whose turn it is (`to_play`)"
            )
        turn = self._tensor("to_play", turn, (self.size,), what)
        if turn.is_floating_point():
            raise ConfigError(f"{what}: to_play holds {turn.dtype} numbers; it must hold whole numbers")
        return turn == 1, torch.where((turn == 0) | (turn == 1), nothing, WRONG_TURN)

    def _tensor(self, name: str, given: Any, shape: tuple[int, ...], what: str) -> torch.Tensor:
        if not isinstance(given, torch.Tensor):
            raise ConfigError(
                f"{what}: the simulator's {name} is a {type(given).__name__}; backend='torch' plans with tensors "
                f"alone, so give a tensor on {self.device}, or leave out the backend"
            )
        if given.device != self.device:
            raise ConfigError(f"{what}: the simulator's {name} is on {given.device}, the states are on {self.device}")
        if tuple(given.shape) != shape:
            raise ConfigError(f"{what}: the simulator's {name} has shape {tuple(given.shape)}; expected {shape}")
        return given.detach()

    def _form(self, states: Any, what: str) -> None:
        """Raises `ConfigError` where states are not of the form in which the roots came."""
        expected, found = parts(self._like), parts(states)
        if [name for name, _ in expected] != [name for name, _ in found]:
            raise ConfigError(f"{what} are of another form than the roots'; give {form(self._like)}, as the roots are")
        for (name, like), (_, part) in zip(expected, found, strict=True):
            wanted = (self.size, *like.shape[1:])
            if tuple(part.shape) != wanted or part.dtype != like.dtype or part.device != like.device:
                raise ConfigError(
                    f"{what}{name} are {part.dtype} of shape {tuple(part.shape)} on {part.device}; the roots' are "
                    f"{like.dtype} of shape {wanted} on {like.device}, and room is made for those alone"
                )


def parts(states: Any, name: str = "") -> list[tuple[str, torch.Tensor]]:
    """Returns the tensors that states consist of, with what tells them apart."""
    if isinstance(states, dict):
        return [pair for key, part in states.items() for pair in parts(part, f"{name}[{key!r}]")]
    if isinstance(states, tuple):
        return [pair for i, part in enumerate(states) for pair in parts(part, f"{name}[{i}]")]
    if not isinstance(states, torch.Tensor) or not states.ndim or not len(states):
        raise ConfigError(
            f"states are {form(states)}; backend='torch' keeps tensors of at least one row, or tuples and dicts of them"
        )
    return [(name, states)]


def form(states: Any) -> str:
    """Returns what states are, in words."""
    if isinstance(states, torch.Tensor):
        return f"a tensor of shape {tuple(states.shape)}"
    return f"a {type(states).__name__}" + (f" of {len(states)}" if isinstance(states, (tuple, dict, list)) else "")


def each(change: Any, *states: Any) -> Any:
    """Returns states made part by part out of others of the same form."""
    first = states[0]
    if isinstance(first, dict):
        return {name: each(change, *(given[name] for given in states)) for name in first}
    if isinstance(first, tuple):
        columns = [each(change, *column) for column in zip(*states, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else tuple(columns)
    return change(*states)


def room(like: Any, rows: int) -> Any:
    """Returns room for so many states."""
    return each(lambda part: part.new_zeros((rows, *part.shape[1:])), like)


def keep(store: Any, rows: torch.Tensor, states: Any) -> None:
    """Writes states into rows of a store."""

    def write(kept: torch.Tensor, part: torch.Tensor) -> None:
        kept[rows] = part.detach()

    each(write, store, states)


def taken(store: Any, rows: torch.Tensor) -> Any:
    """Returns the states in rows of a store."""
    return each(lambda part: part[rows], store)


def mixed(where: torch.Tensor, states: Any, others: Any) -> Any:
    """Returns states [B], in rows that do not hold in `where` the others."""

    def choose(part: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.where(where.reshape(-1, *[1] * (part.ndim - 1)), part, other)

    return each(choose, states, others)
