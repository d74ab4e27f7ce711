"""Learns what a step costs on this machine, and how large the next may be to take so long; has no clock of its own.

A step is taken to last  base + rows x per_row + work x per_key,  where work is the sum over chunks of rows times the
last position they see. The three are fitted to past steps by least squares on relative errors, older steps counting
less. Any cut of a prompt gives the same tokens, so nothing but time depends on what is learned here.
"""

from typing import Final

from engine.step_room import StepLimits

_PARTS: Final = range(3)  # of the sum above
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
        # In units of the guess, so that the guess is (1, 1, 1) and the fit well conditioned.
        self._fit = [1.0, 1.0, 1.0]
        self._products = [[0.0] * 3 for _ in range(3)]
        self._targets = [0.0] * 3

    @property
    def seconds(self) -> tuple[float, float, float]:
        """What is believed now: of a step, of a row, of a row times a key."""
        (base, per_row, per_key), (base_s, per_row_s, per_key_s) = self._fit, _GUESS
        return base * base_s, per_row * per_row_s, per_key * per_key_s

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
        features = [feature * scale for feature, scale in zip((1, rows, keys), _GUESS, strict=True)]
        for place, (one, products) in enumerate(zip(features, self._products, strict=True)):
            self._products[place] = [
                _FORGET * product + weight * one * other for product, other in zip(products, features, strict=True)
            ]
            self._targets[place] = _FORGET * self._targets[place] + weight * believed * one
        self._fit = self._solve()
        self._seen_rows = max(self._seen_rows, rows)

    def _solve(self) -> list[float]:
        """The fit of least squares near the last one, without a negative cost: what would be negative is nothing."""
        ridge = _PRIOR_WEIGHT * max(sum(self._products[place][place] for place in _PARTS) / 3, 1e-12)
        left = [[*products] for products in self._products]
        for place in _PARTS:
            left[place][place] += ridge
        right = [self._targets[place] + ridge * max(self._fit[place], 1e-3) for place in _PARTS]
        active = [*_PARTS]
        while active:
            solution = _solution([[left[i][j] for j in active] for i in active], [right[i] for i in active])
            found = dict(zip(active, solution, strict=True))
            if min(solution) >= 0:
                return [found.get(place, 0.0) for place in _PARTS]
            active = [place for place in active if found[place] > 0]
        return [0.0] * 3


def _solution(left: list[list[float]], right: list[float]) -> list[float]:
    """x with left x = right, of a symmetric and positive definite matrix, which elimination needs no pivots for.

    Not numpy's: with the caches full of a step's weights, so few numbers take it a quarter of a millisecond.
    """
    size = len(right)
    rows = [[*own, value] for own, value in zip(left, right, strict=True)]
    for place, pivot in enumerate(rows):
        for row in rows[place + 1 :]:
            factor = row[place] / pivot[place]
            for column in range(place + 1, size + 1):
                row[column] -= factor * pivot[column]
    x = [0.0] * size
    for place in reversed(range(size)):
        known = sum(rows[place][later] * x[later] for later in range(place + 1, size))
        x[place] = (rows[place][size] - known) / rows[place][place]
    return x
