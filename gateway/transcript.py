"""Fills text into events of ids and leaves out what a reader has seen. Knows offsets, not where events come from."""

from collections.abc import Callable
from dataclasses import replace

from gateway.cursor import Cursor
from headrace.contract.events import TERMINAL_TYPES, Delta, Event, Started
from headrace.text.detokenizer import TextStream

NewStream = Callable[[str], TextStream]
"""Makes a fresh text stream for one choice, given the revision of the model whose ids come; empty for the job's own."""


class Transcript:
    """One reader's view of one job's events.

    Always fed from the first event on: text is a function of all ids from 0, so a resumed reader's text is made by
    reading again what it has seen and showing the rest. Feeding an event twice shows it once, whatever its `seq`.
    """

    def __init__(self, cursor: Cursor, new_stream: NewStream) -> None:
        self.cursor = cursor
        """Behind the last event that was shown."""
        self._new_stream = new_stream
        self._streams = [new_stream("") for _ in cursor.offsets]
        self._known = [0] * len(cursor.offsets)

    def fits(self, event: Event) -> bool:
        """Whether no token is missing in front of this event."""
        return not isinstance(event, Delta) or event.offset <= self._known[event.choice]

    def is_news(self, event: Event) -> bool:
        """Whether the event, whatever its number, has something that was not fed or shown yet."""
        if isinstance(event, Delta):
            more = event.offset + len(event.token_ids) > self._known[event.choice]
            return more or (event.finish_reason is not None and event.choice not in self.cursor.finished)
        return event.type in TERMINAL_TYPES and not self.cursor.ended

    def feed(self, event: Event) -> Event | None:
        """The event as it is to be shown, or None when the reader has seen all of it. It must fit."""
        if isinstance(event, Delta):
            return self._feed_delta(event)
        if isinstance(event, Started) and not any(self._known):
            self._streams = [self._new_stream(event.revision) for _ in self._streams]
        ended = event.type in TERMINAL_TYPES
        if self.cursor.ended or (event.seq <= self.cursor.seq and not ended):
            return None
        self.cursor = replace(self.cursor, seq=max(event.seq, self.cursor.seq), ended=ended)
        return event

    def _feed_delta(self, delta: Delta) -> Delta | None:
        choice, seen = delta.choice, self.cursor.offsets[delta.choice]
        fresh = delta.token_ids[self._known[choice] - delta.offset :]
        hidden = max(0, seen - self._known[choice])  # shown to this reader on an earlier connection
        if hidden:
            self._push(choice, fresh[:hidden])
        shown = fresh[hidden:]
        text = self._push(choice, shown)
        finishes = delta.finish_reason is not None and choice not in self.cursor.finished
        if not shown and not finishes:
            return None
        if finishes:
            text += self._streams[choice].flush()
        self._move(delta.seq, choice, seen + len(shown), finishes)
        finish_reason = delta.finish_reason if finishes else None
        if delta.offset == seen and (shown, text, finish_reason) == (delta.token_ids, delta.text, delta.finish_reason):
            return delta  # nothing of it was seen before, and whoever published it derived the same text
        return replace(
            delta,
            offset=seen,
            token_ids=shown,
            text=text,
            finish_reason=finish_reason,
            logprobs=delta.logprobs[len(delta.logprobs) - len(shown) :] if delta.logprobs else (),
            prompt_logprobs=delta.prompt_logprobs if seen == 0 else (),
        )

    def _push(self, choice: int, ids: tuple[int, ...]) -> str:
        if not ids:
            return ""
        self._known[choice] += len(ids)
        return self._streams[choice].push(ids).text

    def _move(self, seq: int, choice: int, offset: int, finishes: bool) -> None:
        offsets = (*self.cursor.offsets[:choice], offset, *self.cursor.offsets[choice + 1 :])
        finished = self.cursor.finished | {choice} if finishes else self.cursor.finished
        self.cursor = Cursor(max(seq, self.cursor.seq), offsets, finished, self.cursor.ended)
