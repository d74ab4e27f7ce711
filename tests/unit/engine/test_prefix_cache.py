"""The prefix cache: what is found, what goes first, what is forgotten, and that no page is ever lost."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from engine.block_pool import BlockPool
from engine.prefix_cache import PrefixCache, extend_chain

PAGE = 2


def chain_of(ids: Sequence[int]) -> list[bytes]:
    chain: list[bytes] = []
    extend_chain(chain, ids, PAGE)
    return chain


class Reader:
    """One that computes texts: takes what is found, computes the rest, gives full pages to the cache."""

    def __init__(self, count: int) -> None:
        self.cache = PrefixCache(BlockPool(count))
        self.owned: list[list[int]] = []

    def read(self, ids: Sequence[int]) -> list[int] | None:
        chain = chain_of(ids)
        found = self.cache.find(chain)
        missing = len(chain) - len(found)
        if missing > self.cache.available - self.cache.idle_among(found):
            return None
        self.cache.hold(found)
        pages = [*found, *self.cache.allocate(missing)]
        for index in range(len(found), len(chain)):
            pages[index] = self.cache.keep(pages[index], chain[index], pages[index - 1] if index else None)
        self.owned.append(pages)
        return pages

    def let_go(self, number: int) -> None:
        self.cache.release(self.owned.pop(number))

    def check(self) -> None:
        self.cache.check_integrity(self.owned)


def test_a_name_stands_for_all_that_came_before() -> None:
    assert chain_of([1, 2, 3, 4, 5])[:1] == chain_of([1, 2, 9])
    assert chain_of([1, 2, 3, 4])[1] != chain_of([2, 1, 3, 4])[1]
    assert len({*chain_of([7, 7] * 5)}) == 5
    grown = chain_of([1, 2])
    extend_chain(grown, [1, 2, 3, 4, 5], PAGE)
    assert grown == chain_of([1, 2, 3, 4])


def test_names_tell_ids_apart_that_look_alike_in_bytes() -> None:
    assert chain_of([1, 256]) != chain_of([256, 1])
    assert chain_of([0, 1]) != chain_of([1, 0])
    assert chain_of([65536, 0]) != chain_of([1, 0])


def test_pages_are_shared_while_in_use_and_kept_afterwards() -> None:
    reader = Reader(6)
    first, second = reader.read([1, 2, 3, 4]), reader.read([1, 2, 5, 6])
    assert first
    assert second
    assert first[0] == second[0]
    assert first[1] != second[1]
    reader.let_go(0)
    reader.let_go(0)
    reader.check()
    assert (reader.cache.available, reader.cache.idle) == (6, 3)
    assert reader.read([1, 2, 3, 4]) == first


def test_what_was_let_go_longest_ago_goes_first_and_last_pages_before_first_ones() -> None:
    reader = Reader(6)
    for text in ([1, 1, 1, 1, 1, 1], [2, 2, 2, 2]):
        reader.read(text)
        reader.let_go(0)
    reader.read([3, 3, 3, 3])  # one page was free, and one has to go: the last of the first text
    assert [len(reader.cache.find(chain_of([n] * 6))) for n in (1, 2, 3)] == [2, 2, 2]
    reader.read([4, 4, 4, 4])
    assert [len(reader.cache.find(chain_of([n] * 6))) for n in (1, 2, 3, 4)] == [0, 2, 2, 2]
    reader.check()


def test_what_was_used_again_stays_longer() -> None:
    reader = Reader(4)
    for text in ([1, 1, 1, 1], [2, 2, 2, 2], [1, 1]):
        reader.read(text)
        reader.let_go(0)
    reader.read([3, 3, 3, 3, 3, 3])
    assert [len(reader.cache.find(chain_of([n] * 4))) for n in (1, 2)] == [1, 0]


def test_forgetting_takes_what_was_computed_from_it_too() -> None:
    reader = Reader(8)
    whole = reader.read([1, 2, 3, 4, 5, 6])
    assert whole
    reader.read([1, 2, 9, 9])
    reader.read([8, 8])
    reader.let_go(1)
    reader.cache.forget(whole[1:2])
    reader.check()
    assert len(reader.cache.find(chain_of([1, 2, 3, 4, 5, 6]))) == 1
    reader.cache.forget(whole)
    reader.check()
    assert reader.cache.find(chain_of([1, 2, 9, 9])) == []
    assert reader.cache.find(chain_of([8, 8])) != []


def test_nothing_is_kept_behind_a_page_that_is_forgotten() -> None:
    reader = Reader(4)
    pages = reader.read([1, 2])
    assert pages
    reader.cache.forget(pages)
    more = reader.cache.allocate(1)
    reader.owned[0] += more
    chain = chain_of([1, 2, 3, 4])
    assert reader.cache.keep(more[0], chain[1], pages[0]) == more[0]
    reader.check()
    assert reader.read([1, 2, 3, 4]) is not None  # both computed anew, in pages of its own
    assert set(reader.owned[1]).isdisjoint(reader.owned[0])
    reader.let_go(0)
    reader.let_go(0)
    reader.check()
    assert reader.cache.available == 4


@given(
    st.integers(2, 10),
    st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 1), min_size=1, max_size=12)), max_size=40),
)
def test_any_order_of_calls_keeps_the_account(count: int, calls: list[tuple[int, list[int]]]) -> None:
    reader = Reader(count)
    for number, ids in calls:
        if number < 3:
            before = chain_of(ids)
            known = reader.cache.find(before)
            pages = reader.read(ids)
            assert pages is None or pages[: len(known)] == known
        elif reader.owned and number == 3:
            reader.let_go(len(ids) % len(reader.owned))
        elif reader.owned:
            reader.cache.forget(reader.owned[len(ids) % len(reader.owned)][1:])
        reader.check()
    while reader.owned:
        reader.let_go(0)
    reader.check()
    assert reader.cache.available == count
