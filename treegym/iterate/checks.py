"""What a run is refused for before anything is trained or evaluated: switches, rewards, prompts."""

from __future__ import annotations

from treegym.errors import ConfigError
from treegym.iterate.evaluate import load_answered
from treegym.iterate.settings import DEFAULTS, IterateSettings

__all__ = ["check_learner", "check_sources"]

NO_SWITCHES = ("verbose", "stats_window_size")  # of every learner, beside its settings


def check_learner(settings: IterateSettings) -> None:
    """Raises ConfigError for switches that the algorithm does not have, and a reward that cannot be built."""
    if settings.algorithm != "expert":
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
    if settings.reward is not None:
        from treegym.rewards import build

        build(settings.reward)


def check_sources(settings: IterateSettings) -> None:
    """Raises DataError where prompts cannot be read, or one has no answer."""
    load_answered(settings.evaluate, seed=10_000 + settings.seed)
    if settings.grows or not settings.on_tree:
        load_answered(settings.prompts, seed=settings.seed * 1000 + 1)
