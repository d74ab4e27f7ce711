"""Sixteen streams survive the SIGKILL of a worker's parent and of its engine, token for token, on the real model."""

import pytest

from tests.chaos.kill import KINDS, disturbed, undisturbed
from tests.e2e.fleet import Fleet

MAX_TOKENS = 128


@pytest.fixture(scope="module")
def expected(fleet: Fleet) -> list[list[int]]:
    return undisturbed(fleet, MAX_TOKENS)


@pytest.mark.timeout(400)
@pytest.mark.real_model
@pytest.mark.parametrize("kind", KINDS)
def test_no_token_is_lost_repeated_or_different(fleet: Fleet, expected: list[list[int]], kind: str) -> None:
    done = disturbed(fleet, kind, MAX_TOKENS, expected)
    assert done.resumed > 0, "the kill hit nobody: the test proves nothing"
    assert not done.faults
    assert done.differing == 0
