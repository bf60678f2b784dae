"""The batched tree search with its trees beside the evaluator: ``search(..., backend="torch")``.

Each simulation is the same sequence of tensor operations on all roots, whatever they come upon, so that nothing is read
back to go on: where a simulation ends in a state that is known, the root's state is stepped and judged in its place and
the answer dropped. How far values are carried back is bounded by the depth of the deepest leaf, which is read only now
and then (`_UNREAD`), and not at all with ``max_depth`` below that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from treegym.errors import ConfigError
from treegym.search.checks import PROBLEMS, arrays_of, check_evaluation, check_steady, check_width, positive
from treegym.search.kernels import batch, summary
from treegym.search.kernels.codes import MODE_PLAIN
from treegym.search.output import new_out, new_roots, root_ids_of, root_noise
from treegym.search.settings import Options, kernel_settings, seed_bits
from treegym.search.simulator import Evaluation, SearchResult, Transition
from treegym.search.tensors.rules import Rule, priors
from treegym.search.tensors.trees import Arrival, Trees, allocate, attach, backup, repoint
from treegym.search.tensors.world import WRONG_TURN, TensorSimulator, World, keep, mixed, room, taken
from treegym.search.tree import allocate as allocate_arrays

__all__ = ["METHODS", "tensor_search"]

METHODS = ("puct", "gumbel", "uct")
_UNREAD = 8  # simulations, besides as many as the deepest leaf is deep, after which it is asked how deep leaves are
_PROBLEMS = {**PROBLEMS, WRONG_TURN: "has a to_play that is neither 0 nor 1"}


class _Roots:
    """The roots as the kernels keep them: they set the noise, and say at the end what was found."""

    def __init__(
        self, evaluation: Evaluation, method: str, options: Options, simulations: int, seed: int, ids: np.ndarray | None
    ) -> None:
        size, actions = np.shape(evaluation.prior_logits)
        names = root_ids_of(ids, size)
        self.options = options
        self.trees, self.roots = allocate_arrays(size, 1, actions), new_roots(names, actions)
        self.settings = kernel_settings(
            method, options, simulations=simulations, visits=simulations, actions=actions, seed=seed
        )
        problems, second = np.zeros(size, np.int32), np.zeros(size, np.bool_)
        judged = (evaluation.prior_logits, evaluation.value, evaluation.legal)
        batch.plant(self.trees, np.arange(size), *judged, second, MODE_PLAIN, problems)
        _raise_problem(problems, "root")
        widths = self.trees.width[:, 0]
        noise = root_noise(method, options, seed_bits(seed), names, lambda: widths, actions)
        summary.perturb(self.trees, self.roots, seed_bits(seed), noise)
        self.inside = np.arange(actions) < widths[:, None]  # [B, W], slots in use
        self.names = np.where(self.inside, self.trees.action[:, 0], 0).astype(np.int64)

    def spread(self, packed: np.ndarray) -> np.ndarray:
        """Returns numbers of slots [B, W] by action [B, A], 0 where it is illegal."""
        out = np.zeros_like(packed)
        rows, slots = np.nonzero(self.inside)
        out[rows, self.names[rows, slots]] = packed[rows, slots]
        return out

    def result(self, trees: Trees, root: torch.Tensor, judged: torch.Tensor) -> SearchResult:
        """Returns what was found at the roots."""
        own, rows = self.trees, trees.rows(root)
        rows_of = np.arange(len(self.names))[:, None]
        own.visits[:, 0] = rows.visits.cpu().numpy()[rows_of, self.names]
        own.q[:, 0] = rows.q.cpu().numpy()[rows_of, self.names]
        own.value[:, 0], own.seen[:, 0] = rows.value.cpu().numpy(), rows.seen.cpu().numpy()
        out = new_out(len(self.names), own.prior.shape[2])
        scores = np.empty(own.prior.shape[2], np.float32)
        summary.summarise(own, self.roots, self.settings, float(self.options.temperature), scores, out)
        out.evaluations[:] = judged.cpu().numpy()
        return out.result()


@torch.no_grad()
def tensor_search(
    simulator: TensorSimulator,
    states: Any,
    *,
    method: str,
    num_simulations: int,
    seed: int = 0,
    options: Options,
    root_ids: np.ndarray | None = None,
) -> SearchResult:
    """Searches from each of B states, tensors, on the device on which they are.

    The same simulations as the kernels make, by the same noise, so that visits are equal wherever the scores of two
    children differ by more than rounding.
    """
    check_supported(simulator, method, options)
    simulations = positive("num_simulations", num_simulations)
    world = World(simulator, states, options.players)
    check_width(world.actions)
    judged = world.expand(states, "at the roots")
    _raise_problem(judged.problem.cpu().numpy(), "root")
    host = Evaluation(*(part.cpu().numpy() for part in judged[:3]))
    planted = _Roots(
        check_evaluation(host, world.size, world.actions, "at the roots"), method, options, simulations, seed, root_ids
    )

    device, nodes = world.device, simulations + 1
    trees = allocate(world.size, nodes, world.actions, device)
    store = room(states, len(trees.seen))
    root = torch.arange(world.size, device=device) * nodes
    keep(store, root, states)
    trees.prior[root] = torch.from_numpy(planted.spread(planted.trees.prior[:, 0])).to(device)
    trees.value[root] = trees.raw[root] = judged.value
    trees.seen[root], trees.second[root], trees.parent[root] = 1, judged.second, root
    noisy, width = planted.spread(planted.roots.noisy), planted.trees.width[:, 0]
    rule = Rule(planted.settings, torch.from_numpy(noisy).to(device), torch.from_numpy(width).to(device))
    search = _Search(world, trees, store, root, rule, float(np.float32(options.discount)))
    search.run(simulations, planted.settings.max_depth)
    return planted.result(trees, root, search.judged)


class _Search:
    """A search under way."""

    def __init__(self, world: World, trees: Trees, store: Any, root: torch.Tensor, rule: Rule, discount: float) -> None:
        self.world, self.trees, self.store, self.root = world, trees, store, root
        self.rule, self.discount = rule, discount
        self.parked = taken(store, root), (trees.prior[root] > 0).int().argmax(1)  # a state and a move that are legal
        self.judged = torch.zeros_like(root)  # [B], states judged below each root
        self.problem = torch.zeros_like(root)  # [B], of the first wrong row below each root
        self.depth = torch.zeros((), dtype=torch.int64, device=root.device)  # of the deepest leaf

    def run(self, simulations: int, deepest: int) -> None:
        """Takes so many simulations from every root, none of them deeper than `deepest`."""
        self._decide(self.root[:, None], 0, deepest)
        known, at = 0, 0
        for done in range(simulations):
            if known + done - at < deepest and done - at > _UNREAD + known:
                known, at = self._read(), done
            self._simulate(done, min(deepest, known + done - at + 1), deepest)
        self._read()

    def _simulate(self, done: int, longest: int, deepest: int) -> None:
        trees, root, world = self.trees, self.root, self.world
        node, move = trees.leaf[root], trees.move[root]
        fresh = trees.child[node, move] < 0
        states, first = self.parked
        moved = world.step(taken(self.store, torch.where(fresh, node, root)), torch.where(fresh, move, first))
        if not done:
            self._check_steady(moved)
        judge = fresh & ~moved.ended
        found = world.expand(mixed(judge, moved.states, states), "below the roots")
        problem = torch.where(judge, found.problem, 0)
        problem = torch.where(fresh & (moved.problem > 0), moved.problem, problem)
        self.problem = torch.where(self.problem > 0, self.problem, problem)
        self.judged += judge
        new = root + done + 1
        keep(self.store, new, moved.states)
        prior = priors(found.logits, found.legal)
        told = Arrival(fresh, moved.reward, moved.ended, moved.second, found.value, prior)
        end = attach(trees, new, node, move, told, self.discount)
        self.depth = torch.maximum(self.depth, trees.depth[end].amax())
        self._decide(backup(trees, root, end, longest), done + 1, deepest)

    def _decide(self, way: torch.Tensor, done: int, deepest: int) -> None:
        """Lets the nodes on a way [B, D] choose anew."""
        chosen = self.rule.choose(self.trees.rows(way))
        if self.rule.halves:
            of_root = self.rule.choose_at_root(self.trees.rows(self.root), done)
            chosen = torch.where(way == self.root[:, None], of_root[:, None], chosen)
        repoint(self.trees, self.root, way, chosen, deepest)

    def _read(self) -> int:
        """Returns how deep leaves are; raises `ConfigError` for what was wrong on the way."""
        depth, *problem = torch.cat([self.depth[None], self.problem]).tolist()
        _raise_problem(np.array(problem), "a state below root")
        return int(depth)

    def _check_steady(self, moved: Any) -> None:
        first = Transition(moved.states, moved.reward, moved.ended)
        node, move = self.trees.leaf[self.root], self.trees.move[self.root]
        check_steady(self.world.simulator, taken(self.store, node), move, arrays_of(first))


def check_supported(simulator: Any, method: str, options: Options) -> None:
    """Raises `ConfigError` for what the tensors' search does not do."""
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is not made for backend='torch'; it offers {', '.join(METHODS)}")
    usual = Options()
    for name in ("max_backup", "leaves", "solve", "transpositions", "widen_factor"):
        if getattr(options, name) != getattr(usual, name):
            raise ConfigError(
                f"{name} is {getattr(options, name)!r}, which backend='torch' does not offer; leave it at "
                f"{getattr(usual, name)!r}, or leave out the backend"
            )
    if options.outcomes or hasattr(simulator, "outcomes"):
        raise ConfigError("chance decides the simulator's steps (`outcomes`), which backend='torch' does not offer")


def _raise_problem(problems: np.ndarray, what: str) -> None:
    wrong = np.flatnonzero(problems)
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(f"{what} {row} {_PROBLEMS[int(problems[row])]}")
