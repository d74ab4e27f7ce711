"""Who owns which page of the KV cache; knows page numbers and counts, no requests, no contents and no tensors."""

from collections import deque
from collections.abc import Iterable

NULL_PAGE = 0
"""Never handed out: it stays zero and fills the unused ends of block tables."""


class BlockPool:
    """Pages 1 to `count` (page 0 is nobody's). A page may have several owners: requests, and the cache."""

    def __init__(self, count: int) -> None:
        assert count >= 1
        self.count = count
        self._free = deque(range(NULL_PAGE + 1, NULL_PAGE + 1 + count))
        self._owners = [0] * (NULL_PAGE + 1 + count)

    @property
    def free_count(self) -> int:
        return len(self._free)

    def owners(self, page: int) -> int:
        return self._owners[page]

    def can_allocate(self, count: int) -> bool:
        return count <= len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Ask `can_allocate` first. The pages hold whatever their last owner left."""
        assert self.can_allocate(count)
        pages = [self._free.popleft() for _ in range(count)]
        for page in pages:
            self._owners[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One owner more for each; a page that nobody owns cannot be shared."""
        for page in pages:
            assert self._owners[page] > 0, f"page {page} is nobody's"
            self._owners[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """One owner less for each; a page without owners is free again."""
        for page in pages:
            assert self._owners[page] > 0, f"page {page} was free already"
            self._owners[page] -= 1
            if not self._owners[page]:
                self._free.append(page)

    def check_integrity(self, owned: Iterable[Iterable[int]]) -> None:
        """`owned` are the pages of each owner. Every page is free or owned as often as it is counted."""
        counts = [0] * len(self._owners)
        for pages in owned:
            for page in pages:
                counts[page] += 1
        assert counts == self._owners, "owners and counts disagree"
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        assert free == {page for page in range(1, len(counts)) if not counts[page]}, "a page is lost"
