"""What a run is refused for before anything is trained or evaluated: switches, rewards, prompts."""

from __future__ import annotations

from pathlib import Path

from treegym.errors import ConfigError
from treegym.iterate.evaluate import load_answered
from treegym.iterate.settings import DEFAULTS, PREFERENCES, IterateSettings
from treegym.models.loading import resolve, stored_weights
from treegym.models.local.memory import check_memory
from treegym.models.local.precision import WIDTH, choose_dtype
from treegym.rewards.learned.preference import read_pairs

__all__ = ["check_learner", "check_room", "check_sources"]

NO_SWITCHES = ("verbose", "stats_window_size")  # of every learner, beside its settings


def check_learner(settings: IterateSettings) -> None:
    """Raises ConfigError for switches that the algorithm does not have, and a reward that cannot be built."""
    if settings.algorithm in PREFERENCES:
        from treegym.iterate.prefer import switches_of

        preferred = switches_of(settings)
        if preferred.pairs == "siblings" and not settings.on_tree:
            raise ConfigError("siblings are children of a tree, and ground 'text' walks none; use ground='tree'")
        if preferred.written:
            if settings.on_tree:
                raise ConfigError(f"the pairs of {preferred.pairs} are free texts; use ground='text'")
            read_pairs(preferred.pairs)  # refused here, if it cannot be read
    elif settings.algorithm != "expert":
        import treegym.agents as agents

        learner = getattr(agents, settings.algorithm.upper())
        rate = {} if settings.learning_rate is None else {"learning_rate": settings.learning_rate}
        switches = {**DEFAULTS[settings.algorithm], **rate, **settings.options}
        for name in NO_SWITCHES:
            switches.pop(name, None)
        try:
            learner.settings_class.of(learner.__name__, switches)
        except TypeError as error:  # a comparison of a text with a number, say
            raise ConfigError(
                f"options is {settings.options!r}, and a value in it is of a wrong kind ({error}); "
                f"give numbers as numbers"
            ) from error
    _ = settings.form, settings.rule  # refused here, if they cannot be
    if settings.reward is not None:
        from treegym.rewards import build

        build(settings.reward)


def check_sources(settings: IterateSettings) -> None:
    """Raises DataError where prompts cannot be read, or one has no answer."""
    load_answered(settings.evaluate, seed=10_000 + settings.seed, rule=settings.rule)
    if settings.grows or not settings.on_tree:
        load_answered(settings.prompts, seed=settings.seed * 1000 + 1, rule=settings.rule)


TRAINED = 2 + 12  # bytes of a weight that is learned beside the weight itself: gradient, float32 copy and two moments
ADAPTED = 0.05  # of a model's weights, what adapters of a usual rank come to


def check_room(settings: IterateSettings) -> None:
    """Raises BackendError where training the model would take more memory than there is; hub names are not known."""
    where, local = resolve(settings.model)
    if not local:
        return
    stored, size = stored_weights(Path(where))
    width = WIDTH[choose_dtype(settings.dtype, device="cpu", stored=stored)]
    weights = size // WIDTH.get(stored, 4)
    adapted = settings.policy.get("lora_rank") is not None or settings.policy.get("adapters") is not None
    learned = TRAINED * (ADAPTED if adapted else 1.0)
    how = "adapters of it" if adapted else "all its weights"
    check_memory(int(weights * (width + learned)), doing=f"training {settings.model} by {how}")
