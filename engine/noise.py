"""Random numbers as a function of (seed, choice, offset, token); keeps no state and knows no logits.

A counter-based generator: SplitMix64's finaliser over a keyed counter. So a continuation on another machine draws what
the undisturbed run would have drawn, and a restricted vocabulary costs only the tokens in it.
Source: Steele, Lea and Flood, 2014 (doi 10.1145/2660193.2660195); constants of its variant 13.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_MASK: Final = 2**64 - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB
_UNIT: Final = 2.0**-53


def gumbel(seed: int, choice: int, offset: int, token_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard Gumbel noise for each token: -log(-log(u)), u in (0, 1) of 53 bits.  # [tokens]"""
    bits = _mix_all(token_ids.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(_key(seed, choice, offset)))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * _UNIT
    return -np.log(-np.log(uniform))


def _key(seed: int, choice: int, offset: int) -> int:
    """One number for (seed, choice, offset); each is mixed in, so that neighbours share nothing."""
    key = 0
    for part in (seed, choice, offset):
        key = _mix((key + part + 1) * _GOLDEN & _MASK)
    return key


def _mix(value: int) -> int:
    value = (value ^ value >> 30) * _FIRST & _MASK
    value = (value ^ value >> 27) * _SECOND & _MASK
    return value ^ value >> 31


def _mix_all(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`_mix` of each value; unsigned arrays wrap by themselves."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(_FIRST)
    values = (values ^ values >> np.uint64(27)) * np.uint64(_SECOND)
    return values ^ values >> np.uint64(31)
