"""Writes key/value heads into their slots and reads whole pages back; knows slots and pages, no requests.

slot = page * page_size + offset in page        cache [num_pages, page_size, ...] is contiguous
"""

from torch import Tensor


def write_pages(cache: Tensor, slots: Tensor, values: Tensor) -> None:
    cache.flatten(0, 1).index_copy_(0, slots, values)


def gather_pages(cache: Tensor, tables: Tensor) -> Tensor:
    sequences, pages = tables.shape
    page_size = cache.shape[1]
    found = cache.flatten(1).index_select(0, tables.flatten())
    return found.view(sequences, pages * page_size, *cache.shape[2:])
