from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from treegym.agents.continual import METHODS, make_method
from treegym.agents.continual.base import Method, train_task
from treegym.agents.continual.ewc import EWC, fisher_information
from treegym.agents.continual.language import LanguageProblem, greedy_accuracy
from treegym.agents.continual.packnet import PackNet
from treegym.agents.continual.progressive import Progressive
from treegym.agents.continual.supsup import SupSup, TopScores
from treegym.agents.continual.synaptic import SynapticIntelligence
from treegym.errors import ConfigError

torch.set_num_threads(1)
EOS = 11


def _model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=12, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _examples(task: int) -> list[tuple[list[int], list[int]]]:
    """Task 0: say the digit again; task 1: say the next digit. The task is told by the first token."""
    return [([10, digit], [(digit + task) % 10, EOS]) for digit in range(10)]


def _prompt_of(task: int) -> list[tuple[list[int], list[int]]]:
    return [([10 if task == 0 else 9, digit], answer) for (_, digit), answer in _examples(task)]


def _output(network: nn.Module, task: int) -> torch.Tensor:
    with torch.no_grad():
        return network(input_ids=torch.tensor([prompt for prompt, _ in _prompt_of(task)]), use_cache=False).logits


def _learn(method: Method, task: int, steps: int = 80) -> list[float]:
    return train_task(method, LanguageProblem(), lambda _: _prompt_of(task), steps=steps, learning_rate=3e-3)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_a_task(name: str) -> None:
    method = make_method(name, _model(), **({"signed": True} if name == "supsup" else {}))
    losses = _learn(method, 0, steps=120)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "make", [lambda m: PackNet(m, prune=0.5), lambda m: SupSup(m, share=0.6), lambda m: Progressive(m, rank=4)]
)
def test_methods_that_forget_nothing_are_bit_equal_after_the_next_task(make: object) -> None:
    method = make(_model())  # type: ignore[operator]
    _learn(method, 0)
    with method.using(0) as network:
        before = _output(network, 0)
    losses = _learn(method, 1)
    assert losses[-1] < losses[0]
    with method.using(0) as network:
        assert torch.equal(_output(network, 0), before)
    with method.using(1) as network:
        assert not torch.equal(_output(network, 0), before)


def test_plain_fine_tuning_does_forget() -> None:
    """Otherwise the test above could not fail."""
    method = Method(_model())
    _learn(method, 0)
    before = _output(method.network, 0)
    _learn(method, 1)
    assert not torch.equal(_output(method.network, 0), before)


def test_ewc_is_zero_at_its_anchor_and_has_the_analytic_gradient() -> None:
    method = EWC(_model(), strength=7.0)
    _learn(method, 0, steps=5)
    penalty = method.penalty()
    assert penalty is not None
    assert float(penalty.detach()) == 0.0
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter += 0.1
    method.model.zero_grad()
    method.penalty().backward()  # type: ignore[union-attr]
    star, fisher = method.anchors[0]
    for name, parameter in method.model.named_parameters():
        # d/d theta of lambda/2 F (theta - theta*)^2 is lambda F (theta - theta*)
        torch.testing.assert_close(parameter.grad, 7.0 * fisher[name] * (parameter.detach() - star[name]))


