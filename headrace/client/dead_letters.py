"""`client.dlq`: dead letters for programs. Knows waiting; calls and answers are read in `letters`.

Its twin for event loops is `async_dead_letters`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Unpack

from headrace.client import core, letters
from headrace.client.letters import DeadLetter, Filters, LetterOutcome

Tell = Callable[[LetterOutcome], None]


class DeadLetters:
    """The dead jobs of the whole fleet. Every filter is one of `Filters`: ids, model, lane, tenant, code, since, until,
    metadata."""

    def __init__(self, send: Callable[[core.Call], core.Reply]) -> None:
        self._send = send

    def list(self, *, limit: int | None = None, **wanted: Unpack[Filters]) -> Iterator[DeadLetter]:
        """The latest death first, fetched page by page as they are taken."""
        pages = letters.LetterPages(wanted, limit)
        while call := pages.next_call():
            yield from pages.read(self._send(call))

    def show(self, job_id: str) -> DeadLetter:
        """One with its snapshot in `raw`: request, prompt, choices so far, events. Raises JobNotFound."""
        return letters.read_letter(core.read_json(self._send(letters.show_call(job_id))))

    def redrive(
        self,
        *,
        rate: float | None = None,
        limit: int | None = None,
        deadline_seconds: float | None = None,
        dry_run: bool = False,
        tell: Tell = lambda _: None,
        **wanted: Unpack[Filters],
    ) -> tuple[LetterOutcome, ...]:
        """Accept them again as new jobs, the oldest first, at most `rate` a second, and return when all are done.

        Safe to stop anywhere and to say again: a letter is redriven once. `tell` hears of each one as it is done;
        those with an `error` stay parked. `limit` bounds how many are redriven. A dry run changes nothing and keeps no
        rate.
        """
        walk = letters.Walk.redrive(
            wanted,
            rate=rate,
            limit=limit,
            deadline_seconds=deadline_seconds,
            dry_run=dry_run,
            now=time.monotonic(),
        )
        return self._walk(walk, tell)

    def purge(
        self,
        *,
        everything: bool = False,
        limit: int | None = None,
        dry_run: bool = False,
        tell: Tell = lambda _: None,
        **wanted: Unpack[Filters],
    ) -> tuple[LetterOutcome, ...]:
        """Delete them for good: records, events, prompts. Without a filter only with `everything`."""
        walk = letters.Walk.purge(wanted, everything=everything, limit=limit, dry_run=dry_run)
        return self._walk(walk, tell)

    def _walk(self, walk: letters.Walk, tell: Tell) -> tuple[LetterOutcome, ...]:
        outcomes: list[LetterOutcome] = []
        while (step := walk.next(time.monotonic())) is not None:
            if isinstance(step, float):
                time.sleep(step)
                continue
            for outcome in walk.read(self._send(step), time.monotonic()):
                outcomes.append(outcome)
                tell(outcome)
        return tuple(outcomes)
