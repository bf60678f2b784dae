"""Optuna looks for DAPO's settings in the space that TreeGym publishes for it. Needs optuna. Takes minutes."""

import os
import sys

try:
    import optuna
except ImportError as error:
    print(f"optuna is not installed: {error}", file=sys.stderr)
    sys.exit(3)

from treegym.agents.play.evaluation import play_roots, vector_world
from treegym.agents.registry import make_agent
from treegym.integrations.optuna import suggest_settings

QUICK = bool(os.environ.get("TREEGYM_EXAMPLE_QUICK"))
TREE = "synthetic:roots=40,depth=5,branching=3,seed=0"


def main(trials: int = 3 if QUICK else 20, steps: int = 4_096) -> tuple[float, float]:
    """Returns the mean return of a random walker and of the best trial."""

    def mean_return(agent) -> float:
        return float(play_roots(agent, world, world.roots()).returns.mean())

    def objective(trial: optuna.Trial) -> float:
        agent = make_agent("dapo", world, seed=0, **{**suggest_settings(trial, "dapo"), "n_episodes": 64})
        agent.learn(steps)
        return mean_return(agent)

    world = vector_world("TokenTree-v0", 32, tree=TREE)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    print(f"best of {trials} trials: {study.best_params}")
    return mean_return(make_agent("random", world, seed=0)), study.best_value


if __name__ == "__main__":
    random, best = main()
    print(f"mean return: {random:.3f} of a random walker, {best:.3f} of the best trial")
    sys.exit(0 if best > random else 1)
