"""Two ways around the wall: where Meta-World's expert knows one way past an obstacle, ours takes either.

People do not always pass an obstacle on the same side. Demonstrations that do would teach a policy whose mean is as
good as its samples, and nothing measured on it would tell a student that has kept the teacher's choices from one that
averages them: here the average of the two ways leads into the wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_wam.contracts import F64

MOVING_M_S = 0.05
"""Slower than this, a hand is taken to be undecided: it would take 5 s along the wall."""
DEPTH_M = 0.05
"""Half a hand: how far from the wall's middle plane the hand has passed it."""
CLOSE_M = 0.03


@dataclass(frozen=True, slots=True)
class Wall:
    """A wall across y with an end at either side, in metres; 0.12 m high in Meta-World's scenes.

    Attributes:
        left, right: where its ends are (x). y: where it stands.
        margin: how far from an end the middle of a passing hand keeps.
        low: height (z) of a hand that passes: it could not fly over.
    """

    left: float
    right: float
    y: float
    margin: float
    low: float

    def side(self, x: float, velocity_x: float, rng: np.random.Generator) -> int:
        """-1 (left) or 1: the side on which a hand is or to which it moves; where neither is clear, either."""
        if x <= self.left - self.margin / 2 or x >= self.right + self.margin / 2:
            return -1 if x < (self.left + self.right) / 2 else 1
        if abs(velocity_x) > MOVING_M_S:
            return -1 if velocity_x < 0 else 1
        return int(rng.choice((-1, 1)))

    def waypoint(self, hand: F64, goal: F64, side: int) -> F64 | None:
        """Where a hand [3] on its way to ``goal`` [3] has to go first; None: the wall is not between them."""
        behind = self.y + DEPTH_M
        if hand[1] >= behind or goal[1] <= self.y:
            return None
        beside = self.left - self.margin if side < 0 else self.right + self.margin
        passing = (hand[0] - beside) * side >= -CLOSE_M
        return np.array([beside, behind + CLOSE_M if passing else min(hand[1], self.y - 2 * DEPTH_M), self.low])


WALLS = {"reach-wall": Wall(left=-0.02, right=0.22, y=0.75, margin=0.09, low=0.08)}
"""By task. Its expert would fly over the wall, always."""
