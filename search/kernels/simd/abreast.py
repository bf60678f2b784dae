"""Whole searches inside one kernel, eight abreast: each stands at a node of its own, and all choose a child at once.

For narrow nodes, where choosing for eight takes little longer than for one. When a search comes to the end of its way,
its leaf is evaluated and backed up alone, while the others stay where they are; then all choose again.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from treegym.search.kernels.batch import root_of, tree_of, with_size
from treegym.search.kernels.codes import HALVING_OVER, MODE_PLAIN, NOTHING_WRONG, RULE_PUCT
from treegym.search.kernels.numeric import POSITIVE, inlined, kernel
from treegym.search.kernels.rules import considered_next
from treegym.search.kernels.simd import narrow
from treegym.search.kernels.simd.narrow import Asked
from treegym.search.kernels.simd.rows import WIDE, put
from treegym.search.kernels.summary import perturb_one, summarise_one
from treegym.search.kernels.walk import backup
from treegym.search.kernels.worlds import begin, grow
from treegym.search.tree import Nodes

__all__ = ["Flight", "new_flight", "search_abreast"]


class Flight(NamedTuple):
    """Where the eight searches stand. Their nodes are numbered through: those of the second tree follow the first's."""

    nodes: Nodes  # the scratch trees as one, [8 N, W]
    place: np.ndarray  # [8 N] or [8 N, D]
    search: np.ndarray  # [8] int64, row of the batch, -1 where there is none left
    node: np.ndarray  # [8] int64
    depth: np.ndarray  # [8] int64
    slot: np.ndarray  # [8] int32, the child that was chosen
    asked: Asked


def new_flight(desk: Any) -> Flight:
    """Returns a flight for the scratch arrays of eight searches."""

    def through(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, *array.shape[2:])

    def zeros(kind: type, count: int = WIDE) -> np.ndarray:
        return np.zeros(count, kind)

    return Flight(
        nodes=Nodes(*map(through, desk.trees)),
        place=through(desk.place),
        search=zeros(np.int64),
        node=zeros(np.int64),
        depth=zeros(np.int64),
        slot=zeros(np.int32),
        asked=Asked(
            offset=zeros(np.int64),
            width=zeros(np.float32),
            value=zeros(np.float32),
            explore=zeros(np.float32),
            considered=zeros(np.float32),
            noisy=zeros(np.float32, WIDE * WIDE),
        ),
    )


@inlined
def _stand(rule, settings, flight, lane, node):
    """Notes that a search stands at `node`, and what the rule asks of it."""
    asked, nodes = flight.asked, flight.nodes
    flight.node[lane] = node
    asked.offset[lane] = node * nodes.prior.shape[1]
    asked.width[lane] = np.float32(nodes.width[node])
    if rule == RULE_PUCT:
        asked.value[lane] = nodes.value[node]
        asked.explore[lane] = settings.explore[min(np.int64(nodes.seen[node]) & POSITIVE, len(settings.explore) - 1)]
    else:
        asked.value[lane] = nodes.raw[node]
        asked.considered[lane] = np.float32(HALVING_OVER)


@inlined
def _stand_at_root(rule, settings, flight, lane, root, done):
    """Notes that a search stands at its root, with so many simulations done."""
    flight.depth[lane] = 0
    _stand(rule, settings, flight, lane, root)
    if rule != RULE_PUCT:
        width = np.int64(flight.nodes.width[root]) & POSITIVE
        flight.asked.considered[lane] = np.float32(considered_next(width, settings, done))


@inlined
def _start(rule, desk, flight, world, starts, streams, settings, noise, lane, b, out, problems):
    """Begins search b in a lane, if it can begin."""
    tree, root = tree_of(desk.trees, lane), root_of(desk.roots, lane)
    tree.size[0] = 0
    root.stream[0] = streams[b]
    problems[b] = begin(MODE_PLAIN, tree, desk.place[lane], desk.told, world, starts, b)
    if problems[b] != NOTHING_WRONG:
        return
    gammas = noise.gammas[min(b, len(noise.gammas) - 1)]
    perturb_one(tree, root, settings.seed, noise.share, noise.gumbel, gammas)
    for k in range(tree.width[0]):
        flight.asked.noisy[k * WIDE + lane] = root.noisy[k]
    first = lane * desk.trees.prior.shape[1]
    tree.size[0] = first + 1  # from here on nodes are numbered through
    out.evaluations[b] = 0
    flight.search[lane] = b
    _stand_at_root(rule, settings, flight, lane, first, 0)


@functools.cache
def search_abreast(rule: int) -> Any:
    """Returns the kernel for PUCT or Gumbel with the usual settings; arguments as of `whole.search_roots`."""

    @kernel
    def search_abreast_kernel(desk, flight, world, starts, streams, settings, simulations, noise, out, problems):
        nodes, apart = flight.nodes, desk.trees.prior.shape[1]
        begun, busy = 0, 0
        for lane in range(WIDE):
            flight.search[lane] = -1
            flight.asked.offset[lane] = 0
        while True:
            for lane in range(WIDE):
                while flight.search[lane] < 0 and begun < len(streams):
                    _start(rule, desk, flight, world, starts, streams, settings, noise, lane, begun, out, problems)
                    begun += 1
                    busy += flight.search[lane] >= 0
            if busy == 0:
                break
            waiting = busy if begun < len(streams) else 1  # a lane that falls free is filled at once
            while busy >= waiting:
                if rule == RULE_PUCT:
                    put(flight.slot, narrow.puct(nodes, flight.asked))
                else:
                    put(flight.slot, narrow.gumbel(nodes, settings, flight.asked))
                for lane in range(WIDE):
                    b = flight.search[lane]
                    if b < 0:
                        continue
                    node, slot = flight.node[lane] & POSITIVE, np.int64(flight.slot[lane]) & POSITIVE
                    depth = flight.depth[lane] & POSITIVE
                    path_node, path_slot = desk.path_node[lane], desk.path_slot[lane]
                    path_node[depth], path_slot[depth] = node, slot
                    child = np.int64(nodes.child[node, slot])
                    if child >= 0 and nodes.status[child & POSITIVE] == 0:
                        flight.depth[lane] = depth + 1
                        _stand(rule, settings, flight, lane, child & POSITIVE)
                        continue
                    if child < 0:
                        tree = with_size(nodes, desk.trees.size[lane])
                        child = np.int64(tree.size[0])
                        problem, cost = grow(MODE_PLAIN, tree, flight.place, desk.told, world, node, slot)
                        out.evaluations[b] += cost
                        if problem != NOTHING_WRONG:
                            problems[b] = problem
                            flight.search[lane] = -1
                            busy -= 1
                            continue
                    backup(True, nodes, settings, path_node, path_slot, depth + 1, nodes.value[child & POSITIVE])
                    done = np.int64(desk.roots.done[lane, 0]) + 1
                    desk.roots.done[lane, 0] = done
                    if done < simulations:
                        _stand_at_root(rule, settings, flight, lane, lane * apart, done)
                        continue
                    tree, root = tree_of(desk.trees, lane), root_of(desk.roots, lane)
                    summarise_one(tree, root, settings, noise.temperature, desk.scores, out, b)
                    flight.search[lane] = -1
                    busy -= 1

    return search_abreast_kernel
