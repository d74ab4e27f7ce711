"""Random numbers as a function of (seed, choice, offset, token): the same wherever and whenever a token is sampled.

A counter-based generator: no state, so a resumed or preempted request draws what the undisturbed one would have.
Source: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), its finaliser used as a
hash of key and counter.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1


def gumbel(seed: int, choice: int, offset: int, token_ids: Ids) -> Floats:
    """Standard Gumbel noise for each token.  # [tokens]

    argmax(log p + gumbel) is a draw from p (the Gumbel-max trick), and each token's noise is its own: leaving tokens
    out by top-k or top-p changes no other's.
    """
    key = _mix(_mix(_mix(seed + _GOLDEN) ^ choice) + offset * _GOLDEN & _MASK)
    z = token_ids.astype(np.uint64)
    z *= np.uint64(_GOLDEN)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_MIX_2)
    z ^= z >> np.uint64(31)
    # 53 bits, put in the middle of their interval: never 0 and never 1, so both logarithms are finite.
    uniform = (z >> np.uint64(11)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-53
    np.log(uniform, out=uniform)
    np.negative(uniform, out=uniform)
    np.log(uniform, out=uniform)
    return np.negative(uniform, out=uniform)


def _mix(value: int) -> int:
    value &= _MASK
    value = (value ^ value >> 30) * _MIX_1 & _MASK
    value = (value ^ value >> 27) * _MIX_2 & _MASK
    return value ^ value >> 31
