"""What is learned of a position is learned of its images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.agents.planning.symmetries import with_images
from treegym.errors import ConfigError

POSITIONS = {
    "obs.observations": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
    "policy": np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], np.float32),
    "q": np.array([[1.0, np.nan, -1.0], [np.nan, 0.5, np.nan]], np.float32),
    "target": np.array([1.0, 0.5], np.float32),
    "state": np.array([-1, -1]),
}


class Mirror:
    """Three cells in a row, a move for each."""

    names: Any = (2, 1, 0)

    def images(self, rows: Any) -> Any:
        return [({"observations": rows["observations"][:, ::-1]}, self.names)]


class Turning(Mirror):
    """The first cell goes last: move 0 of the image is what was move 1."""

    def images(self, rows: Any) -> Any:
        return [({"observations": np.roll(rows["observations"], -1, 1)}, [1, 2, 0])]


def test_images_follow_their_positions() -> None:
    found = with_images(Mirror(), POSITIONS, 3)
    np.testing.assert_array_equal(found["obs.observations"], [[1, 2, 3], [4, 5, 6], [3, 2, 1], [6, 5, 4]])
    np.testing.assert_array_equal(found["policy"][2], np.array([0.1, 0.2, 0.7], np.float32))
    np.testing.assert_array_equal(found["q"][2], [-1.0, np.nan, 1.0])
    np.testing.assert_array_equal(found["target"], [1.0, 0.5, 1.0, 0.5])
    assert found["state"].shape == (4,)


def test_moves_are_named_by_what_they_were() -> None:
    found = with_images(Turning(), POSITIONS, 3)
    np.testing.assert_array_equal(found["obs.observations"][2], [2, 3, 1])
    np.testing.assert_array_equal(found["policy"][2], np.array([0.2, 0.1, 0.7], np.float32))  # as the cells


def test_a_world_without_images_learns_as_ever() -> None:
    assert with_images(object(), POSITIONS, 3) is POSITIONS


@pytest.mark.parametrize("names", [[0, 1, 1], [0, 1], [0, 1, 3]])
def test_moves_that_are_no_permutation_are_refused(names: Any) -> None:
    world = Mirror()
    world.names = names
    with pytest.raises(ConfigError, match="expected each of the 3 actions once"):
        with_images(world, POSITIONS, 3)


def test_an_image_without_a_part_is_refused() -> None:
    class Blind(Mirror):
        def images(self, rows: Any) -> Any:
            return [({}, self.names)]

    with pytest.raises(ConfigError, match="an image of observations has shape None"):
        with_images(Blind(), POSITIONS, 3)
