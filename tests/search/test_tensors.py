"""Trees of tensors: what the kernels find, to the visit, without reading anything back on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Transition, search

torch = pytest.importorskip("torch")
from torch.overrides import TorchFunctionMode  # noqa: E402

KINDS = ("normal", "uniform", "sparse", "constant")


class Tables:
    """A world of tables, NumPy's or torch's; a state is a number, or a dict with a copy of it in another dtype."""

    def __init__(self, tables: dict[str, np.ndarray], *, tensors: bool, dtype: Any = None, players: int = 1) -> None:
        self.tables: dict[str, Any] = dict(tables)
        if tensors:
            self.tables = {name: torch.from_numpy(table) for name, table in tables.items()}
            for name in ("logits", "value", "reward"):
                self.tables[name] = self.tables[name].to(dtype or torch.float32)
        self.num_actions, self.players = tables["logits"].shape[1], players

    def turn(self, states: Any) -> Any:
        return self.tables["turn"][states] if self.players == 2 else None

    def expand(self, states: Any) -> Any:
        at = states["at"] if isinstance(states, dict) else states
        assert not self.tables["terminal"][at].any(), "a terminal state was sent to the evaluator"
        given = (self.tables[name][at] for name in ("logits", "value", "legal"))
        return Evaluation(*given, self.turn(at))

    def step(self, states: Any, actions: Any) -> Any:
        at = states["at"] if isinstance(states, dict) else states
        assert not self.tables["terminal"][at].any(), "a terminal state was stepped"
        assert self.tables["legal"][at, actions].all(), "an illegal action was taken"
        after = self.tables["after"][at, actions]
        reward, ended = self.tables["reward"][at, actions], self.tables["terminal"][after]
        if isinstance(states, dict):
            return Transition({"at": after, "as float": after.float()}, reward, ended, self.turn(after))
        return Transition(after, reward, ended, self.turn(after))


def tables(kind: str, seed: int, *, actions: int | None = None) -> dict[str, np.ndarray]:
    """Random tables, halves and quarters only in half of the kinds, so that bfloat16 holds them exactly."""
    rng = np.random.default_rng(seed)
    shape = (200, int(rng.integers(1, 13)) if actions is None else actions)
    legal = rng.random(shape) < rng.choice([0.5, 0.8, 1.0])
    legal[np.arange(200), rng.integers(0, shape[1], 200)] = True
    made = {
        "logits": rng.normal(size=shape).astype(np.float32) if kind != "uniform" else np.zeros(shape, np.float32),
        "value": rng.normal(size=200).astype(np.float32),
        "reward": rng.normal(size=shape).astype(np.float32),
        "after": rng.integers(0, 200, shape),
        "terminal": rng.random(200) < 0.1,
        "turn": rng.integers(0, 2, 200),
        "legal": legal,
    }
    if kind == "sparse":
        made |= {"reward": (rng.random(shape) < 0.1).astype(np.float32), "value": np.zeros(200, np.float32)}
    if kind == "constant":
        made |= {"reward": np.zeros(shape, np.float32), "value": np.full(200, 0.3, np.float32)}
    return made


def both(made: dict[str, np.ndarray], roots: np.ndarray, *, dtype: Any = None, **options: Any) -> tuple[Any, Any]:
    players = options.get("players", 1)
    kernels = search(Tables(made, tensors=False, players=players), roots, **options)
    world = Tables(made, tensors=True, dtype=dtype, players=players)
    return kernels, search(world, torch.from_numpy(roots), backend="torch", **options)


def assert_equal(kernels: Any, tensors: Any) -> None:
    np.testing.assert_array_equal(tensors.visits, kernels.visits)
    np.testing.assert_array_equal(tensors.action, kernels.action)
    assert tensors.simulations == kernels.simulations
    for name in ("policy", "q", "value"):
        np.testing.assert_allclose(getattr(tensors, name), getattr(kernels, name), rtol=1e-5, atol=1e-5)


def drawn(rng: np.random.Generator, method: str) -> dict[str, Any]:
    """Settings by chance."""
    options: dict[str, Any] = {
        "num_simulations": int(rng.integers(1, 80)),
        "discount": float(rng.choice([1.0, 0.97, 0.5, 0.0, -1.0])),
        "normalise": bool(rng.random() < 0.8),
        "max_depth": None if rng.random() < 0.7 else int(rng.integers(1, 6)),
        "players": int(rng.integers(1, 3)),
        "seed": int(rng.integers(0, 1000)),
    }
    if method == "puct":
        options |= {"first_play": rng.choice(["min", "parent"]), "root_noise": float(rng.choice([0.0, 0.25]))}
        options["temperature"] = float(rng.choice([0.0, 1.0]))
    if method == "gumbel":
        options |= {"max_considered": int(rng.integers(1, 9)), "gumbel_scale": float(rng.choice([0.0, 1.0]))}
    return options


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["puct", "gumbel", "uct"])
def test_visits_equal_those_of_the_kernels(method: str, kind: str) -> None:
    for seed in range(12):
        rng = np.random.default_rng((seed, len(method), len(kind)))
        made = tables(kind, seed)
        roots = rng.choice(np.flatnonzero(~made["terminal"]), int(rng.integers(1, 17)))
        assert_equal(*both(made, roots, method=method, **drawn(rng, method)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_numbers_may_come_in_other_dtypes(dtype: str) -> None:
    made = tables("normal", 3, actions=6)
    for name in ("logits", "value", "reward"):  # as many bits as bfloat16 holds, so that nothing is lost
        made[name] = torch.from_numpy(made[name]).to(torch.bfloat16).float().numpy()
    roots = np.flatnonzero(~made["terminal"])[:5]
    kind = getattr(torch, dtype)
    assert_equal(*both(made, roots, dtype=kind, method="gumbel", num_simulations=50, discount=0.9))


def test_more_children_than_one_vector_holds() -> None:
    for method in ("puct", "gumbel", "uct"):
        made = tables("uniform", 5, actions=37)
        roots = np.flatnonzero(~made["terminal"])[:6]
        assert_equal(*both(made, roots, method=method, num_simulations=120, discount=0.97))


def test_a_batch_may_be_split_and_gives_the_same_twice() -> None:
    made = tables("normal", 8, actions=5)
    roots = np.flatnonzero(~made["terminal"])[:6]
    world = Tables(made, tensors=True)

    def plan(rows: slice) -> Any:
        names = np.arange(6)[rows]
        given = torch.from_numpy(roots[rows])
        return search(world, given, method="gumbel", num_simulations=40, seed=5, root_ids=names, backend="torch")

    whole, again = plan(slice(None)), plan(slice(None))
    for name in ("action", "policy", "visits", "q", "value"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))
    parts = [plan(slice(0, 2)), plan(slice(2, 6))]
    np.testing.assert_array_equal(whole.visits, np.concatenate([part.visits for part in parts]))
    np.testing.assert_array_equal(whole.value, np.concatenate([part.value for part in parts]))


def test_states_may_be_a_dict_of_tensors() -> None:
    made = tables("sparse", 2, actions=4)
    roots = np.flatnonzero(~made["terminal"])[:3]
    world = Tables(made, tensors=True)
    at = torch.from_numpy(roots)
    plain = search(world, at, method="puct", num_simulations=30, backend="torch")
    found = search(world, {"at": at, "as float": at.float()}, method="puct", num_simulations=30, backend="torch")
    np.testing.assert_array_equal(found.visits, plain.visits)


READS = {"item", "tolist", "numpy", "cpu", "to", "__bool__", "__int__", "__index__", "__float__", "__array__", "equal"}
SHAPES = {"nonzero", "masked_select", "unique"}  # shapes that follow from what is in a tensor


class Reads(TorchFunctionMode):
    """Notes what would make a processor wait for a device: numbers read, shapes that depend on them, copies."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        index = args[1] if name in ("__getitem__", "__setitem__") else None
        parts = index if isinstance(index, tuple) else (index,)
        masks = any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)
        if masks or name in READS | SHAPES:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


