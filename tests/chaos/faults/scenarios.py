"""What can go wrong between a fleet and its Redis, by name: each does the harm, mends it and says when all was well.

Knows lines, servers and files. Which moment and how much is for the dice to say, so that a seed brings it back.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import redis

from headrace.store.connection import connect
from tests.chaos.faults.append_only import Tail
from tests.chaos.faults.conditions import HALF_OPEN, STALLED, WELL, Conditions
from tests.chaos.faults.fleet import FaultFleet, wait_until
from tests.chaos.faults.proxy import FaultProxy, proxying
from tests.redis_server import RedisServer

SYNC_S = 30.0
_MOST_CUT = 3_000
"""Commands: some seconds of a fleet's writing."""


@dataclass(slots=True)
class Trouble:
    """One round's trouble. `tail` is what Redis has written since the load began."""

    fleet: FaultFleet
    dice: Random
    tail: Tail
    notes: str = ""

    @property
    def lasts_s(self) -> float:
        return self.fleet.times.trouble_s

    def rest(self, share: float = 1.0) -> None:
        """Let the trouble last, `share` of its usual time."""
        time.sleep(self.lasts_s * share)


Scenario = Callable[[Trouble], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A scenario and what it is played on. `forgets`: Redis itself loses its last writes.

    `away`: the store is out of the gateway's reach for most of the time, which has to say so. `on_s`: the longest until
    every stream goes on.
    """

    play: Scenario
    fsync: str = "always"
    forgets: bool = False
    away: bool = False
    on_s: float = 8.0


def cut(trouble: Trouble) -> None:
    """Every connection, a few times in a row, with a FIN or a RST."""
    for _ in range(trouble.dice.randrange(1, 6)):
        for line in trouble.fleet.lines:
            if trouble.dice.random() < 0.8:
                line.cut(reset=trouble.dice.random() < 0.5)
        trouble.rest(0.2 * trouble.dice.random())


def stopped(trouble: Trouble) -> None:
    """SIGSTOP, and SIGCONT once the time is over."""
    with _stopped(trouble.fleet.server):
        trouble.rest()


def stopped_beyond_a_lease(trouble: Trouble) -> None:
    """The same for so long that every worker has stopped by itself and every lease has run out."""
    with _stopped(trouble.fleet.server):
        time.sleep(1.3 * trouble.fleet.times.queue.lease_ms / 1000)


def killed(trouble: Trouble) -> None:
    """SIGKILL, and a new start on what is on disk."""
    trouble.fleet.server.kill()
    trouble.rest(trouble.dice.random())
    trouble.fleet.server.start()


def cut_at_command(trouble: Trouble) -> None:
    """SIGKILL, the last commands gone from the file, a new start."""
    trouble.fleet.server.kill()
    count = trouble.tail.cut_commands(_how_many(trouble))
    trouble.notes = f"{count} commands lost"
    trouble.rest(trouble.dice.random())
    trouble.fleet.server.start()


def cut_at_byte(trouble: Trouble) -> None:
    """The same, in the middle of a command."""
    trouble.fleet.server.kill()
    count = trouble.tail.cut_within(_how_many(trouble), trouble.dice)
    trouble.notes = f"{count} commands lost"
    trouble.rest(trouble.dice.random())
    trouble.fleet.server.start()


def failover(trouble: Trouble) -> None:
    """A replica whose link was cut some commands ago becomes the server; every line moves to it in its own time."""
    fleet, dice = trouble.fleet, trouble.dice
    old = fleet.server
    heir = RedisServer(fleet.folder / f"r{time.monotonic_ns() % 1_000_000}")
    with proxying(old.url) as link:
        heir.start()
        client = connect(heir.url)
        try:
            client.replicaof("127.0.0.1", str(link.port))
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", SYNC_S, "a replica in sync")
            count = _how_many(trouble)
            since = _processed(fleet.client)
            link.set(STALLED)
            wait_until(lambda: _processed(fleet.client) >= since + count, SYNC_S, f"{count} commands")
            lines = dice.sample(fleet.lines, len(fleet.lines))
            at = dice.randrange(len(lines) + 1)
            # Some lines may find it still a replica, which takes no writes.
            _move(lines[:at], heir, dice)
            link.cut(reset=True)
            client.replicaof("NO", "ONE")
            _move(lines[at:], heir, dice)
        finally:
            client.close()
    trouble.notes = f"about {count} commands lost"
    old.kill()
    fleet.move(heir)


def slow(trouble: Trouble, lines: list[FaultProxy]) -> None:
    """Late each way, and narrow."""
    dice, most_s = trouble.dice, trouble.fleet.times.timeout_s / 12
    line = Conditions(delay_up_s=dice.uniform(0, most_s), delay_down_s=dice.uniform(0, most_s))
    _under(trouble, lines, replace(line, bytes_per_s=dice.choice((None, 200_000))))


def stalled(trouble: Trouble, lines: list[FaultProxy]) -> None:
    """Nothing gets through, and all of it comes afterwards."""
    _under(trouble, lines, STALLED)


def half_open(trouble: Trouble, lines: list[FaultProxy]) -> None:
    """What was connected is swallowed for good, and so is all that connects meanwhile; or one direction only."""
    _under(trouble, lines, trouble.dice.choice((HALF_OPEN, Conditions(deaf_up=True), Conditions(deaf_down=True))))


def garbage(trouble: Trouble, lines: list[FaultProxy]) -> None:
    """Rubbish in front of answers, and answers that end in the middle."""
    share = trouble.dice.choice((0.02, 0.1, 0.5))
    _under(trouble, lines, Conditions(rubbish=share, truncated=share / 2))


def at_gateway(play: Callable[[Trouble, list[FaultProxy]], None]) -> Scenario:
    return lambda trouble: play(trouble, [trouble.fleet.gateway_line])


def at_workers(play: Callable[[Trouble, list[FaultProxy]], None]) -> Scenario:
    """One of the workers, or all."""

    def on_some(trouble: Trouble) -> None:
        lines = trouble.fleet.worker_lines
        play(trouble, trouble.dice.choice((lines[:1], lines)))

    return on_some


KINDS: Mapping[str, Kind] = {
    "cut": Kind(cut),
    "stopped": Kind(stopped, away=True),
    "stopped-for-long": Kind(stopped_beyond_a_lease, away=True, on_s=15.0),
    "killed-always": Kind(killed),
    "killed-everysec": Kind(killed, fsync="everysec", forgets=True),
    "tail-at-command": Kind(cut_at_command, forgets=True),
    "tail-at-byte": Kind(cut_at_byte, forgets=True),
    "failover": Kind(failover, forgets=True),
    "gateway-slow": Kind(at_gateway(slow)),
    "gateway-stalled": Kind(at_gateway(stalled), away=True),
    "gateway-half-open": Kind(at_gateway(half_open), away=True),
    "gateway-garbage": Kind(at_gateway(garbage)),
    "workers-slow": Kind(at_workers(slow)),
    "workers-stalled": Kind(at_workers(stalled)),
    "workers-half-open": Kind(at_workers(half_open)),
    "workers-garbage": Kind(at_workers(garbage)),
}


def _under(trouble: Trouble, lines: list[FaultProxy], conditions: Conditions) -> None:
    trouble.notes = f"{len(lines)} lines under {_shown(conditions)}"
    for line in lines:
        line.set(conditions)
    trouble.rest()
    for line in lines:
        line.set(WELL)


def _shown(conditions: Conditions) -> str:
    changed = {name: getattr(conditions, name) for name in Conditions.__slots__}
    return ", ".join(f"{name}={value}" for name, value in changed.items() if value != getattr(WELL, name))


def _how_many(trouble: Trouble) -> int:
    """From one command to some seconds of them, as often few as many."""
    return int(_MOST_CUT ** trouble.dice.random())


def _processed(client: redis.Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])


def _move(lines: list[FaultProxy], to: RedisServer, dice: Random) -> None:
    for line in lines:
        line.switch(to.url)
        line.cut(reset=dice.random() < 0.5)
        time.sleep(0.3 * dice.random())


@contextmanager
def _stopped(server: RedisServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)
