"""Log probabilities as bytes, for the journal and the result. Knows the layout, not who reads it.

Everything is 32 bits wide and little-endian, so that packed ids in front of it stay aligned:

    number of output tokens, number of prompt tokens, then for each of them, output first:
    number of alternatives n, logprob, n times (id, logprob)        or 2^32 - 1 alone where there is none (None)

Ids and counts are unsigned, log probabilities float32. The engine rounds them to that at the source, so the live
channel, the journal and the result all show the same numbers.
"""

import struct
from itertools import chain
from typing import Final

from headrace.contract.generation import PromptLogprobs, TokenLogprobs

_NONE: Final = (1 << 32) - 1


def pack_logprobs(logprobs: tuple[TokenLogprobs, ...], prompt_logprobs: PromptLogprobs) -> bytes:
    """At least the two numbers; where both are 0 a writer may leave it out altogether."""
    head = struct.pack("<II", len(logprobs), len(prompt_logprobs))
    return head + b"".join(_pack(entry) for entry in (*logprobs, *prompt_logprobs))


def packed_size(logprobs: tuple[TokenLogprobs, ...], prompt_logprobs: PromptLogprobs) -> int:
    """How many bytes `pack_logprobs` makes of it, without making them."""
    return 8 + sum(4 if entry is None else 8 * (len(entry.top) + 1) for entry in (*logprobs, *prompt_logprobs))


def unpack_logprobs(data: bytes, start: int = 0) -> tuple[tuple[TokenLogprobs, ...], PromptLogprobs, int]:
    """What was packed at `start`, and where it ends. Of no bytes at all nothing; ValueError when some are missing."""
    if start == len(data):
        return (), (), start
    try:
        output, prompt = struct.unpack_from("<II", data, start)
        entries: list[TokenLogprobs | None] = []
        at = start + 8
        for _ in range(output + prompt):
            entry, at = _unpack(data, at)
            entries.append(entry)
    except struct.error as error:
        raise ValueError(f"packed log probabilities are torn: {error}") from error
    return tuple(entry for entry in entries[:output] if entry), tuple(entries[output:]), at


def _pack(entry: TokenLogprobs | None) -> bytes:
    if entry is None:
        return struct.pack("<I", _NONE)
    count = len(entry.top)
    return struct.pack(f"<If{'If' * count}", count, entry.logprob, *chain.from_iterable(entry.top))


def _unpack(data: bytes, at: int) -> tuple[TokenLogprobs | None, int]:
    (count,) = struct.unpack_from("<I", data, at)
    if count == _NONE:
        return None, at + 4
    if count > len(data):
        raise struct.error(f"{count} alternatives in {len(data)} bytes")
    logprob, *top = struct.unpack_from(f"<f{'If' * count}", data, at + 4)
    return TokenLogprobs(logprob, tuple(zip(top[::2], top[1::2], strict=True))), at + 8 * (count + 1)
