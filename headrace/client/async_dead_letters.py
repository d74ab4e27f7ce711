"""`client.dlq` for event loops. Knows waiting; decides nothing that its sync twin would decide too."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Unpack

from headrace.client import core, letters
from headrace.client.dead_letters import Tell
from headrace.client.letters import DeadLetter, Filters, LetterOutcome


class AsyncDeadLetters:
    """Arguments, answers and errors are those of `DeadLetters`. A redrive that is cancelled has done what it told of,
    and perhaps one call more; saying it again does nothing twice."""

    def __init__(self, send: Callable[[core.Call], Awaitable[core.Reply]]) -> None:
        self._send = send

    async def list(self, *, limit: int | None = None, **wanted: Unpack[Filters]) -> AsyncGenerator[DeadLetter, None]:
        """As `DeadLetters.list`."""
        pages = letters.LetterPages(wanted, limit)
        while call := pages.next_call():
            for letter in pages.read(await self._send(call)):
                yield letter

    async def show(self, job_id: str) -> DeadLetter:
        """As `DeadLetters.show`."""
        return letters.read_letter(core.read_json(await self._send(letters.show_call(job_id))))

    async def redrive(
        self,
        *,
        rate: float | None = None,
        limit: int | None = None,
        deadline_seconds: float | None = None,
        dry_run: bool = False,
        tell: Tell = lambda _: None,
        **wanted: Unpack[Filters],
    ) -> tuple[LetterOutcome, ...]:
        """As `DeadLetters.redrive`."""
        walk = letters.Walk.redrive(
            wanted,
            rate=rate,
            limit=limit,
            deadline_seconds=deadline_seconds,
            dry_run=dry_run,
            now=time.monotonic(),
        )
        return await self._walk(walk, tell)

    async def purge(
        self,
        *,
        everything: bool = False,
        limit: int | None = None,
        dry_run: bool = False,
        tell: Tell = lambda _: None,
        **wanted: Unpack[Filters],
    ) -> tuple[LetterOutcome, ...]:
        """As `DeadLetters.purge`."""
        walk = letters.Walk.purge(wanted, everything=everything, limit=limit, dry_run=dry_run)
        return await self._walk(walk, tell)

    async def _walk(self, walk: letters.Walk, tell: Tell) -> tuple[LetterOutcome, ...]:
        outcomes: list[LetterOutcome] = []
        while (step := walk.next(time.monotonic())) is not None:
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            for outcome in walk.read(await self._send(step), time.monotonic()):
                outcomes.append(outcome)
                tell(outcome)
        return tuple(outcomes)
