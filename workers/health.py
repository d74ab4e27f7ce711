"""`python -m workers.health`: whether the worker on this host is well, by its beat. Knows beats, not engines.

For a container's healthcheck: one worker a container, which bears the container's host name. A supervisor that gives
tags asks for one worker by `HEADRACE_WORKER__TAG`.
"""

import sys
from collections.abc import Iterable

from headrace.contract.errors import HeadraceError
from headrace.contract.ids import worker_prefix
from headrace.settings import Settings, load
from headrace.store.beats import Beat, read_beats
from headrace.store.connection import connect, store_errors

MISSED_BEATS = 5
"""As many in a row are no hiccup of a busy machine. The beat itself runs out in the store after ten seconds."""

_WAIT_S = 3.0


def main() -> int:
    """0 while a worker of this host beats, 1 with one line on standard error otherwise."""
    try:
        trouble = _ask(load())
    except HeadraceError as error:
        trouble = error.explain()
    if trouble:
        sys.stderr.write(f"headrace worker: {trouble}\n")
    return 1 if trouble else 0


def trouble_of(beats: Iterable[Beat], settings: Settings, *, prefix: str, now_ms: int) -> str:
    """What is wrong with the worker whose id begins with `prefix` and ends in its tag; empty when nothing is."""
    tag = settings.worker.tag
    ours = [beat for beat in beats if beat.worker.startswith(prefix) and (not tag or beat.worker.endswith(f"_{tag}"))]
    if not ours:
        return f"no worker named {prefix}… beats"
    latest = max(ours, key=lambda beat: beat.at)
    age_ms = now_ms - latest.at
    if age_ms > MISSED_BEATS * settings.queue.beat_ms:
        return f"{latest.worker} beat last {age_ms / 1000:.1f} s ago"
    # The worker itself ends an engine that hangs; twice that time means that it does not.
    if (latest.step_age_ms or 0) > 2000 * settings.worker.progress_timeout_s:
        return f"the engine of {latest.worker} has not stepped for {(latest.step_age_ms or 0) / 1000:.0f} s"
    return ""


def _ask(settings: Settings) -> str:
    with connect(settings.redis.url, connect_timeout_s=_WAIT_S, socket_timeout_s=_WAIT_S) as client:
        beats = read_beats(client)
        with store_errors():
            seconds, micros = client.time()
    return trouble_of(beats, settings, prefix=worker_prefix(), now_ms=seconds * 1000 + micros // 1000)


if __name__ == "__main__":
    sys.exit(main())
