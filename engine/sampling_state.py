"""What sampling remembers of one request between steps; knows ids and parameters, no logits.

All of it follows from the request's ids and parameters, so it is built anew, and the same, wherever a request goes on.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from engine.noise import stream_key
from engine.request import Request
from engine.sampler import sharpness, smallest_gap


class TokenCounts:
    """How often the output has each token, those of the prompt among them where they matter. Grows with the ids."""

    def __init__(self, request: Request, *, with_prompt: bool) -> None:
        self.token_ids = array("i", dict.fromkeys(request.ids[: request.prompt_length]) if with_prompt else ())
        self.counts = array("d", [0.0] * len(self.token_ids))
        self._places = {token_id: place for place, token_id in enumerate(self.token_ids)}
        self._counted = request.prompt_length

    def count(self, ids: Sequence[int]) -> None:
        """Catch up with the ids of the request."""
        for token_id in ids[self._counted :]:
            place = self._places.setdefault(token_id, len(self.token_ids))
            if place == len(self.token_ids):
                self.token_ids.append(token_id)
                self.counts.append(0.0)
            self.counts[place] += 1.0
        self._counted = len(ids)


@dataclass(frozen=True, slots=True)
class Edits:
    """Of one row: ids with the amounts that belong to them, in three runs.

    | biases ... | seen tokens with their counts ... | barred tokens ... |
    0            biases                              seen                len(token_ids)
    """

    token_ids: "array[int]"
    amounts: "array[float]"
    biases: int
    seen: int


NO_EDITS: Final = Edits(array("i"), array("d"), 0, 0)


class RowState:
    """`parameters` are in the order that the compiled sampler takes; `key` names the noise; the row of a request that
    `is_plain` is never edited.

    Raises ValueError for a token id outside of the vocabulary: compiled code writes wherever an id points.
    """

    def __init__(self, request: Request, vocab_size: int) -> None:
        params = request.params
        known = (*request.ids, *params.logit_bias, *chain.from_iterable(params.bad_words))
        if not 0 <= min(known) <= max(known) < vocab_size:
            raise ValueError(f"a token id outside of the vocabulary of {vocab_size}")
        self.request = request
        self.parameters = (
            sharpness(params.temperature),
            float(min(params.top_k, vocab_size)),
            params.top_p,
            smallest_gap(params.min_p),
            params.repetition_penalty,
            params.frequency_penalty,
            params.presence_penalty,
        )
        self.key = stream_key(params.seed, params.choice)
        self._biased = array("i", params.logit_bias.keys())
        self._biases = array("d", params.logit_bias.values())
        repeats = params.repetition_penalty != 1.0
        counts = repeats or params.frequency_penalty or params.presence_penalty
        self._counts = TokenCounts(request, with_prompt=repeats) if counts else None
        self._words = _by_last_but_one(params.bad_words)
        self._barred = [word[0] for word in params.bad_words if len(word) == 1]
        # A file may name an end that the model cannot say; it needs no barring.
        self._ends = [token_id for token_id in request.end_ids if token_id < vocab_size]
        self._edits = bool(params.logit_bias or counts or params.bad_words)
        self.is_plain = not (self._edits or params.min_tokens)

    def edits(self, offset: int) -> Edits:
        """For the token of that number in the request's output. Tokens between its ids and that one are still awaited:
        none may be for a request with bad words of several tokens."""
        request = self.request
        early = offset < request.params.min_tokens
        if not (self._edits or early):
            return NO_EDITS
        ids, amounts = self._biased[:], self._biases[:]
        if self._counts is not None:
            self._counts.count(request.ids)
            ids += self._counts.token_ids
            amounts += self._counts.counts
        seen = len(ids)
        ids.extend(self._barred)
        for start, last in self._words.get(request.ids[-1], ()):
            if request.ids[len(request.ids) - len(start) :] == start:
                ids.append(last)
        if early:
            ids.extend(self._ends)
        amounts.extend([0.0] * (len(ids) - seen))
        return Edits(ids, amounts, len(self._biased), seen)


def _by_last_but_one(words: Sequence[Sequence[int]]) -> dict[int, list[tuple[list[int], int]]]:
    """Bad words of two tokens or more, as their beginning and their last token, by the last token of the beginning."""
    found: dict[int, list[tuple[list[int], int]]] = {}
    for word in words:
        if len(word) > 1:
            found.setdefault(word[-2], []).append(([*word[:-1]], word[-1]))
    return found
