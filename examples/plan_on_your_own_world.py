"""Plan in a world of your own: a knight that wants to reach a corner of the chessboard in few moves.

Run: python examples/plan_on_your_own_world.py
"""

from __future__ import annotations

import numpy as np

from treegym.search import Evaluation, Session, Transition

JUMPS = np.array([(1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2)])
GOAL = np.array([7, 7])


class KnightWorld:
    """States are squares [B, 2]; each jump costs 0.1, the goal pays 1 and ends the game."""

    num_actions = len(JUMPS)

    def expand(self, states: np.ndarray) -> Evaluation:
        """Likes jumps that bring the knight nearer; thinks a square is worth less the farther it is."""
        after = states[:, None] + JUMPS
        legal = ((after >= 0) & (after < 8)).all(-1)
        distance = np.abs(after - GOAL).sum(-1)
        value = 1.0 - 0.05 * np.abs(states - GOAL).sum(-1)
        return Evaluation((-0.3 * distance).astype(np.float32), value.astype(np.float32), legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        """Moves the knights."""
        after = states + JUMPS[actions]
        there = (after == GOAL).all(-1)
        return Transition(after, np.where(there, 1.0, -0.1).astype(np.float32), there)

    def key(self, states: np.ndarray) -> np.ndarray:
        """Names a square, so that the search joins the many ways that lead to it."""
        return states[:, 0] * 8 + states[:, 1]


def main() -> None:
    """Plays from a corner to the other, planning before each jump and keeping the tree."""
    world, square = KnightWorld(), np.array([[0, 0]])
    session = Session(world, square, method="puct", num_simulations=400)
    way = ["a1"]
    while len(way) < 12:
        action = session.run().action
        moved = world.step(square, action)
        square = moved.states
        way.append("abcdefgh"[square[0, 0]] + str(square[0, 1] + 1))
        if moved.terminated[0]:
            break
        session.advance(action, square)
    print(" ".join(way), f"({len(way) - 1} jumps; the fewest possible are 6)")


if __name__ == "__main__":
    main()
