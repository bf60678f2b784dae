"""Names of reward terms and terminal detectors: bundled, registered at run time, or from installed packages.

A new bundled term is one module under rewards/terms/ and one line here. An installed package adds terms with an
entry point: `[project.entry-points."treegym.rewards"]`, ``my_term = "my_package.rewards:my_term"``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from treegym.errors import ConfigError, suggest
from treegym.registry import Registry

__all__ = ["DETECTORS", "TERMS", "VERIFIERS", "catalogue", "misfit", "register", "register_terminal"]

_TERMS, _ENDS = "treegym.rewards.terms", "treegym.rewards.terminal.detectors"

_BUNDLED_TERMS = {
    "answer_similarity": (f"{_TERMS}.similarity:AnswerSimilarity", "cosine of the answer to the reference"),
    "diversity": (f"{_TERMS}.diversity:Diversity", "how different a group's answers are (group scope)"),
    "image_text": (f"{_TERMS}.image_text:ImageText", "how well the text describes the picture in its prompt"),
    "judge": ("treegym.rewards.judge.term:Judge", "a language model's opinion of the answer, local or over HTTP"),
    "kl": (f"{_TERMS}.kl:KL", "KL of the primary to a frozen teacher, token by token (negative weight)"),
    "length": (f"{_TERMS}.length:Length", "1 for every token (use a small negative weight)"),
    "lmgt": (f"{_TERMS}.lmgt:LMGT", "a guide's advice on each step, -1, 0 or +1, annealed"),
    "loglikelihood": (f"{_TERMS}.likelihood:LogLikelihood", "log-probability of each token"),
    "perplexity": (f"{_TERMS}.likelihood:Perplexity", "perplexity of the answer (negative weight)"),
    "reward_model": ("treegym.rewards.learned.reward_model:LearnedReward", "a learned reward model (`train-reward`)"),
    "shortest_path": (f"{_TERMS}.shortest:ShortestPath", "penalty for a right answer by a longer way"),
    "similarity": (f"{_TERMS}.similarity:Similarity", "cosine of each child to the primary's own choice"),
    "soft_overlong": (f"{_TERMS}.overlong:SoftOverlong", "penalty for coming near the length limit"),
    "verifier": (f"{_TERMS}.verifier:Verifier", "1 where the answer is right, 0 where it is wrong"),
    "zoning": (f"{_TERMS}.zoning:Zoning", "fitted adjustment of the zone a path is in, annealed"),
}
_BUNDLED_DETECTORS = {
    "completeness": (f"{_ENDS}:Completeness", "a small language model finds the text complete"),
    "eos": (f"{_ENDS}:Eos", "the model's own end-of-sequence token"),
    "minimum": (f"{_ENDS}:Minimum", "at least so many tokens (for use within `all`)"),
    "proxy": (f"{_ENDS}:Proxy", "stopping is likelier than the best continuation"),
    "punctuation": (f"{_ENDS}:Punctuation", "the text ends with . ! ? or another end mark"),
    "slm": (f"{_ENDS}:Slm", "a small language model would end the text here; slm:MODEL for short"),
    "stored": (f"{_ENDS}:Stored", "ends stored in the tree: end-of-sequence or stopped by detection"),
}
TERMS = Registry("reward term", _BUNDLED_TERMS, group="treegym.rewards")
DETECTORS = Registry("terminal detector", _BUNDLED_DETECTORS, group="treegym.terminals")
VERIFIERS = Registry("verifier", {}, group="treegym.verifiers")

# A plain function of a `PathView`, or a `Term` (a `Detector`) subclass, known under a name in this process. Processes
# started later (remote workers) import nothing of yours: name such things ``"my_module:my_function"`` there.
register, register_terminal = TERMS.register, DETECTORS.register


def catalogue(sort: str) -> dict[str, str]:
    """Returns every known "reward term", "terminal detector" or "verifier" with one line of help."""
    registries = {registry.sort: registry for registry in (TERMS, DETECTORS, VERIFIERS)}
    if sort not in registries:
        raise ConfigError(f"there is no catalogue of {sort!r}.{suggest(sort, registries)}")
    return dict(registries[sort])


def misfit(
    what: str, thing: Any, given: Mapping[str, Any], error: Exception, *, also: Iterable[str] = ()
) -> ConfigError:
    """Returns the error that says which option a class or function does not have, or why else it cannot be made."""
    made = getattr(thing, "__init__") if isinstance(thing, type) else thing  # noqa: B009 - their `__new__` takes all
    unnamed = ("self", "name", "common", "path", "view")
    known = [*(name for name in inspect.signature(made).parameters if name not in unnamed), *also]
    stray = next((key for key in given if key not in known), None)
    if stray is None:
        return ConfigError(f"{what} cannot be made: {error}")
    return ConfigError(f"{what} has no option {stray!r}.{suggest(stray, {*known, *also})}")
