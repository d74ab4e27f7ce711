"""Pages: none lost, none handed out twice, whatever the order of calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.block_pool import NULL_PAGE, BlockPool


def test_pages_are_distinct_and_never_the_null_page() -> None:
    pool = BlockPool(5)
    pages = pool.allocate(5)
    assert len(set(pages)) == 5
    assert NULL_PAGE not in pages
    assert pool.free_count == 0
    assert not pool.can_allocate(1)
    assert pool.can_allocate(0)


def test_releasing_twice_is_noticed() -> None:
    pool = BlockPool(2)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(AssertionError):
        pool.release(pages)


def test_a_shared_page_is_free_when_its_last_owner_lets_go() -> None:
    pool = BlockPool(2)
    pages = pool.allocate(1)
    pool.share(pages)
    pool.release(pages)
    assert (pool.free_count, pool.owners(pages[0])) == (1, 1)
    pool.release(pages)
    assert pool.free_count == 2
    with pytest.raises(AssertionError):
        pool.share(pages)


def test_asking_for_more_than_there_is_is_noticed() -> None:
    with pytest.raises(AssertionError):
        BlockPool(2).allocate(3)


@pytest.mark.parametrize("owned", [[], [[1, 2]], [[1], [1]]], ids=["lost", "one too many", "owned twice"])
def test_integrity_finds_a_wrong_account(owned: list[list[int]]) -> None:
    pool = BlockPool(3)
    assert pool.allocate(1) == [1]
    pool.check_integrity([[1]])
    with pytest.raises(AssertionError):
        pool.check_integrity(owned)


@given(st.integers(1, 12), st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40))
def test_any_order_of_calls_keeps_the_account(count: int, calls: list[tuple[bool, int]]) -> None:
    pool, owned = BlockPool(count), list[list[int]]()
    for takes, number in calls:
        if takes and pool.can_allocate(number):
            owned.append(pool.allocate(number))
        elif not takes and owned:
            pool.release(owned.pop(number % len(owned)))
        pool.check_integrity(owned)
        held = [page for pages in owned for page in pages]
        assert len(held) == len(set(held)) == count - pool.free_count
