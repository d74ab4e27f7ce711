"""Rotations made of a coarse and a fine angle, against float64 angles of their own."""

import numpy as np
import pytest
import torch

from engine.models.shape import RotaryShape
from engine.torch_backend.layers.rope import Rotary

CPU = torch.device("cpu")
CONTEXT = 131_072
POSITIONS = torch.tensor([0, 1, 255, 256, 257, 8191, 65_537, 131_071])


@pytest.mark.parametrize("factors", [None, tuple(1.0 + 7.0 * i / 31 for i in range(32))], ids=["plain", "scaled"])
def test_a_position_is_turned_by_its_own_angle(factors: tuple[float, ...] | None) -> None:
    rotation = Rotary(RotaryShape(500_000.0, factors), 64, CONTEXT, CPU).at(POSITIONS)
    frequencies = 500_000.0 ** (-np.arange(32) / 32) / (np.array(factors) if factors else 1.0)
    angles = np.outer(POSITIONS.numpy(), frequencies)
    cos, sin = np.cos(angles), np.sin(angles)
    assert rotation.cos.shape == (8, 1, 64)
    np.testing.assert_allclose(rotation.cos[:, 0].numpy(), np.hstack((cos, cos)), atol=1e-7)
    np.testing.assert_allclose(rotation.sin[:, 0].numpy(), np.hstack((-sin, sin)), atol=1e-7)


def test_a_position_has_the_same_bits_in_any_step_and_under_any_context() -> None:
    long, short = (Rotary(RotaryShape(10_000.0), 80, context, CPU) for context in (CONTEXT, 300))
    positions = torch.arange(300)
    together = long.at(positions)
    for position in positions:
        alone = short.at(position.reshape(1))
        assert torch.equal(alone.cos[0], together.cos[position])
        assert torch.equal(alone.sin[0], together.sin[position])