class Endless:
    """A world without terminals that leads ever deeper; nothing in it reads a tensor."""

    num_actions = 3

    def expand(self, states: Any) -> Any:
        logits = torch.stack([states.sin(), states.cos(), (2 * states).sin()], 1)
        return Evaluation(logits, states.cos(), torch.ones_like(logits, dtype=torch.bool))

    def step(self, states: Any, actions: Any) -> Any:
        after = (states * 1.7 + actions).remainder(6.0)
        return Transition(after, after * 0.01, torch.zeros_like(after, dtype=torch.bool))


def reads(simulations: int, **options: Any) -> list[str]:
    counted = Reads()
    roots = torch.linspace(0.0, 5.0, 4)
    search(Endless(), roots, method="puct", num_simulations=simulations, backend="torch", **options)
    with counted:
        search(Endless(), roots, method="puct", num_simulations=simulations, backend="torch", **options)
    return counted.seen


def test_nothing_is_read_back_from_simulation_to_simulation() -> None:
    # with a limit of 6 levels nothing is read on the way: as much for 10 simulations as for 100
    assert reads(10, max_depth=6) == reads(100, max_depth=6)
    # without one, how deep leaves are is read after 9 simulations, and again after as many more and that depth:
    # of 100, at least twice, and at most 100 // 9 = 11 times
    assert 2 <= len(reads(100)) - len(reads(1)) <= 11


