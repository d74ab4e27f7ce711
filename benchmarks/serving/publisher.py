"""A worker's side of many streams at once: claims jobs and appends tokens at a pace. Knows the queue, has no engine.

It writes what an emitter writes, through the same verbs and one pipeline a step, and is cheaper than one: the tokens
are there already, and commands go to the socket as they are packed.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import hiredis
import redis

from benchmarks.serving.stand import REVISION
from headrace.contract.events import Delta
from headrace.contract.job import Job, lane_of
from headrace.queue.base import Append, ClaimRequest, Timing
from headrace.queue.redis import RedisQueue
from headrace.queue.scripts import SCRIPTS
from headrace.queue.verbs import Verbs

WORKER: Final = "w_stand_1_a"
SEQ_OF_FIRST_DELTA: Final = 3
"""`accepted` and `started` come before it."""

_RENEW_S: Final = 3.0
_LETTERS: Final = b"the quick brown fox jumps over the lazy dog "
_PLENTY: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """`step_s` between two steps of the engine, each a token of every stream; a stream's tokens are written every
    `gather` steps, the streams in turns, as rule 15 has it for streams that did not begin together."""

    step_s: float
    gather: int


def claim_all(client: redis.Redis, model: str, count: int) -> list[Job]:
    """That many jobs of the lane, oldest first, their attempts begun."""
    queue = RedisQueue(client, Timing())
    jobs: list[Job] = []
    while len(jobs) < count:
        wanted = min(32, count - len(jobs))
        request = ClaimRequest((lane_of(model, "stable"),), WORKER, REVISION, REVISION, _PLENTY, _PLENTY, wanted)
        jobs += queue.claim(request)
    queue.append([Append(job.lease) for job in jobs])
    return jobs


def publish(url: str, jobs: Sequence[Job], pace: Pace, seconds: float) -> dict[str, list[float]]:
    """Append to all of them for so long. When each delta was handed to the store, by job, in `time.monotonic`."""
    verbs = Verbs(Timing())
    sent: dict[str, list[float]] = {job.id: [] for job in jobs}
    offsets = dict.fromkeys(sent, 0)
    with redis.Redis.from_url(url) as client, _Wire(url) as wire:
        queue = RedisQueue(client, Timing())
        leases = [job.lease for job in jobs]
        began = time.monotonic()
        renewed, step = began, 0
        while (now := time.monotonic()) < began + seconds:
            if now > renewed + _RENEW_S:
                queue.renew(WORKER, leases)
                renewed = now
            due = jobs[step % pace.gather :: pace.gather]
            commands = []
            for job in due:
                offset = offsets[job.id]
                ids = tuple(_LETTERS[(offset + i) % len(_LETTERS)] for i in range(pace.gather))
                write = Append(job.lease, (Delta(0, 0, offset, ids, bytes(ids).decode()),))
                commands.append(("EVALSHA", SCRIPTS["append"].sha, 0, *verbs.append(write).args))
                offsets[job.id] = offset + len(ids)
            packed = b"".join(hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type]
            now = time.monotonic()
            for job in due:
                sent[job.id].append(now)
            wire.send(packed, len(commands))
            step += 1
            time.sleep(max(0.0, began + step * pace.step_s - time.monotonic()))
    return sent


class _Wire:
    """One blocking connection that sends packed commands and looks at every answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=self)

    def __enter__(self) -> "_Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, packed: bytes, answers: int) -> None:
        """Returns when all of them are answered. Raises RuntimeError for an answer that is not OK."""
        self._socket.sendall(packed)
        while answers:
            answer = self._reader.gets()
            if answer is self:
                self._reader.feed(self._socket.recv(65_536))
            elif not isinstance(answer, list) or answer[0] != b"OK":
                raise RuntimeError(f"the store answered {answer!r} to an append")
            else:
                answers -= 1
