"""Random numbers as a function of (seed, choice, offset, token): the same wherever and whenever a token is sampled.

A counter-based generator: no state, so a resumed or preempted request draws what the undisturbed one would have.
Source: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), its finaliser used as a
hash of key and counter.
"""

from typing import Final

import numpy as np

from engine.elementary import Counts, Floats, log

GOLDEN: Final = 0x9E3779B97F4A7C15
MIX_1: Final = 0xBF58476D1CE4E5B9
MIX_2: Final = 0x94D049BB133111EB
_MASK: Final = (1 << 64) - 1


def stream_key(seed: int, choice: int) -> int:
    """Names the noise of one choice, at every offset and token. 64 bits."""
    return _mix(_mix(seed + GOLDEN) ^ choice)


def gumbel(seed: int, choice: int, offset: int, token_ids: Counts) -> Floats:
    """Standard Gumbel noise for each token.  # [tokens]

    argmax(log p + gumbel) is a draw from p (the Gumbel-max trick), and each token's noise is its own: leaving tokens
    out by top-k or top-p changes no other's.
    """
    key = _mix(stream_key(seed, choice) + offset * GOLDEN)
    z = token_ids.astype(np.uint64)
    z *= np.uint64(GOLDEN)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_2)
    z ^= z >> np.uint64(31)
    # 52 bits, in the middle of their interval: with one more the sum would round up to 1, whose logarithm has none.
    uniform = (z >> np.uint64(12)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-52
    return -log(-log(uniform))


def _mix(value: int) -> int:
    value &= _MASK
    value = (value ^ value >> 30) * MIX_1 & _MASK
    value = (value ^ value >> 27) * MIX_2 & _MASK
    return value ^ value >> 31
