"""The noise: golden values, since a changed bit would change every continuation of a sampled request."""

import numpy as np
import pytest

from engine.noise import gumbel

IDS = np.arange(4)
_MASK = 2**64 - 1
GOLDEN_ROWS = [
    ((0, 0, 0), [-0.838415090539549, -0.554228256710934, 0.290079997152889, 0.856512612462836]),
    ((1, 0, 0), [-0.583241796620549, 0.0116862224383129, -0.0351517552742899, -0.00142655295994922]),
    ((0, 1, 0), [1.8114674573459, 0.134808586147516, 0.541189417586866, 0.345453871012358]),
    ((0, 0, 1), [2.56587204934456, -0.00495198246512903, -0.286376866075854, -0.398936803380963]),
    ((18446744073709551615, 7, 63), [0.356659756075798, 0.92785264142321, 1.12679441980007, -0.488918202262908]),
]


def splitmix64_finaliser(value: int) -> int:
    """As the paper writes it, on Python integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@pytest.mark.parametrize(("key", "golden"), GOLDEN_ROWS)
def test_golden_values(key: tuple[int, int, int], golden: list[float]) -> None:
    assert gumbel(*key, IDS) == pytest.approx(golden, rel=1e-12)


def test_the_finaliser_is_the_published_one() -> None:
    # SplitMix64's first output for seed 0, as its reference implementation prints it.
    assert splitmix64_finaliser(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_each_part_of_the_key_matters() -> None:
    base = gumbel(1, 2, 3, IDS)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1)):
        assert not np.isin(gumbel(*other, IDS), base).any()


def test_a_tokens_noise_does_not_depend_on_the_others() -> None:
    whole = gumbel(7, 0, 5, np.arange(1000))
    some = np.array([999, 3, 500])
    assert np.array_equal(gumbel(7, 0, 5, some), whole[some])


def test_it_is_finite_for_the_largest_key() -> None:
    assert np.isfinite(gumbel(2**64 - 1, 2**20, 2**27, np.arange(100_000))).all()


def test_it_is_distributed_as_gumbel_says() -> None:
    """Kolmogorov-Smirnov at a level of 1e-6: a fixed draw, so the test passes always or never."""
    for offset in range(5):
        draws = np.sort(gumbel(42, 0, offset, np.arange(20_000)))
        expected = np.exp(-np.exp(-draws))
        steps = np.arange(1, len(draws) + 1) / len(draws)
        assert np.abs(steps - expected).max() < 2.7 / np.sqrt(len(draws))


def test_offsets_and_tokens_are_uncorrelated() -> None:
    table = np.stack([gumbel(42, 0, offset, np.arange(500)) for offset in range(200)])  # [offsets, tokens]
    table = (table - table.mean()) / table.std()
    assert abs((table[1:] * table[:-1]).mean()) < 0.02
    assert abs((table[:, 1:] * table[:, :-1]).mean()) < 0.02
