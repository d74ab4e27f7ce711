"""The proof that a machine's products are exact: it holds here, and finds what would break it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.engine.cpu_backend.drawn_models import why_not

if why_not() is not None:
    pytest.skip(f"the fused backend: {why_not()}", allow_module_level=True)

from engine.cpu_backend import self_test


def test_products_are_proven_exact() -> None:
    assert self_test.products_are_exact((64, 72, 576, 1536, 3000))


def test_a_product_that_saturates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = self_test._products

    def saturated(x: NDArray[np.int8], scales: NDArray[np.float32], tiles: NDArray[Any]) -> NDArray[np.float32]:
        return np.minimum(right(x, scales, tiles), np.float32(1e6))

    monkeypatch.setattr(self_test, "_products", saturated)
    assert not self_test.products_are_exact((576,))


def test_a_row_that_depends_on_its_neighbours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = self_test._products

    def dependent(x: NDArray[np.int8], scales: NDArray[np.float32], tiles: NDArray[Any]) -> NDArray[np.float32]:
        return right(x, scales, tiles) + np.float32(len(x) == 7)

    monkeypatch.setattr(self_test, "_products", dependent)
    assert not self_test.products_are_exact((64,))
