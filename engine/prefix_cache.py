"""Which full pages are worth keeping, by what they hold; knows token ids and page numbers, no requests and no tensors.

A page is named by a digest of its own ids and of the page before it, so a name stands for everything up to the page's
end, and requests that begin alike find the same names:

    digest 0 = H("" + ids 0-15)      digest 1 = H(digest 0 + ids 16-31)      digest 2 = H(digest 1 + ids 32-47)  ...

The cache is one owner of each page that it keeps. Whoever owns a kept page owns those before it too, and pages are
given back last page first: so the one that was let go longest ago has none behind it, and can be evicted alone.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from engine.block_pool import BlockPool

_ROOT: Final = b""
_DIGEST_BYTES: Final = 32  # two different texts never meet in one name: nobody can be served the keys of another text


def extend_chain(chain: list[bytes], ids: Sequence[int], page_size: int) -> None:
    """Name the pages that `ids` fill and `chain` does not name yet."""
    for start in range(len(chain) * page_size, len(ids) // page_size * page_size, page_size):
        parent = chain[-1] if chain else _ROOT
        content = array("I", ids[start : start + page_size]).tobytes()
        chain.append(blake2b(parent + content, digest_size=_DIGEST_BYTES).digest())


class PrefixCache:
    """The door to all pages. With `enabled` false it keeps none, and is the pool alone."""

    def __init__(self, pool: BlockPool, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._pool = pool
        self._pages: dict[bytes, int] = {}  # parents always stand before their children
        self._names: dict[int, tuple[bytes, bytes]] = {}  # page -> its digest, and that of the page before it
        self._idle: OrderedDict[int, None] = OrderedDict()  # kept and nobody else's, longest unused first

    @property
    def available(self) -> int:
        """Pages to be had: free, or kept for nobody in particular."""
        return self._pool.free_count + len(self._idle)

    @property
    def idle(self) -> int:
        """Pages that are kept and that no request owns."""
        return len(self._idle)

    def find(self, chain: Sequence[bytes]) -> list[int]:
        """Pages that hold the longest known beginning of `chain`. `hold` them before anything else is allocated."""
        found = []
        for digest in chain:
            page = self._pages.get(digest)
            if page is None:
                break
            found.append(page)
        return found

    def idle_among(self, pages: Iterable[int]) -> int:
        """How many of `pages` would no longer be available once held."""
        return sum(page in self._idle for page in pages)

    def hold(self, pages: Sequence[int]) -> None:
        """One owner more for pages that were found."""
        self._pool.share(pages)
        for page in pages:
            self._idle.pop(page, None)

    def allocate(self, count: int) -> list[int]:
        """Look at `available` first. Free pages, then those of the kept ones that were let go longest ago."""
        while self._pool.free_count < count:
            page, _ = self._idle.popitem(last=False)
            self._drop(page)
        return self._pool.allocate(count)

    def release(self, pages: Sequence[int]) -> None:
        """Give up a request's pages, which are in the order of its text. Kept ones stay until their room is needed."""
        for page in reversed(pages):
            self._pool.release((page,))
            if page in self._names and self._pool.owners(page) == 1:
                self._idle[page] = None

    def keep(self, page: int, digest: bytes, before: int | None) -> int:
        """Keep a full page, all of whose rows were computed; `before` is its owner's page before it, if any.

        Returns the page to use from now on: another, held in its place, if that one has the same content. Nothing is
        kept behind a page that is not, or no more.
        """
        if before is not None and before not in self._names:
            return page
        known = self._pages.get(digest)
        if known is None:
            self._pool.share((page,))
            self._pages[digest] = page
            self._names[page] = digest, _ROOT if before is None else self._names[before][0]
            return page
        if known != page:
            self.hold((known,))
            self._pool.release((page,))
        return known

    def forget(self, pages: Iterable[int]) -> None:
        """Keep these no longer, nor what was computed from them. Owners keep what they own."""
        gone = {self._names[page][0] for page in pages if page in self._names}
        if not gone:
            return
        for digest, page in tuple(self._pages.items()):
            if digest in gone or self._names[page][1] in gone:
                gone.add(digest)
                self._idle.pop(page, None)
                self._drop(page)

    def check_integrity(self, owned: Iterable[Iterable[int]]) -> None:
        """`owned` are the pages of each request."""
        self._pool.check_integrity((*owned, self._names))
        assert {page: digest for digest, page in self._pages.items()} == {
            page: digest for page, (digest, _) in self._names.items()
        }, "a page has two names, or a name two pages"
        assert set(self._idle) == {page for page in self._names if self._pool.owners(page) == 1}, "idle is not idle"
        met = {_ROOT}
        for digest, page in self._pages.items():
            assert self._names[page][1] in met, "a page is kept without the one before it"
            met.add(digest)
        earlier = set[bytes]()
        for page in self._idle:
            digest, parent = self._names[page]
            assert parent not in earlier, "a page would be evicted before one behind it"
            earlier.add(digest)

    def _drop(self, page: int) -> None:
        digest, _ = self._names.pop(page)
        del self._pages[digest]
        self._pool.release((page,))
