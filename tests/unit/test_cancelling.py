"""A task that drops a cancellation ends all the same."""

import asyncio

from headrace.cancelling import end_tasks


async def test_tasks_end_that_hear_only_the_third_call() -> None:
    dropped = 0

    async def deaf() -> None:
        nonlocal dropped
        while dropped < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                dropped += 1
        await asyncio.sleep(60)

    async def broken() -> None:
        raise ZeroDivisionError

    async def done() -> int:
        return 7

    tasks = [asyncio.create_task(work) for work in (deaf(), broken(), done())]
    await asyncio.sleep(0)
    await end_tasks(*tasks)
    assert dropped == 2
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), ZeroDivisionError)
    assert tasks[2].result() == 7