class _Coin(nn.Module):
    """pi(1) = sigmoid(theta): its Fisher information is p (1 - p)."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))


class _CoinProblem:
    def loss(self, model: nn.Module, batch: Sequence[int]) -> torch.Tensor:
        return nn.functional.softplus(-model.theta)  # type: ignore[operator]

    def sampled_log_probs(self, model: _Coin, batch: Sequence[int], generator: torch.Generator) -> list[torch.Tensor]:
        p = torch.sigmoid(model.theta.detach())
        draws = torch.bernoulli(p.expand(len(batch)), generator=generator)
        return [nn.functional.logsigmoid(model.theta if draw else -model.theta) for draw in draws]


def test_fisher_information_of_a_coin() -> None:
    coin = _Coin(1.0)
    found = fisher_information(coin, _CoinProblem(), [range(4000)], torch.Generator().manual_seed(0))
    p = float(torch.sigmoid(torch.tensor(1.0)))
    assert float(found["theta"]) == pytest.approx(p * (1 - p), rel=0.05)


def test_synaptic_importance_of_a_straight_descent() -> None:
    """One weight, loss theta^2 / 2 from theta = 1: the work done is how far the loss fell."""

    class Bowl:
        def loss(self, model: _Coin, batch: object) -> torch.Tensor:
            return 0.5 * model.theta**2

    coin = _Coin(1.0)
    method = SynapticIntelligence(coin, damping=0.0)
    losses = train_task(method, Bowl(), lambda _: None, steps=400, learning_rate=1e-3, weight_decay=0.0)  # type: ignore[arg-type]
    moved = float(coin.theta.detach()) - 1.0
    fell = losses[0] - 0.5 * float(coin.theta.detach()) ** 2
    assert float(method.importance["theta"]) * moved**2 == pytest.approx(fell, rel=0.01)
    penalty = method.penalty()
    assert penalty is not None
    assert float(penalty.detach()) == 0.0


def test_packnet_owns_what_it_was_asked_to() -> None:
    method = PackNet(_model(), prune=0.75)
    _learn(method, 0, steps=5)
    for owner in method.owner.values():
        assert float((owner == 1).float().mean()) == pytest.approx(0.25, abs=0.01)
    for name, parameter in method.model.named_parameters():
        if name in method.owner:
            assert (parameter[method.owner[name] == 0] == 0).all()


def test_a_mask_keeps_the_top_scores_and_passes_gradients_on() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7], requires_grad=True)
    mask = TopScores.apply(scores, 0.5)
    assert mask.tolist() == [0.0, 1.0, 0.0, 1.0]
    (mask * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("freeze_trunk", [True, False])
def test_new_experts_leave_old_ones_alone(freeze_trunk: bool) -> None:
    method = make_method("experts", _model(), experts=1, top_k=1, freeze_trunk=freeze_trunk)
    _learn(method, 0, steps=10)
    old = copy.deepcopy(method.model.state_dict())
    _learn(method, 1, steps=10)
    assert len(method.mixtures[0].experts) == len(method.mixtures[0].router) == 2
    moved = [
        name for name, value in method.model.state_dict().items() if name in old and not torch.equal(value, old[name])
    ]
    guarded = [name for name in old if ".experts.0." in name or ".router.0" in name]
    assert guarded
    assert not set(moved) & set(guarded)
    assert bool(moved) is not freeze_trunk  # the trunk moves unless it is frozen
    assert float(method.extra_loss().detach()) >= 0.0


def test_replay_keeps_old_examples_coming() -> None:
    method = make_method("replay", _model(), share=1.0)
    _learn(method, 0, steps=2)
    method.begin()
    mixed = method.batch(_prompt_of(1))
    assert len(mixed) == 20
    assert all(example in _prompt_of(0) for example in mixed[10:])


def test_greedy_accuracy_counts_right_endings() -> None:
    method = Method(_model())
    _learn(method, 0, steps=200)
    examples = _prompt_of(0)
    accuracy = greedy_accuracy(
        method.network, [p for p, _ in examples], lambda i, tokens: tokens == examples[i][1][:-1], eos_id=EOS,
        max_new_tokens=4,
    )  # fmt: skip
    assert accuracy == 1.0
    assert greedy_accuracy(_model(3), [p for p, _ in examples], lambda i, t: t == [5], eos_id=EOS) < 0.5


def test_unknown_names_are_suggested() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'packnet'"):
        make_method("pacnet", _model())


@pytest.mark.parametrize("name", ["fine_tuning", "packnet", "supsup", "progressive", "experts"])
def test_a_task_that_was_never_learned_is_refused(name: str) -> None:
    method = make_method(name, _model())
    _learn(method, 0)
    for task in (1, -1):
        with pytest.raises(ConfigError, match=f"task {task} was never learned"), method.using(task):
            pass


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ewc", {"foo": 1}, "ewc has no setting 'foo'; it has strength, seed"),
        ("ewc", {"strength": -1.0}, "strength is -1.0"),
        ("si", {"strength": float("nan")}, "strength is nan"),
        ("fine_tuning", {"strength": 1.0}, "it has none"),
    ],
)
def test_settings_that_a_method_cannot_use_are_named(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_method(name, _model(), **settings)
