"""torch's ways to say that memory has run out become one, and its other errors stay what they are."""

import pytest
import torch

from engine.torch_backend.memory_errors import memory_errors


def test_the_host_has_no_memory() -> None:
    with pytest.raises(MemoryError, match="1125899906842624 bytes"), memory_errors():
        torch.empty(1 << 50, dtype=torch.uint8)


def test_a_device_has_no_memory() -> None:
    with pytest.raises(MemoryError), memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="size"), memory_errors():
        torch.ones(2) + torch.ones(3)
