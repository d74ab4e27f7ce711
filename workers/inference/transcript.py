"""One choice of a running job: all its ids, what of them is journaled, and the text not yet told. Knows no queue.

ids       0 ........ sent ........ len(ids)
          journaled      pending: the next delta, with `text`
logprobs  one for each id, or none at all
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.contract.events import Delta
from headrace.contract.generation import PromptLogprobs, TokenLogprobs

FINISHED_BY_STOP = "stop"


class Pushed(Protocol):
    """`used` counts the ids up to and with the one that completed a stop string; `stopped` says there was one."""

    @property
    def text(self) -> str: ...
    @property
    def used(self) -> int: ...
    @property
    def stopped(self) -> bool: ...


class TextStream(Protocol):
    def push(self, ids: Sequence[int]) -> Pushed: ...
    def flush(self) -> str: ...


class Transcript:
    """Owned by the emitter. `resumed_at` is where this attempt began; `closed` means that the journal has everything,
    the finish reason included.

    `cached_tokens` of the prompt did not have to be computed. Behind journaled ids none: an earlier attempt computed
    the prompt for them, and what this one finds may be just that.
    """

    def __init__(
        self,
        choice: int,
        new_stream: Callable[[], TextStream],
        journaled: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprobs, ...] = (),
        prompt_logprobs: PromptLogprobs = (),
    ) -> None:
        self.choice = choice
        self.ids = list(journaled)
        self.logprobs = list(logprobs)
        self.prompt_logprobs = prompt_logprobs
        self.sent = self.resumed_at = len(journaled)
        self.cached_tokens = 0
        self.since = 0.0
        self.finish_reason: str | None = None
        self.closed = False
        self._new_stream = new_stream
        self._stream = new_stream()
        self._text = ""
        if journaled:
            self._stream.push(journaled)

    @property
    def pending(self) -> int:
        return len(self.ids) - self.sent

    def push(
        self,
        offset: int,
        ids: Sequence[int],
        finish_reason: str | None,
        now: float,
        logprobs: Sequence[TokenLogprobs] = (),
        prompt_logprobs: PromptLogprobs = (),
        cached_tokens: int = 0,
    ) -> bool:
        """Take new ids from the engine. True when a stop string cut them, so that the engine need not go on.

        Ids below what is known already are a repeat and fall away; ids above it are a fault of the engine's.
        """
        if self.finish_reason is not None:
            return False
        if offset > len(self.ids):
            raise ValueError(f"choice {self.choice} is at {len(self.ids)}, and the engine went on at {offset}")
        self.prompt_logprobs = self.prompt_logprobs or prompt_logprobs
        if offset == 0:
            self.cached_tokens = cached_tokens
        known = len(self.ids) - offset
        fresh = ids[known:]
        if not self.pending:
            self.since = now
        pushed = self._stream.push(fresh)
        self.ids.extend(fresh[: pushed.used])
        self.logprobs.extend(logprobs[known : known + pushed.used])
        self._text += pushed.text
        if pushed.stopped:
            self.finish_reason = FINISHED_BY_STOP
            return True
        if finish_reason is not None:
            self._text += self._stream.flush()
            self.finish_reason = finish_reason
        return False

    def delta(self) -> Delta | None:
        """The next delta; None when the journal has everything."""
        if self.closed or (not self.pending and self.finish_reason is None):
            return None
        return Delta(
            seq=0,
            choice=self.choice,
            offset=self.sent,
            token_ids=tuple(self.ids[self.sent :]),
            text=self._text,
            finish_reason=self.finish_reason,
            logprobs=tuple(self.logprobs[self.sent :]),
            prompt_logprobs=self.prompt_logprobs if self.sent == 0 else (),
        )

    def journaled(self, delta: Delta) -> None:
        """The journal has taken this delta, which was made since the last push."""
        self.sent = delta.offset + len(delta.token_ids)
        self._text = ""
        self.closed = delta.finish_reason is not None

    def rewind(self, have: int) -> None:
        """The journal has only `have` ids, or more than was thought: go on from there. Text is derived by replay."""
        if have > len(self.ids):
            raise ValueError(f"the journal has {have} ids of choice {self.choice}, and only {len(self.ids)} are known")
        self.sent = have
        self.closed = False
        self._stream = self._new_stream()
        if have:
            self._stream.push(self.ids[:have])
        self._text = self._stream.push(self.ids[have:]).text
        if self.finish_reason is not None:
            self._text += self._stream.flush()
