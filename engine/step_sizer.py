"""Learns what a step costs on this machine, and how large the next may be to take so long; has no clock of its own.

A step is taken to last  base + rows x per_row + work x per_key,  where work is the sum over chunks of rows times the
last position they see. The three are fitted to past steps by least squares on relative errors, older steps counting
less. Any cut of a prompt gives the same tokens, so nothing but time depends on what is learned here.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.step_room import StepLimits

_AIM: Final = 0.85  # of the target, so that noise seldom reaches it
_FORGET: Final = 0.9  # what an observation still counts for after the next
_PRIOR_WEIGHT: Final = 1e-2  # of the guess below against one observation
_GUESS: Final = (2e-3, 1e-3, 1e-6)  # seconds; on the slow side, because a first step that is short costs little
_SURPRISE: Final = 3.0  # a step this much slower than expected is believed no further: it met a hiccup
_GROWTH: Final = 2  # next to what has been seen, so that a fit is never asked about far larger steps


class StepSizer:
    """Limits for steps of about `target_s` seconds, of one page of rows at least and `max_rows` at most."""

    def __init__(self, target_s: float, max_rows: int, page_size: int) -> None:
        self._target_s = target_s
        self._max_rows = max_rows
        self._floor = min(page_size, max_rows)
        self._seen_rows = self._floor
        self._scale = np.array(_GUESS)  # the guess is (1, 1, 1) in these units, and the fit well conditioned
        self._products = np.zeros((3, 3))
        self._targets = np.zeros(3)
        self._fit = np.ones(3)

    @property
    def seconds(self) -> tuple[float, float, float]:
        """What is believed now: of a step, of a row, of a row times a key."""
        base, per_row, per_key = (self._fit * self._scale).tolist()
        return base, per_row, per_key

    def limits(self) -> StepLimits:
        """Of the next step."""
        base, per_row, per_key = self.seconds
        per_key = max(per_key, per_row * 1e-6, 1e-12)
        keys = max(0, int((self._target_s * _AIM - base) / per_key))
        rows = min(self._max_rows, max(self._floor, self._seen_rows * _GROWTH))
        return StepLimits(rows, keys, int(per_row / per_key))

    def expected(self, rows: int, keys: int) -> float:
        """Seconds that such a step should take."""
        base, per_row, per_key = self.seconds
        return base + rows * per_row + keys * per_key

    def observe(self, rows: int, keys: int, seconds: float) -> None:
        """A step of so many rows and so much work has taken `seconds`."""
        expected = self.expected(rows, keys)
        believed = min(seconds, _SURPRISE * expected)
        # Relative errors, but not of steps too short to matter.
        weight = 1.0 / max(expected, self._target_s / 20) ** 2
        features = np.array((1.0, rows, keys)) * self._scale
        self._products = _FORGET * self._products + weight * np.outer(features, features)
        self._targets = _FORGET * self._targets + weight * believed * features
        self._fit = self._solve()
        self._seen_rows = max(self._seen_rows, rows)

    def _solve(self) -> NDArray[np.float64]:
        """The fit of least squares near the last one, without a negative cost: what would be negative is nothing."""
        ridge = _PRIOR_WEIGHT * max(float(np.trace(self._products)) / 3, 1e-12)
        left, right = self._products + ridge * np.eye(3), self._targets + ridge * np.clip(self._fit, 1e-3, None)
        active = np.ones(3, dtype=bool)
        fit = np.zeros(3)
        while active.any():
            fit[:] = 0.0
            fit[active] = np.linalg.solve(left[np.ix_(active, active)], right[active])
            if (fit >= 0).all():
                break
            active &= fit > 0
        return fit
