"""The rounds of `treegym iterate`. A round reads only what the last one wrote, so a killed run goes on as if never cut.

OUT/settings.json, and for every round OUT/round-001/: model/ (the primary after it), tree.tree (columns refreshed, with
child weights), costs.json (CPU seconds of its stages), row.json (the figures; written last, it is what says that the
round is done), and adapters/ where only adapters are learned.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write, told_by
from treegym.iterate.checks import check_learner, check_room, check_sources
from treegym.iterate.evaluate import evaluate_model, load_answered, prompts_of_round
from treegym.iterate.experts import Played
from treegym.iterate.ground import tree_of_round
from treegym.iterate.imitate import Example, correct_paths, imitate, written_answers
from treegym.iterate.prefer import prefer
from treegym.iterate.primary import Source, keep, learnable, open_primary, source_of
from treegym.iterate.reinforce import reinforce
from treegym.iterate.settings import PREFERENCES, IterateSettings
from treegym.iterate.shares import Staff, collected_in_shares, local_staff, searched_in_shares
from treegym.iterate.watching import Clock, memory_as_sentence, write_scalars
from treegym.locks import LOCK, held
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.shape import misfit
from treegym.untrusted import json_of, read_bytes, read_json

__all__ = ["iterate", "rows_of"]

# what the figures of round 0 depend on
STARTS = ("model", "evaluate", "max_tokens", "seed", "format", "system", "template", "between", "stops", "extract",
          "cut_counts")  # fmt: skip
Report = Callable[[dict[str, Any]], None]


def iterate(
    settings: IterateSettings, out: str | Path, *, report: Report | None = None, staff: Staff = local_staff
) -> list[dict[str, Any]]:
    """Runs, or goes on with, the rounds in a folder; returns a row of figures for each, round 0 being the start.

    Args:
        settings: of the run.
        out: the folder.
        report: is told each row.
        staff: who collects the shares of `settings.actors`, this process or a cluster; the bytes are the same.
    """
    folder = Path(out)
    _check_alone()
    rows = _resumed(settings, folder)
    if len(rows) <= settings.rounds:
        check_learner(settings)
        check_sources(settings)
    with told_by(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder / LOCK, what=f"the folder {folder}"):
        return _rounds(settings, folder, rows, report, staff)


def _rounds(
    settings: IterateSettings, folder: Path, rows: list[dict[str, Any]], report: Report | None, staff: Staff
) -> list[dict[str, Any]]:
    """Does the rounds that are missing, alone in the folder."""
    if not rows:
        (_folder(folder, 0) / "row.json").unlink(missing_ok=True)  # of other settings
    atomic_write(folder / "settings.json", json.dumps(settings.as_json(), indent=1, default=str))
    if len(rows) <= settings.rounds:
        check_room(settings)
    for stale in folder.glob(".round.*"):
        shutil.rmtree(stale)  # of a run that was killed
    if not rows:
        with told_by(_folder(folder, 0), kept="nothing is lost: make room and give the same command again"):
            rows = [_start(settings, folder)]
            write_scalars(folder, rows[0])
        if report:
            report(rows[0])
    for number in range(len(rows), settings.rounds + 1):
        kept = f"rounds 0 to {number - 1} are kept: make room and give the same command again"
        with memory_as_sentence(number), told_by(_folder(folder, number), kept=kept):
            row = _round(settings, folder, number, rows, staff)
            rows.append(row)
            write_scalars(folder, row)
        if report:
            report(row)
    return rows


def _folder(folder: Path, number: int) -> Path:
    return folder / f"round-{number:03d}"


def _check_alone() -> None:
    from treegym.agents.processes import launched

    if launched() > 1:
        raise ConfigError(
            f"{launched()} processes were launched (WORLD_SIZE), but rounds run in one; start `treegym iterate` "
            "without accelerate or torchrun, or train with DAPO, PPO or VAPO themselves, which learn in several"
        )


def _resumed(settings: IterateSettings, folder: Path) -> list[dict[str, Any]]:
    """Returns the rows to go on from. Settings may change until a round was trained; then they are the run's."""
    path = folder / "settings.json"
    rows = rows_of(folder)
    if not path.is_file():
        return rows
    try:
        before = read_json(path)
        if not isinstance(before, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise DataError(
            f"{path}: damaged, not a JSON object of settings; delete it to go on with the settings given now, "
            "or choose another folder"
        ) from error
    now = json.loads(json.dumps(settings.as_json(), default=str))
    changed = [name for name, value in now.items() if name != "rounds" and before.get(name, value) != value]
    if changed and len(rows) > 1:
        raise ConfigError(
            f"{folder} holds a run with another {changed[0]} ({before.get(changed[0])!r}); "
            "choose another folder, or the same settings to go on"
        )
    return [] if set(changed) & set(STARTS) else rows


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the figures of the rounds that are done."""
    rows: list[dict[str, Any]] = []
    while (path := _folder(folder, len(rows)) / "row.json").is_file():
        try:
            text = read_bytes(path).replace(b'"reward": NaN', b'"reward": null')  # what version 0.1 wrote
            row = json_of(text, where=str(path))
            if misfit(row, {"reward": (float, None)}) is not None:
                raise ValueError("no row of figures")
        except ValueError as error:
            raise DataError(
                f"{path}: no row of figures in JSON; delete {path.parent} to run this round again"
            ) from error
        rows.append({**row, "reward": _known(row["reward"])})
    return rows


def _start(settings: IterateSettings, folder: Path) -> dict[str, Any]:
    model, _ = open_primary(settings, source_of(settings, None))
    row = {"round": 0, "reward": None, "reference_share": 0.0, **_evaluate(settings, model, whole=True)}
    target = _folder(folder, 0)
    target.mkdir(exist_ok=True)
    atomic_write(target / "row.json", json.dumps(row))
    return row


def _evaluate(settings: IterateSettings, model: Any, *, whole: bool) -> dict[str, Any]:
    """Returns a model's figures on held-out prompts: all of them, or in between as many as the settings say."""
    prompts = load_answered(settings.evaluate, seed=10_000 + settings.seed, rule=settings.rule)
    count, most = len(prompts.roots), settings.evaluate_between
    if not whole and most is not None and most < count:
        places = np.linspace(0, count - 1, most).astype(int)
        prompts = replace(prompts, roots=[prompts.roots[place] for place in places])
    return evaluate_model(model, prompts, max_tokens=settings.max_tokens, form=settings.form)


def _round(
    settings: IterateSettings, folder: Path, number: int, rows: list[dict[str, Any]], staff: Staff
) -> dict[str, Any]:
    """Does one round in a staging folder, and renames it when it is whole."""
    last = _folder(folder, number - 1) if number > 1 else None
    source = source_of(settings, last)
    staging = Path(tempfile.mkdtemp(prefix=".round.", dir=folder))
    seed = settings.seed * 1000 + number
    try:
        row = _trained(settings, source, staging, last, seed, number, rows, staff)
        atomic_write(staging / "row.json", json.dumps(row))
        target = _folder(folder, number)
        if target.exists():
            shutil.rmtree(target)  # left by a run that was killed before its row was written
        staging.rename(target)
        return row
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _trained(
    settings: IterateSettings, source: Source, staging: Path, last: Path | None, seed: int, number: int,
    rows: list[dict[str, Any]], staff: Staff,
) -> dict[str, Any]:  # fmt: skip
    """Trains the primary, writes it and the tree into the staging folder, and returns the round's row."""
    from treegym.envs.token_tree.world import TreeWorld
    from treegym.models.local.transformers_model import TransformersModel

    clock = Clock()
    model, network = open_primary(settings, source)
    world, note = None, None
    if settings.on_tree:
        kept = staging / "none" if last is None else last / "tree.tree"
        tree = tree_of_round(settings, model, staging, kept, seed)
        world = TreeWorld(tree, reward=settings.reward, max_tokens=settings.max_tokens, curriculum=settings.curriculum)
    clock.note("grow")
    if settings.algorithm == "expert":
        assert world is not None
        played = searched_in_shares(settings, world, seed, staff)
        examples, network = played.examples(world.tree), learnable(settings, network)
    elif settings.algorithm in PREFERENCES:
        played, network, note = prefer(settings, model, learnable(settings, network), world, seed)
        examples = []
    else:
        log = staging.parent / "tensorboard"
        place = staging / "tree.tree"
        collect = collected_in_shares(settings, source, place, seed, staff) if settings.actors > 1 else None
        played, network, note = reinforce(settings, source, place, seed, log=log, collect=collect)
        examples = []
    reward = _known(np.mean(played.returns)) if played.returns else None
    before = [row["reward"] for row in rows if row["reward"] is not None]
    fell = reward is not None and bool(before) and reward < before[-1]
    reference = _reference(settings, world, model, seed) if fell else []
    if examples or reference:
        _imitate(settings, network, [*examples, *reference], seed)
    clock.note("train")
    figures: dict[str, Any] = {"chosen_by": {}, "teacher_entropy": 0.0}
    if world is not None:
        figures = _update_weights(world, played)
        world.tree.save(staging / "tree.tree")
    written = keep(network, model.tokenizer, staging)
    clock.note("save")
    after = TransformersModel(written, model.tokenizer, name=model.name)
    found = _evaluate(settings, after, whole=number == settings.rounds)
    clock.note("evaluate")
    atomic_write(staging / "costs.json", json.dumps(clock.spent))
    return {
        "round": number,
        "reward": reward,
        "reference_share": len(reference) / max(len(played.returns) + len(reference), 1),
        **found,
        **figures,
        **({"note": note} if note else {}),
    }


def _imitate(settings: IterateSettings, network: Any, examples: list[Example], seed: int) -> None:
    steps = max(1, settings.epochs * len(examples) // settings.batch)
    imitate(
        network, examples, steps=steps, batch=min(settings.batch, len(examples)),
        learning_rate=settings.imitation_rate, seed=seed,
    )  # fmt: skip


def _known(reward: Any) -> float | None:
    """Returns a reward as a number, or None where it is unknown: JSON has no NaN."""
    return float(reward) if reward is not None and math.isfinite(reward) else None


def _reference(settings: IterateSettings, world: Any, model: Any, seed: int) -> list[Example]:
    """Returns a small diverse chunk of reference answers: learning by reward can lose its footing."""
    if not settings.reference:
        return []
    if world is None:
        return written_answers(
            prompts_of_round(settings, seed), model.tokenizer, count=settings.reference,
            max_tokens=settings.max_tokens, seed=seed, begin=settings.form.begin(model),
            between="" if settings.form.form_for(model) == "chat" or settings.form == PromptFormat() else
            settings.form.between,
        )  # fmt: skip
    roots = np.random.default_rng(seed).choice(world.pool, size=min(settings.reference, len(world.pool)), replace=False)
    return correct_paths(world, roots.tolist(), seed=seed)


def _update_weights(world: Any, played: Played) -> dict[str, Any]:
    """Updates the tree's child weights by the two-sided rule; returns how the choices spread over the teachers."""
    from treegym.tree.weights import ChildWeights

    tree = world.tree
    weights = ChildWeights(tree)
    right = world.solution().reachable
    chosen = dict.fromkeys(["primary", *tree.teachers], 0.0)
    names = list(chosen)
    for root, path, total in zip(played.roots, played.paths, played.returns, strict=True):
        if not path:
            continue
        nodes = np.array(path, np.int64)
        weights.update(root, nodes, right=right[nodes], episode_return=total)
        for node in path:
            backers = [bit for bit in range(len(names)) if int(tree.proposers[node]) >> bit & 1]
            for bit in backers:
                chosen[names[bit]] += 1 / len(backers)
    tree.make_writable()
    tree.column("weight")[:] = weights.weights
    total_chosen = sum(chosen.values())
    shares = {name: chosen[name] / total_chosen for name in names} if total_chosen else dict.fromkeys(names, 0.0)
    spread = np.array([share for name, share in shares.items() if name != "primary" and share > 0])
    spread = spread / spread.sum() if len(spread) else spread
    return {"chosen_by": shares, "teacher_entropy": float(0.0 - (spread * np.log(spread)).sum())}
