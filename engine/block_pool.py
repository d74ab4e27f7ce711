"""Hands out pages and takes them back, with counts of who shares them; knows no tensors and no requests."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

# Never handed out: it stays zero and fills the unused ends of block tables.
NULL_PAGE: Final = 0


class BlockPool:
    """`total` pages, numbered from 1: page 0 is the null page. Ask `can_allocate` before `allocate`."""

    def __init__(self, total: int) -> None:
        assert total >= 1
        self.total = total
        self._free = list(range(total, NULL_PAGE, -1))
        self._holders = [0] * (total + 1)  # holders of each page, more than one once prefixes are shared

    @property
    def free_count(self) -> int:
        return len(self._free)

    def can_allocate(self, count: int) -> bool:
        return count <= len(self._free)

    def allocate(self, count: int) -> list[int]:
        """`count` pages with one holder each."""
        assert self.can_allocate(count)
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = 1
        return pages

    def release(self, pages: Iterable[int]) -> None:
        """One holder fewer for each page; pages without a holder are free again."""
        for page in pages:
            assert self._holders[page] > 0, f"page {page} was released twice"
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def check_integrity(self, held: Iterable[int]) -> None:
        """AssertionError unless the pages that requests hold (`held`, repeated where shared) are all that is missing.

        For idle moments and for tests: it walks every page.
        """
        expected = Counter(held)
        assert NULL_PAGE not in expected, "the null page was handed out"
        assert len(set(self._free)) == len(self._free), "a page is free twice"
        for page in range(1, self.total + 1):
            assert self._holders[page] == expected[page], f"page {page}: {self._holders[page]} != {expected[page]}"
        assert len(self._free) == self.total - len(expected), "a page is neither free nor held"
