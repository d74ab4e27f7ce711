"""Ends asyncio tasks for good. Knows a fault of Python 3.11, not what the tasks do."""

import asyncio
from typing import Any

_AGAIN_S = 0.05


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these tasks and return once all of them are done, whatever their results.

    Says it again until it is heard: `asyncio.wait_for` of Python 3.11, which redis-py sends its commands with, returns
    its result and drops the cancellation when both come at once. A task that goes on in a loop would never end.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as lost
