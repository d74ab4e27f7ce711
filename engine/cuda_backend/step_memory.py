"""The fixed memory of a step on the device: what the host sends, what comes back, and the views that kernels take.

Rows and sequences of a step are the first ones of each array; the rest is padding, which no kernel takes for a row.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from engine.cuda_backend.decoder import StepInputs
from engine.cuda_backend.mailbox import Field, Mailbox
from engine.cuda_backend.seats import Seats
from kernels.ops import Sampled, SamplingTable
from kernels.reference.sampling_table import MOST_ALTERNATIVES

# Biases and barred tokens of a step together, each; a step with more of them brings lists of its own.
LISTED: Final = 4096


@dataclass(frozen=True, slots=True)
class Room:
    """The most that a step holds."""

    rows: int
    sequences: int
    pages: int  # of one table


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a step's launches depend on: padded rows, sequences, pages of each table, rows that sample."""

    rows: int
    sequences: int
    pages: int
    samples: int


class StepMemory:
    """For steps that have their place in `room`."""

    def __init__(self, room: Room, vocab_size: int, hidden: int, device: torch.device) -> None:
        rows, sequences, pages = room.rows, room.sequences, room.pages
        self.inputs = Mailbox(_input_fields(rows, sequences, pages), device)
        self.results = Mailbox(_result_fields(rows, sequences), device)
        self._token_ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self._sampling_hidden = torch.zeros(sequences, hidden, device=device)
        self._logits = torch.zeros(sequences, vocab_size, device=device)
        self._scores = torch.zeros(sequences, vocab_size, device=device)
        self._mask = torch.zeros(1, -(-vocab_size // 32), dtype=torch.int32, device=device)

    def step_inputs(self, bucket: Bucket) -> StepInputs:
        given = self.inputs.tensors
        rows, sequences = bucket.rows, bucket.sequences
        return StepInputs(
            token_ids=self._token_ids[:rows],
            positions=given["positions"][:rows],
            slots=given["slots"][:rows],
            row_starts=given["row_starts"][: sequences + 1],
            context_lens=given["context_lens"][:sequences],
            tables=given["tables"][: sequences * bucket.pages].view(sequences, bucket.pages),
        )

    def settle_token_ids(self, rows: int, latest: Tensor) -> None:
        """Ids as the host sent them; where it named a seat, the token that was chosen there last."""
        given = self.inputs.tensors
        seats = given["fed_from"][:rows]
        chosen = latest.index_select(0, seats.clamp(min=0)).clamp_(min=0)  # a row without a token has failed already
        torch.where(seats >= 0, chosen, given["token_ids"][:rows], out=self._token_ids[:rows])

    def sampling_hidden(self, stream: Tensor, samples: int) -> Tensor:
        """The stream's rows that sample, side by side.  # [samples, hidden]"""
        out = self._sampling_hidden[:samples]
        return torch.index_select(stream, 0, self.inputs.tensors["sampled_rows"][:samples], out=out)

    def logits(self, samples: int) -> Tensor:
        return self._logits[:samples]

    def scores(self, samples: int) -> Tensor:
        return self._scores[:samples]

    def table(self, samples: int, history: Tensor) -> SamplingTable:
        given = self.inputs.tensors
        return SamplingTable(
            temperature=given["temperature"][:samples],
            top_k=given["top_k"][:samples],
            top_p=given["top_p"][:samples],
            min_p=given["min_p"][:samples],
            repetition_penalty=given["repetition_penalty"][:samples],
            frequency_penalty=given["frequency_penalty"][:samples],
            presence_penalty=given["presence_penalty"][:samples],
            noise_key=given["noise_key"][:samples],
            offset=given["offset"][:samples],
            alternatives=given["alternatives"][:samples],
            history_slot=given["history_slot"][:samples],
            history=history,
            mask_slot=given["mask_slot"][:samples],
            mask=self._mask,
            bias_offsets=given["bias_offsets"][: samples + 1],
            bias_ids=given["bias_ids"],
            bias_values=given["bias_values"],
            barred_offsets=given["barred_offsets"][: samples + 1],
            barred_ids=given["barred_ids"],
        )

    def sampled(self, samples: int) -> Sampled:
        out = self.results.tensors
        return Sampled(
            token_ids=out["sampled_ids"][:samples],
            logprobs=out["logprobs"][:samples],
            top_ids=out["top_ids"][:samples],
            top_logprobs=out["top_logprobs"][:samples],
        )

    def note_latest(self, seats: Seats, samples: int) -> None:
        """Each sampled token to its seat, for the next step to begin with."""
        chosen = self.results.tensors["sampled_ids"][:samples]
        seats.latest.index_copy_(0, self.inputs.tensors["seats"][:samples], chosen)

    def note_sound(self, stream: Tensor) -> None:
        """Which rows are finite numbers."""
        torch.all(torch.isfinite(stream), 1, out=self.results.tensors["sound"][: len(stream)])


def _input_fields(rows: int, sequences: int, pages: int) -> dict[str, Field]:
    def each(dtype: torch.dtype, count: int, *names: str) -> dict[str, Field]:
        return {name: Field(dtype, (count,)) for name in names}

    whole, number = torch.int32, torch.float32
    return (
        each(torch.int64, rows, "token_ids", "fed_from", "positions", "slots")
        | each(torch.int64, sequences, "sampled_rows", "seats", "noise_key", "offset")
        | each(whole, sequences, "context_lens", "top_k", "alternatives", "history_slot", "mask_slot")
        | each(whole, sequences + 1, "row_starts", "bias_offsets", "barred_offsets")
        | each(number, sequences, "temperature", "top_p", "min_p")
        | each(number, sequences, "repetition_penalty", "frequency_penalty", "presence_penalty")
        | each(whole, LISTED, "bias_ids", "barred_ids")
        | each(number, LISTED, "bias_values")
        | each(whole, sequences * pages, "tables")  # the last, since a step sends as much of it as it needs
    )


def _result_fields(rows: int, sequences: int) -> dict[str, Field]:
    return {
        "sampled_ids": Field(torch.int64, (sequences,)),
        "logprobs": Field(torch.float32, (sequences,)),
        "top_ids": Field(torch.int32, (sequences, MOST_ALTERNATIVES)),
        "top_logprobs": Field(torch.float32, (sequences, MOST_ALTERNATIVES)),
        "sound": Field(torch.bool, (rows,)),
    }
