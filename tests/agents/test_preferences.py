from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from treegym.agents.preference_settings import PreferenceSettings
from treegym.agents.preferences import LOSSES, Compared, preference_loss
from treegym.errors import ConfigError
from treegym.iterate.pairs import Pair
from treegym.iterate.prefer import Preferrer
from treegym.models import load_model

ROOT = Path(__file__).parents[2]
TRL = ROOT / ".venvs" / "trl" / "bin" / "python"


def compared(**changes: Any) -> Compared:
    """Two pairs: log-probabilities -2 and -6 of preferred answers, -5 and -4 of the others; all -4 by the reference."""
    told: dict[str, Any] = {
        "chosen": [-2.0, -6.0], "rejected": [-5.0, -4.0], "reference_chosen": [-4.0, -4.0],
        "reference_rejected": [-4.0, -4.0], "chosen_length": [2.0, 3.0], "rejected_length": [5.0, 1.0],
        "weight": [1.0, 1.0], **changes,
    }  # fmt: skip
    return Compared(**{name: torch.tensor(values, dtype=torch.float64) for name, values in told.items()})


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_dpo_worked_by_hand() -> None:
    # delta: (-2 + 4) - (-5 + 4) = 3 and (-6 + 4) - (-4 + 4) = -2; -log sigmoid(x) = log(1 + e^-x)
    found = LOSSES["dpo"](compared(), beta=0.5)
    assert found.tolist() == pytest.approx([softplus(-1.5), softplus(1.0)], abs=1e-12)
    assert LOSSES["dpo"](compared(), beta=0.5, margin=0.5).tolist() == pytest.approx([softplus(-1.0), softplus(1.5)])


def test_ipo_worked_by_hand() -> None:
    # means: 2 / 2 - (-1) / 5 = 1.2 and -2 / 3 - 0 / 1 = -2/3; target 1 / (2 * 0.5) = 1
    found = LOSSES["ipo"](compared(), beta=0.5)
    assert found.tolist() == pytest.approx([0.2**2, (5 / 3) ** 2], abs=1e-12)


def test_simpo_worked_by_hand() -> None:
    # means: -2 / 2 + 5 / 5 = 0 and -6 / 3 + 4 / 1 = 2; times 2, less 0.5
    found = LOSSES["simpo"](compared(), beta=2.0, margin=0.5)
    assert found.tolist() == pytest.approx([softplus(0.5), softplus(-3.5)], abs=1e-12)


def test_pairs_count_by_their_weight_and_preferred_answers_stay_likely() -> None:
    # (3 * log(1 + e^-1.5) + log(1 + e)) / 4; likelihood: (3 * 2 + 6) over (3 * 2 + 3) tokens, a tenth of it
    loss, figures = preference_loss(compared(weight=[3.0, 1.0]), "dpo", beta=0.5, nll_coef=0.1)
    assert float(loss) == pytest.approx((3 * softplus(-1.5) + softplus(1.0)) / 4 + 0.1 * 12 / 9, abs=1e-12)
    # the first is ahead (2 against -1), the second is not (-2 against 0)
    assert figures == pytest.approx({"loss": float(loss), "chosen": 0.0, "rejected": -0.5, "ahead": 0.5})


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_learning_raises_what_is_preferred_above_the_other(loss: str) -> None:
    model = load_model("tiny-primary")
    network = model.model.requires_grad_(True)
    context = model.tokenizer.encode("1+2+3=")
    pairs = [Pair(context, model.tokenizer.encode("6"), model.tokenizer.encode("37"), 1.0)]
    learner = Preferrer(network, PreferenceSettings.of(loss, {"n_epochs": 30, "learning_rate": 1e-3}))
    start = learner.compare(pairs)
    learner.learn(pairs)
    after = learner.compare(pairs)
    assert (after.chosen - after.rejected - start.chosen + start.rejected).item() > 1.0
    assert torch.equal(after.reference_chosen, start.reference_chosen)  # the reference stays where learning began
    assert learner.updates == 30


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0; it must be above 0"),
        ({"samples": 1}, "samples is 1; it must be a whole number of at least 2"),
        ({"pairs": "cousins"}, "is 'cousins'; it must be one of answers, siblings"),
        ({"betta": 0.1}, "dpo has no switch 'betta'. Did you mean 'beta'"),
        ({"loss": "ipo"}, "dpo has no switch 'loss'"),
    ],
)
def test_switches_that_cannot_be_are_refused(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PreferenceSettings.of("dpo", switches)


@pytest.mark.peers
def test_losses_are_those_of_trl_on_the_same_batch(tmp_path: Path) -> None:
    if not TRL.is_file():
        pytest.skip("TRL is not installed: make .venvs/trl/.done")
    torch.manual_seed(0)
    reference = load_model("tiny-primary").model.double()
    policy = load_model("tiny-primary").model.double()
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.01 * torch.randn_like(weight)
    policy.save_pretrained(tmp_path / "policy")
    reference.save_pretrained(tmp_path / "reference")
    rng = torch.Generator().manual_seed(1)

    def some(count: int) -> list[int]:
        return torch.randint(2, 15, (count,), generator=rng).tolist()

    pairs = [(some(3 + n), some(1 + n), some(6 - n)) for n in range(5)]
    job = {"policy": str(tmp_path / "policy"), "reference": str(tmp_path / "reference"), "beta": 0.7, "margin": 0.4,
           "folder": str(tmp_path / "out"), "pairs": pairs}  # fmt: skip
    made = subprocess.run(
        [TRL, str(Path(__file__).with_name("trl_preferences.py"))], input=json.dumps(job), capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    theirs = json.loads(made.stdout)
    learner = Preferrer(policy.requires_grad_(True), PreferenceSettings.of("dpo", {}))
    learner._reference = reference
    ours = learner.compare([Pair(*pair) for pair in pairs])
    for loss in LOSSES:  # TRL's heads are float32 even where the model is not, which leaves some 1e-7
        found = preference_loss(ours, loss, beta=0.7, margin=0.4 if loss == "simpo" else 0.0)[0]
        assert found.item() == pytest.approx(theirs[loss], abs=1e-6), loss
