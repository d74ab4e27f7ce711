"""Ids to text as they come, safe at every cut. Knows bytes and stop strings; the only place where output becomes text.

The worker cuts with it before it journals and the gateway shows with it what was journaled, so both see the same text:
it is a function of the ids, the stop strings and whether the choice has ended, never of how the ids were cut up.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.text.stops import StopMatcher
from headrace.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Pushed:
    """`text` can be shown now. `used` of the given ids belong to the output: all, or those up to and including the one
    that completed a stop string, which `stopped` tells."""

    text: str
    used: int
    stopped: bool


class TextStream:
    """The text of one choice. Not shared between threads.

    Incomplete UTF-8 and what may be the start of a stop string are held back until `flush`.
    """

    __slots__ = ("_at_start", "_decode", "_matcher", "_piece", "_stopped")

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._piece = tokenizer.pieces.get
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._matcher = StopMatcher(stop) if stop else None
        self._at_start = tokenizer.strips_leading_space
        self._stopped = False

    def push(self, ids: Sequence[int]) -> Pushed:
        """Take the next ids of the choice. Once stopped, nothing more is used."""
        if self._stopped:
            return Pushed("", 0, stopped=True)
        piece = self._piece
        if self._matcher is None:
            return Pushed(self._text(b"".join([piece(i, b"") for i in ids])), len(ids), stopped=False)
        shown = []
        for used, token_id in enumerate(ids, 1):
            text = self._text(piece(token_id, b""))
            if not text:
                continue
            scan = self._matcher.feed(text)
            shown.append(scan.text)
            if scan.stopped:
                self._stopped = True
                return Pushed("".join(shown), used, stopped=True)
        return Pushed("".join(shown), len(ids), stopped=False)

    def flush(self) -> str:
        """What was held back, at the end of the choice; bytes that never became a character show as U+FFFD."""
        if self._stopped:
            return ""
        self._stopped = True
        text = self._text(b"", final=True)
        if self._matcher is None:
            return text
        scan = self._matcher.feed(text)
        return scan.text if scan.stopped else scan.text + self._matcher.release()

    def _text(self, data: bytes, final: bool = False) -> str:
        text = self._decode(data, final)
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text


def whole_text(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
    """The text of a choice that has ended."""
    stream = TextStream(tokenizer, stop)
    return stream.push(ids).text + stream.flush()
