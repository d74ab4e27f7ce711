"""A last will: when the supervisor is gone, however it went, ends all it had started. Knows pids and nothing else.

Run as a script with a word for people and the pids that live already as arguments, and with the supervisor's pipe as
standard input: `+<pid>` and `-<pid>` lines keep the list, and the end of the pipe is the supervisor's death, which the
kernel tells even when nobody else can (SIGKILL, out of memory).
Imports nothing of Headrace, so that it starts in milliseconds and stays small.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable


def end(pid: int) -> None:
    """Kill a process group, or a lone process that leads none."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):  # it went by itself
            os.kill(pid, signal.SIGKILL)


def watch(lines: Iterable[str], living: Iterable[int] = ()) -> None:
    pids: dict[int, None] = dict.fromkeys(living)
    for line in lines:
        sign, pid = line[0], int(line[1:])
        if sign == "+":
            pids[pid] = None
        else:
            pids.pop(pid, None)
    for pid in reversed(pids):
        end(pid)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watch(sys.stdin, map(int, sys.argv[2:]))
