"""Takes the server's clock out of the scripts: what they are told is then the time, to the millisecond.

All else in them is as it is sent. A run of the machines does not depend on how fast this machine is.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import headrace.queue.redis
from headrace.queue.redis import RedisQueue
from headrace.queue.scripts import SCRIPTS, Script
from tests.contracts.bench import Bench, MemoryBench

_ASKS = "redis.call('TIME')"


def _without_clock(script: Script) -> Script:
    assert script.source.count(_ASKS) == 1, "a script looks at the clock in another way than all did"
    source = script.source.replace(_ASKS, "{ 0, 0 }")
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


@contextmanager
def still_time() -> Iterator[None]:
    """Within it, `set_time` says what time it is on every server."""
    with patch.object(headrace.queue.redis, "SCRIPTS", {verb: _without_clock(SCRIPTS[verb]) for verb in SCRIPTS}):
        yield


def set_time(bench: Bench, now: int) -> None:
    """Milliseconds; for as long as nobody says otherwise."""
    if isinstance(bench, MemoryBench):
        bench.now = now
    else:
        queue = bench.queue
        assert isinstance(queue, RedisQueue)
        queue.verbs = replace(queue.verbs, offset_ms=now)
