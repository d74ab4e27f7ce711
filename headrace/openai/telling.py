"""One job's deltas as parts of an OpenAI answer: the prompt in front, the logprobs in shape. Knows no frames."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headrace.contract.events import Delta
from headrace.contract.generation import TokenLogprobs
from headrace.contract.job import Job, Kind
from headrace.openai.logprobs import TextOffsets, chat_logprobs, completion_logprobs, joined
from headrace.openai.projection import Answer
from headrace.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Part:
    """What one delta adds to the choice `index` of the answer."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: dict[str, Any] | None
    token_ids: tuple[int, ...] = ()

    @property
    def says_nothing(self) -> bool:
        return not self.text and self.logprobs is None


class Telling:
    """One reader's answer from one job, whose choices stand in it from `first_index` on.

    Must be given every delta of a choice from offset 0 on.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer, first_index: int = 0) -> None:
        self._job = job
        self._tokenizer = tokenizer
        self._first_index = first_index
        self._offsets = [TextOffsets() for _ in range(job.request.n)]
        self._begun = [False] * job.request.n

    def part(self, delta: Delta) -> Part:
        """The first part of a choice begins with the prompt where `echo` was asked for."""
        in_front: list[bytes] = []
        if self._job.request.echo and not self._begun[delta.choice]:
            in_front = self._tokenizer.prompt_pieces(self._job.request.prompt_ids)
        self._begun[delta.choice] = True
        text = b"".join(in_front).decode("utf-8", "replace") + delta.text
        index = self._first_index + delta.choice
        return Part(index, text, delta.finish_reason, self._logprobs(delta, in_front), delta.token_ids)

    def _logprobs(self, delta: Delta, in_front: list[bytes]) -> dict[str, Any] | None:
        request = self._job.request
        if request.logprobs is None:
            return None
        ids, scores = delta.token_ids, tuple[TokenLogprobs | None, ...](delta.logprobs)
        pieces = [*in_front, *(self._tokenizer.pieces.get(token_id, b"") for token_id in ids)]
        offsets = self._offsets[delta.choice].of(pieces)
        if len(scores) != len(ids):  # from a worker of an older version, which gives none
            return None
        if self._job.kind is Kind.CHAT:
            return chat_logprobs(ids, delta.logprobs, self._tokenizer.written) if ids else None
        if in_front and len(delta.prompt_logprobs) == len(in_front):
            ids, scores = (*request.prompt_ids, *ids), (*delta.prompt_logprobs, *scores)
        if not ids:
            return None
        return completion_logprobs(ids, scores, offsets[-len(ids) :], self._tokenizer.written)


def answers(parts: Iterable[Part]) -> list[Answer]:
    """The parts of whole choices put together, by index."""
    by_index: dict[int, list[Part]] = {}
    for part in parts:
        by_index.setdefault(part.index, []).append(part)
    return [_answer(index, said) for index, said in sorted(by_index.items())]


def _answer(index: int, said: list[Part]) -> Answer:
    reasons = [part.finish_reason for part in said if part.finish_reason is not None]
    text = "".join(part.text for part in said)
    return Answer(
        index,
        text,
        finish_reason=reasons[-1] if reasons else "stop",
        logprobs=joined(part.logprobs for part in said),
        token_ids=tuple(token_id for part in said for token_id in part.token_ids),
    )
