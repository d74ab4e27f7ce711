"""Which place on the device each request has between steps: its parameters, its history, its latest token.

A seat is a memory, not a promise: all of it follows from the request's ids, so a request that lost its seat gets
another and the same tokens. Knows ids and parameters, no logits.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from engine.outcome import RequestFailure
from engine.request import Request
from engine.sampler import gone_wrong
from engine.sampling_state import RowState

Integers: TypeAlias = NDArray[np.int64]

_NOBODY: Final = -1
# Temperatures below act like this one: a gap divided by it is out of reach, and stays a number.
_COLDEST: Final = 1e-20
_PARAMETERS: Final = np.dtype(
    [
        ("temperature", np.float32),
        ("top_k", np.int32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("repetition_penalty", np.float32),
        ("frequency_penalty", np.float32),
        ("presence_penalty", np.float32),
        ("noise_key", np.int64),
        ("alternatives", np.int32),
        ("history_slot", np.int32),
    ]
)


@dataclass(slots=True, eq=False)
class Seat:
    """`position` is where the latest token stands that was chosen on the device, `counted` how many tokens of prompt
    and output its history has; -1 for none. `state` is why there is no sampling where a parameter is impossible."""

    index: int
    request: Request
    state: RowState | RequestFailure
    position: int = _NOBODY
    counted: int = _NOBODY


class Seats:
    """`count` of them, and one more, for rows of padding: greedy, alone, remembered by nobody."""

    def __init__(self, count: int, vocab_size: int, device: torch.device) -> None:
        self.padding = count
        self.latest = torch.zeros(count + 1, dtype=torch.int64, device=device)
        self.history = torch.zeros(count, vocab_size, dtype=torch.int32, device=device)
        self._vocab_size = vocab_size
        self._parameters = np.zeros(count + 1, dtype=_PARAMETERS)
        self._parameters[count] = (0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 0, -1, _NOBODY)
        self._free = list(range(count))
        self._taken: OrderedDict[int, Seat] = OrderedDict()  # by identity of the request, least recently used first

    def place(self, requests: Sequence[Request]) -> list[Seat]:
        """A seat for each, those of requests unheard of for longest given up first."""
        assert len(requests) <= self.padding
        for request in requests:
            if id(request) in self._taken:
                self._taken.move_to_end(id(request))
        return [self._taken.get(id(request)) or self._sit(request) for request in requests]

    def parameters(self, seats: Integers) -> NDArray[np.void]:
        """Of each seat, in a column for each parameter.  # [seats]"""
        return self._parameters[seats]

    def remember(self, seat: Seat, known: int) -> None:
        """Makes the seat's history that of its request's first `known` ids; nothing to do where it is."""
        if self._parameters["history_slot"][seat.index] == _NOBODY or seat.counted == known:
            return
        ids, prompt = seat.request.ids, seat.request.prompt_length
        assert known <= len(ids), "a history cannot be made of tokens that are awaited"
        row = 2 * np.bincount(np.array(ids[prompt:known], np.int64), minlength=self._vocab_size)
        row[ids[:prompt]] |= 1
        self.history[seat.index].copy_(torch.from_numpy(row.astype(np.int32)))
        seat.counted = known

    def _sit(self, request: Request) -> Seat:
        if not self._free:
            _, left = self._taken.popitem(last=False)
            self._free.append(left.index)
        index = self._free.pop()
        seat = self._taken[id(request)] = Seat(index, request, self._state(request))
        self._parameters[index] = _row(seat.state, index) if isinstance(seat.state, RowState) else self._parameters[-1]
        return seat

    def _state(self, request: Request) -> RowState | RequestFailure:
        try:
            return RowState(request, self._vocab_size)
        except Exception as error:  # noqa: BLE001 - ends as this request's failure; its neighbours' rows are their own
            return gone_wrong(error)


def _row(state: RowState, index: int) -> tuple[float | int, ...]:
    """A seat's parameters, in the order of `_PARAMETERS`."""
    params = state.request.params
    penalised = params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty
    return (
        max(params.temperature, _COLDEST) if params.temperature else 0.0,
        min(params.top_k, np.iinfo(np.int32).max),
        params.top_p,
        params.min_p,
        params.repetition_penalty,
        params.frequency_penalty,
        params.presence_penalty,
        _signed(state.key),
        -1 if params.logprobs is None else params.logprobs,
        index if penalised else _NOBODY,
    )


def _signed(bits: int) -> int:
    """The same 64 bits as a signed number."""
    return bits - (1 << 64) if bits >> 63 else bits
