"""One round: clients at work, one kind of trouble, and the judgement. Knows the order of things, not what is done."""

import time
from dataclasses import dataclass
from random import Random

from headrace.store import keys
from tests.chaos.faults.append_only import Tail
from tests.chaos.faults.fleet import FaultFleet, wait_until
from tests.chaos.faults.judging import Bounds, Tally, judge
from tests.chaos.faults.load import Load
from tests.chaos.faults.scenarios import KINDS, Kind, Trouble

FLOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    scenario: str
    seed: int
    seconds: float
    notes: str
    tally: Tally

    @property
    def clean(self) -> bool:
        return not self.tally.faults

    def line(self) -> str:
        tally = self.tally
        return (
            f"{self.scenario:18} seed {self.seed:<4} jobs {tally.jobs:<4} tokens {tally.tokens:<6} lost {tally.lost} "
            f"repeated {tally.repeated} different {tally.different} forgotten {tally.forgotten} "
            f"refused {tally.refused} on again {tally.on_s:.2f} s slowest answer {tally.slowest_s:.2f} s "
            f"{'ok' if self.clean else f'{len(tally.faults)} FAULTS'} ({self.notes})"
        )


def play(fleet: FaultFleet, scenario: str, seed: int) -> Round:
    """The fleet is to be whole, and is whole afterwards unless the tally says otherwise."""
    kind, dice = KINDS[scenario], Random(f"{scenario}:{seed}")
    began = time.monotonic()
    trouble = Trouble(fleet, dice, Tail(fleet.server.folder))
    with Load(fleet.url, fleet.times, Random(dice.random()), f"{scenario}-{seed}-{time.time_ns()}") as load:
        wait_until(load.flows, FLOW_S, "every stream to begin")
        time.sleep(0.3 * dice.random())
        harmed_at = time.monotonic()
        kind.play(trouble)
        healed_at = time.monotonic()
        time.sleep(0.3)
        load.stop_submitting()
        left = _wait_for_the_end(fleet, load)
    tally = judge(load, fleet.client, _bounds(fleet, kind), healed_at)
    tally.faults += left + fleet.dead()
    if kind.away and fleet.times.trouble_s > fleet.times.timeout_s:
        tally.faults += _said_away(load, harmed_at, healed_at)
    tally.faults += _ready_again(load)
    return Round(scenario, seed, time.monotonic() - began, trouble.notes, tally)


def _bounds(fleet: FaultFleet, kind: Kind) -> Bounds:
    times = fleet.times
    return Bounds(kind.forgets, answer_s=2 * times.timeout_s + times.slack_s, on_s=kind.on_s)


def _wait_for_the_end(fleet: FaultFleet, load: Load) -> list[str]:
    """Until every client has heard its last word and no job is left in the store; what was not so in time."""
    limit_s = fleet.times.tokens / fleet.times.speed + 3 * fleet.times.queue.lease_ms / 1000 + 20.0
    try:
        wait_until(load.over, limit_s, "every client's last word")
        wait_until(lambda: not fleet.client.exists(keys.LEASES), limit_s, "no lease")
    except AssertionError as error:
        return [str(error)]
    return []


def _said_away(load: Load, harmed_at: float, healed_at: float) -> list[str]:
    """What `/health/ready` said of an outage that lasted longer than a timeout."""
    said = [
        answer.status
        for answer in load.answers
        if answer.what == "/health/ready" and harmed_at <= answer.at <= healed_at
    ]
    return [] if 503 in said else [f"/health/ready never said that the store was away: {said}"]


def _ready_again(load: Load) -> list[str]:
    said = [answer.status for answer in load.answers if answer.what == "/health/ready"]
    return [] if said and said[-1] == 200 else [f"/health/ready ended with {said[-3:]}"]
