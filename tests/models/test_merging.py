from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from treegym.__main__ import main
from treegym.errors import ConfigError, DataError
from treegym.models import load_model
from treegym.models.local.saving import save_model
from treegym.models.merging import MergeSettings, merge, slerp

torch.set_num_threads(1)
NORM = "model.norm.weight"  # 64 numbers


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model = load_model("tiny-primary", dtype="float32")
    save_model(model.model, model.tokenizer, tmp_path / "base")
    return tmp_path / "base"


def expert(base: Path, name: str, added: list[float]) -> str:
    """Returns the base with numbers added to the first ones of one tensor."""
    folder = base.with_name(name)
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[NORM][: len(added)] += torch.tensor(added)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def learned(base: Path, merged: Path) -> list[float]:
    """Returns what a merge added to the first three numbers; nothing else may have changed."""
    before, after = (load_file(folder / "model.safetensors") for folder in (base, merged))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if name != NORM)
    difference = after[NORM] - before[NORM]
    assert not difference[3:].any()
    return difference[:3].tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # (4 - 2, -1 - 3, 2 + 1) halved
        (MergeSettings("task_arithmetic", scale=0.5), [1.0, -2.0, 1.5]),
        # signs by sum: +, -, +; so 4 alone, the mean of -1 and -3, the mean of 2 and 1
        (MergeSettings("ties", scale=1.0, density=1.0), [4.0, -2.0, 1.5]),
        # the two largest of each are kept: 4, 2 and -2, -3; signs +, -, +; so 4 alone, -3 alone, 2 alone
        (MergeSettings("ties", scale=1.0, density=2 / 64), [4.0, -3.0, 2.0]),
        (MergeSettings("dare", scale=1.0, density=1.0), [2.0, -4.0, 3.0]),  # nothing is dropped
    ],
)
def test_merges_worked_by_hand(base: Path, settings: MergeSettings, expected: list[float]) -> None:
    pytest.importorskip("peft")
    parts = [expert(base, "a", [4.0, -1.0, 2.0]), expert(base, "b", [-2.0, -3.0, 1.0])]
    merged = merge(parts, base.with_name("out"), base=str(base), settings=settings)
    assert learned(base, merged) == pytest.approx(expected, abs=1e-5)
    assert load_model(str(merged)).tokenizer.pieces() == load_model("tiny-primary").tokenizer.pieces()


def test_dare_drops_by_its_seed_alone_and_makes_up_for_it(base: Path) -> None:
    parts = [expert(base, "a", [4.0, -1.0, 2.0]), expert(base, "b", [0.0, 0.0, 0.0])]
    found = []
    for seed in range(12):
        merged = merge(
            parts,
            base.with_name("out"),
            base=str(base),
            settings=MergeSettings("dare", scale=1.0, density=0.5, seed=seed),
        )
        found.append(learned(base, merged))
    for row in found:  # kept numbers are doubled, half of them being dropped
        assert all(min(abs(got), abs(got - 2 * was)) < 1e-5 for got, was in zip(row, [4.0, -1.0, 2.0], strict=True))
    assert len({tuple(row) for row in found}) > 1
    again = merge(
        parts, base.with_name("out"), base=str(base), settings=MergeSettings("dare", scale=1.0, density=0.5, seed=11)
    )
    assert learned(base, again) == found[-1]


def test_slerp_worked_by_hand() -> None:
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    # a third of the quarter circle is 30 degrees
    assert slerp(x, y, 1 / 3).tolist() == pytest.approx([math.cos(math.pi / 6), 0.5], abs=1e-6)
    assert slerp(x, 3 * x, 0.5).tolist() == pytest.approx([2.0, 0.0])  # the same way: the line
    assert slerp(x, torch.zeros(2), 0.25).tolist() == pytest.approx([0.75, 0.0])


def test_slerp_needs_no_base_and_begins_with_the_first_model(base: Path) -> None:
    parts = [expert(base, "a", [0.5]), expert(base, "b", [-0.5])]
    merged = merge(parts, base.with_name("out"), settings=MergeSettings("slerp", at=0.0))
    found, first = (load_file(Path(folder) / "model.safetensors") for folder in (merged, parts[0]))
    assert all(torch.allclose(found[name], first[name], atol=1e-6) for name in first)


