"""Says in Python's word that memory has run out: torch has one of its own for a device, and none for the host."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

_HOST: Final = "can't allocate memory"  # in the text of torch's allocator for the CPU


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises MemoryError in place of what torch raises."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or _HOST in str(error):
            raise MemoryError(str(error)) from error
        raise