def test_counting_reads_can_fail() -> None:
    tensor = torch.arange(3)
    with Reads() as counted:
        tensor.max().item()
        tensor[tensor > 1]
        tensor.tolist()
        assert tensor[1] > 0
    assert counted.seen == ["item", "__getitem__", "tolist", "__bool__"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ments"}, "offers puct, gumbel, uct"),
        ({"method": "puct", "solve": True}, "solve is True, which backend='torch' does not offer"),
        ({"method": "puct", "leaves": 4}, "leaves is 4"),
        ({"method": "uct", "max_backup": True}, "max_backup is True"),
        ({"method": "uct", "transpositions": True}, "transpositions is True"),
        ({"method": "puct", "widen_factor": 1.0}, "widen_factor is 1.0"),
        ({"method": "puct", "answers": 1}, "answers is 1"),
        ({"method": "puct", "seconds": 1.0}, "seconds is 1.0"),
        ({"method": "puct", "num_threads": 2}, "num_threads is 2"),
        ({"method": "puct", "backend": "cuda"}, "backend is 'cuda'; it must be one of kernels, torch"),
    ],
)
def test_what_is_not_offered_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Endless(), torch.zeros(2), **{"num_simulations": 4, "backend": "torch", **options})


def broken(name: str, **changes: Any) -> Any:
    """The endless world with some of its answers changed; ``name`` says whose."""

    class Broken(Endless):
        def expand(self, states: Any) -> Any:
            given = super().expand(states)
            return (
                given._replace(**{k: f(v, states) for k, v, f in self._changed(given)}) if name == "expand" else given
            )

        def step(self, states: Any, actions: Any) -> Any:
            given = super().step(states, actions)
            return given._replace(**{k: f(v, states) for k, v, f in self._changed(given)}) if name == "step" else given

        def _changed(self, given: Any) -> Any:
            return [(key, getattr(given, key), change) for key, change in changes.items()]

    return Broken()


def below(value: Any) -> Any:
    """Changes the second row below the roots, which are whole numbers."""
    return lambda given, states: torch.where(
        ((states != states.round()) & (torch.arange(2) == 1)).reshape(2, *[1] * (given.ndim - 1)), value, given
    )


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (
            broken("expand", prior_logits=below(torch.nan)),
            r"a state below root 1 has a prior logit that is NaN or \+inf",
        ),
        (broken("expand", prior_logits=below(-torch.inf)), "a state below root 1 has prior logits of -inf for all"),
        (broken("expand", legal=below(False)), "a state below root 1 has no legal action"),
        (broken("expand", value=below(torch.nan)), "a state below root 1 has a reward or value that is not finite"),
        (
            broken("step", reward=lambda r, s: r + torch.tensor([0.0, torch.inf])),
            "a state below root 1 has a reward or",
        ),
        (broken("expand", legal=lambda legal, s: legal & (s != 1)[:, None]), "root 0 has no legal action"),
        (broken("expand", value=lambda v, s: v[:, None]), r"the simulator's value has shape \(2, 1\); expected \(2,\)"),
        (
            broken("expand", value=lambda v, s: v.numpy()),
            "value is a ndarray; backend='torch' plans with tensors alone",
        ),
        (broken("expand", value=lambda v, s: v.to("meta")), "value is on meta, the states are on cpu"),
        (broken("step", states=lambda after, s: after[:, None]), r"float32 of shape \(2, 1\).*the roots' are.*\(2,\)"),
        (broken("step", states=lambda after, s: after.double()), "the simulator's states are torch.float64"),
        (broken("step", states=lambda after, s: (after,)), "of another form than the roots'"),
        (broken("step", states=lambda after, s: torch.rand(2)), "stepped twice from the same state"),
    ],
)
def test_bad_input_is_told_with_the_array_and_the_row(world: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(world, torch.tensor([1.0, 2.0]), method="gumbel", num_simulations=12, backend="torch")


def test_whose_turn_it_is_must_be_told_and_be_0_or_1() -> None:
    made = tables("normal", 1, actions=3)
    roots = torch.from_numpy(np.flatnonzero(~made["terminal"])[:2])
    with pytest.raises(ConfigError, match="does not say whose turn it is"):
        search(Endless(), torch.zeros(2), method="puct", num_simulations=4, players=2, backend="torch")
    made["turn"][:] = 2
    with pytest.raises(ConfigError, match="root 0 has a to_play that is neither 0 nor 1"):
        search(
            Tables(made, tensors=True, players=2), roots, method="puct", num_simulations=4, players=2, backend="torch"
        )


@pytest.mark.parametrize("states", [np.zeros(2), ["a", "b"], torch.zeros(()), torch.zeros(0)])
def test_states_that_are_no_tensors_are_told(states: Any) -> None:
    with pytest.raises(ConfigError, match="backend='torch' keeps tensors of at least one row"):
        search(Endless(), states, method="puct", num_simulations=4, backend="torch")


def test_histories_are_not_kept() -> None:
    class Learning(Endless):
        weight = torch.ones((), requires_grad=True)

        def step(self, states: Any, actions: Any) -> Any:
            with torch.enable_grad():
                moved = super().step(states * self.weight, actions)
            return moved

    found = search(Learning(), torch.zeros(2), method="puct", num_simulations=8, backend="torch")
    assert found.visits.sum(1).tolist() == [8, 8]
