"""Packed log probabilities: what is written is read, one behind another, and what is torn is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contract.generation import TokenLogprobs
from headrace.contract.logprobs import pack_logprobs, unpack_logprobs

ids = st.integers(0, 2**32 - 1)
values = st.floats(-9999.0, 0.0, width=32)
entries = st.builds(TokenLogprobs, values, st.lists(st.tuples(ids, values), max_size=20).map(tuple))
outputs = st.lists(entries, max_size=6).map(tuple)
prompts = st.lists(st.none() | entries, max_size=6).map(tuple)


@given(outputs, prompts, outputs)
def test_what_is_packed_is_read_and_ends_where_it_should(
    logprobs: tuple[TokenLogprobs, ...],
    prompt: tuple[TokenLogprobs | None, ...],
    behind: tuple[TokenLogprobs, ...],
) -> None:
    packed = pack_logprobs(logprobs, prompt)
    assert unpack_logprobs(packed) == (logprobs, prompt, len(packed))
    assert len(packed) % 4 == 0
    both = packed + pack_logprobs(behind, ())
    assert unpack_logprobs(both, len(packed)) == (behind, (), len(both))
    assert unpack_logprobs(both, len(both)) == ((), (), len(both))


def test_the_layout_is_the_docstrings() -> None:
    packed = pack_logprobs((TokenLogprobs(-0.5, ((7, -0.25),)),), (None,))
    assert packed.hex(" ", 4) == "01000000 01000000 01000000 000000bf 07000000 000080be ffffffff"


@given(st.integers(1, 27))
def test_what_is_torn_is_told(length: int) -> None:
    packed = pack_logprobs((TokenLogprobs(-0.5, ((7, -0.25),)),), (None,))
    with pytest.raises(ValueError, match="torn"):
        unpack_logprobs(packed[:length])
    with pytest.raises(ValueError, match="torn"):
        unpack_logprobs(b"\x01\0\0\0" * 2 + b"\xfe\xff\xff\xff" * 5)
