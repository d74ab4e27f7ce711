"""Where a reader of events stands. Knows how that is written as text, not what lies before or after it."""

import re
from dataclasses import dataclass

from headrace.contract.errors import InvalidRequest

_TEXT = re.compile(r"(?a)1\.(\d{1,15})\.(\d{1,9}f?(?:-\d{1,9}f?)*)(\.end)?")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a reader has seen: events up to `seq`, and of each choice the tokens below its offset.

    The offsets win. A store that lost its tail numbers the same tokens anew, and a reader must neither see them twice
    nor miss one, so `finished` (choices whose finish_reason was seen) and `ended` do not hang on `seq` either.
    """

    seq: int
    offsets: tuple[int, ...]
    finished: frozenset[int] = frozenset()
    ended: bool = False

    @classmethod
    def start(cls, choices: int) -> "Cursor":
        return cls(0, (0,) * choices)

    @classmethod
    def parse(cls, text: str, choices: int, max_tokens: int) -> "Cursor":
        """Inverse of `str`. Raises InvalidRequest for anything that is no cursor of a job of this size."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise _bad(text)
        parts = match[2].split("-")
        offsets = tuple(int(part.rstrip("f")) for part in parts)
        if len(offsets) != choices or max(offsets) > max_tokens:
            raise _bad(text)
        finished = frozenset(choice for choice, part in enumerate(parts) if part.endswith("f"))
        return cls(int(match[1]), offsets, finished, match[3] is not None)

    def __str__(self) -> str:
        parts = (f"{offset}{'f' if choice in self.finished else ''}" for choice, offset in enumerate(self.offsets))
        return f"1.{self.seq}.{'-'.join(parts)}{'.end' if self.ended else ''}"


def _bad(text: str) -> InvalidRequest:
    return InvalidRequest(
        f"{text[:80]!r} is not a cursor of this job.",
        param="cursor",
        next_step="Send the `id` of the last event you received, unchanged, or none to begin at the first event.",
    )