def test_adapters_add_the_product_of_their_matrices(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from treegym.agents.policies.lm_parts import save_adapters, with_adapters

    adapted = with_adapters(load_model(str(base), dtype="float32").model, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.1)
    save_adapters(adapted, tmp_path / "adapters")
    twice = [str(tmp_path / "adapters")] * 2
    merged = merge(twice, tmp_path / "out", base=str(base), settings=MergeSettings("task_arithmetic", scale=0.5))
    joined = adapted.merge_and_unload().state_dict()
    found = load_file(merged / "model.safetensors")
    assert all(torch.allclose(found[name], joined[name], atol=1e-5) for name in found)
    assert any(not torch.allclose(found[name], load_file(base / "model.safetensors")[name]) for name in found)
    told = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    (tmp_path / "adapters" / "adapter_config.json").write_text(json.dumps({**told, "use_dora": True}))
    with pytest.raises(DataError, match="use_dora is True; only plain low-rank adapters are merged"):
        merge(twice, tmp_path / "out", base=str(base))


def test_models_that_are_no_trainings_of_one_are_refused_by_name(base: Path) -> None:
    out = base.with_name("out")
    with pytest.raises(DataError, match=r"tiny-llama cannot be merged with .*base: model\.embed_tokens\.weight is"):
        merge([str(base), "tiny-llama"], out, base=str(base))
    other = Path(expert(base, "b", [1.0]))
    told = json.loads((other / "tokenizer.json").read_text())
    told["tokens"][2], told["tokens"][3] = told["tokens"][3], told["tokens"][2]
    (other / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="vocabularies differ"):
        merge([str(base), str(other)], out, base=str(base))
    assert not out.exists()


def test_a_merge_that_fails_leaves_what_was_there(base: Path, tmp_path: Path) -> None:
    good = expert(base, "a", [1.0])
    out = merge([good, good], tmp_path / "out", base=str(base), settings=MergeSettings("task_arithmetic"))
    before = (out / "model.safetensors").read_bytes()
    broken = Path(expert(base, "b", [math.nan]))
    with pytest.raises(DataError, match=r"model\.norm\.weight: merged, it holds NaN or infinity; nothing was written"):
        merge([good, str(broken)], out, base=str(base), settings=MergeSettings("task_arithmetic"))
    raw = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"b/model\.safetensors: damaged weights"):
        merge([good, str(broken)], out, base=str(base))
    assert (out / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".out*"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="holds no model"):
        merge([good, good], tmp_path / "mine", base=str(base), settings=MergeSettings("task_arithmetic"))


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    two = ["tiny-primary", "tiny-primary"]
    with pytest.raises(ConfigError, match=r"ties adds what the experts learned .* name it \(base\)"):
        merge(two, tmp_path / "out")
    with pytest.raises(ConfigError, match="slerp goes from one model to another, and 3 came"):
        merge([*two, two[0]], tmp_path / "out", settings=MergeSettings("slerp"))
    with pytest.raises(ConfigError, match="1 model came; at least two"):
        merge(two[:1], tmp_path / "out", base=two[0])
    with pytest.raises(ConfigError, match="method is 'tie'"):
        MergeSettings("tie")
    with pytest.raises(ConfigError, match=r"density is 0\.0; it must be above 0"):
        MergeSettings(density=0.0)
    with pytest.raises(DataError, match="only models on this machine are merged"):
        merge(["somebody/model", two[0]], tmp_path / "out", base=two[0])


def test_the_command_merges_and_evaluates_at_once(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [expert(base, "a", [0.1]), expert(base, "b", [0.2])]
    out = str(base.with_name("out"))
    code = main([
        "merge", *parts, "--base", str(base), "--method", "task_arithmetic", "--out", out, "--json",
        "--evaluate", "bundled:test=8",
    ])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert list(told["evaluated"]) == [str(base), *parts, out]
    assert all(row["prompts"] == 8 for row in told["evaluated"].values())
    assert main(["merge", *parts, "--out", out]) == 1
    assert "name it (base)" in capsys.readouterr().err
