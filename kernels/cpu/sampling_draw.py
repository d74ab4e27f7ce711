"""The token with the highest gap and noise, noise with the bits of `engine.noise`; knows scores and their border.

A block whose best token would need more noise than its tokens have is not looked at again.
"""

from typing import Any, Final

import numpy as np

from kernels.cpu.compiling import inlined, merged
from kernels.cpu.sampling_blocks import BLOCK
from kernels.cpu.sampling_elementary import log

_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S12, _S27, _S30, _S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)
_ALL_ONES: Final = np.uint64(0xFFFFFFFFFFFFFFFF)
_NOISE_BITS: Final = 52
MOST_NOISE: Final = 37.0
"""No 52 random bits give more."""


@inlined
def _mixed(z: Any) -> Any:
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@inlined
def noise_key(stream: Any, offset: Any) -> Any:
    """Names the noise of one position of a stream."""
    return _mixed(stream + offset * _GOLDEN)


@inlined
def random_bits(key: Any, token: Any) -> Any:
    return _mixed(np.uint64(token) * _GOLDEN + key)


@inlined
def gumbel(random: Any) -> Any:
    uniform = (float(np.int64(random >> _S12)) + 0.5) * 2.0**-_NOISE_BITS
    return -log(-log(uniform))


@inlined
def least_random(noise: Any) -> Any:
    """No smaller 64 random bits give as much noise.

    noise >= x  <=>  1 - uniform <= 1 - exp(-exp(-x)), which is less than exp(-x). The margin is far wider than any
    rounding, and costs a look at a token in a million.
    """
    if noise <= 1e-5:
        return np.uint64(0)
    from_top = np.exp(-noise) * (1.0 + 1e-6) * 2.0**_NOISE_BITS + 1.0
    return _ALL_ONES - (np.uint64(np.int64(from_top)) << _S12)


@merged
def draw(
    scores: Any,
    maxima: Any,
    best: Any,
    sharpness: Any,
    least_gap: Any,
    key: Any,
    border: Any,
    last_equal: Any,
    first: Any,
) -> Any:
    """The token of the highest gap + noise among those above the border, and those equal to it up to an id.

    Starts from `first`, the best one: few others can beat its noise.
    """
    chosen, highest = first, gumbel(random_bits(key, first))
    for block in range(len(maxima)):
        needed = highest - (maxima[block] - best) * sharpness
        if maxima[block] < border or needed > MOST_NOISE:
            continue
        least = least_random(needed)
        start, end = block * BLOCK, min((block + 1) * BLOCK, len(scores))
        lucky = 0
        for index in range(start, end):
            lucky += random_bits(key, index) >= least
        if lucky == 0:
            continue
        for index in range(start, end):
            random, score = random_bits(key, index), scores[index]
            gap = (score - best) * sharpness
            if random < least or gap < least_gap or score < border or (score == border and index > last_equal):
                continue
            total = gap + gumbel(random)
            if total > highest or (total == highest and index < chosen):
                chosen, highest = index, total
    return chosen
