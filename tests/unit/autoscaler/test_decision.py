"""The decision as a table: what is there, what the store says, what follows."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.autoscaler.decision import (
    NO_SIGNAL,
    Limits,
    Load,
    Phase,
    ScaleDecision,
    ScaleState,
    Signals,
    Worker,
    decide,
)

NOW = 1000.0
LIMITS = Limits(least=0, most=4, idle_s=60, target_s=10, patience_s=1, stale_s=5)
WAITED = ScaleState(backlog_since=NOW - 1)
IDLE = ScaleState(idle_since=NOW - 60, surplus_since=NOW - 60)
SURPLUS = ScaleState(surplus_since=NOW - 60)
STARTING, READY, PAUSED, SILENT, CRASHING, LEAVING = (
    Phase.STARTING,
    Phase.READY,
    Phase.PAUSED,
    Phase.SILENT,
    Phase.CRASHING,
    Phase.LEAVING,
)


def waiting(jobs: int, tokens: float, held: int = 0, rate: float | None = 100.0, others: int = 0) -> Load:
    return Load(NOW, jobs, tokens, held, held * 256.0, rate, others)


def crew(*workers: Phase | tuple[Phase, int]) -> tuple[Worker, ...]:
    """Named a, b, c …; a pair is a phase and the jobs it holds."""
    pairs = [worker if isinstance(worker, tuple) else (worker, 0) for worker in workers]
    return tuple(Worker("abcdefgh"[i], phase, held) for i, (phase, held) in enumerate(pairs))


@dataclass(frozen=True)
class Case:
    """`wanted` counts workers that are not leaving."""

    workers: tuple[Worker, ...]
    load: Load | None
    wanted: int
    drain: tuple[str, ...] = ()
    state: ScaleState = field(default_factory=ScaleState)
    limits: Limits = LIMITS


NOTHING = waiting(0, 0)
CASES = {
    # up
    "the first job at zero starts one at once": Case((), waiting(1, 300), 1),
    "a pile of jobs at zero starts as many as it needs": Case((), waiting(30, 2500), 3),
    "never more than there may be": Case((), waiting(1000, 1e6), 4),
    "never more than jobs": Case((), waiting(2, 1e6), 2),
    "a first guess until measured": Case((), waiting(30, 2500, rate=None), 3),
    "faster workers, fewer of them": Case((), waiting(30, 2500, rate=500), 1),
    "one that starts is capacity to come": Case(crew(STARTING), waiting(1, 300), 1, state=WAITED),
    "and counts for what it can do only": Case(crew(STARTING), waiting(30, 2500), 3, state=WAITED),
    "a young backlog is left to those who are there": Case(crew(READY), waiting(30, 2500), 1),
    "an old one is not": Case(crew((READY, 32)), waiting(30, 2500, held=32), 4, state=WAITED),
    "one that clears in time needs nobody": Case(crew((READY, 2)), waiting(3, 300, held=2), 1, state=WAITED),
    "another fleet's idle worker takes the first job": Case((), waiting(1, 300, others=1), 0),
    "one that leaves takes its place until it is gone": Case(
        crew(LEAVING), waiting(1, 300), 0, limits=replace(LIMITS, most=1)
    ),
    "and is no capacity": Case(crew(LEAVING), waiting(1, 300), 1),
    "a paused one is no capacity": Case(crew(PAUSED), waiting(1, 300), 2),
    "never fewer than the least": Case(crew(READY), NOTHING, 2, limits=replace(LIMITS, least=2)),
    # crashes
    "one that crashes is no reason for another": Case(crew(CRASHING), waiting(30, 2500), 1, state=WAITED),
    "nor are two": Case(crew(CRASHING, CRASHING), waiting(30, 1e6), 2, state=WAITED),
    "while another runs, need counts again": Case(
        crew((READY, 32), CRASHING), waiting(30, 2500, held=32), 4, state=WAITED
    ),
    # missing signals
    "a store that is away changes nothing": Case(crew(READY, READY), None, 2, state=IDLE),
    "nor does an old reading": Case(crew(READY), replace(NOTHING, at=NOW - 6), 1, state=IDLE),
    "an old backlog starts nobody": Case((), replace(waiting(9, 1e6), at=NOW - 6), 0),
    "beats that are gone change nothing": Case(crew(SILENT, SILENT), NOTHING, 2, state=IDLE),
    "one that is silent beside one that speaks is no capacity": Case(
        crew(SILENT, (READY, 32)), waiting(9, 1900, held=32), 4, state=WAITED
    ),
    # down
    "idle, but not for long": Case(crew(READY), NOTHING, 1, state=ScaleState(idle_since=NOW - 59)),
    "idle for long": Case(crew(READY), NOTHING, 0, ("a",), state=IDLE),
    "idle, one at a time": Case(crew(READY, READY), NOTHING, 1, ("a",), state=IDLE),
    "idle, the next once that one is gone": Case(crew(LEAVING, READY), NOTHING, 1, state=IDLE),
    "idle, down to the least": Case(crew(READY), NOTHING, 1, state=IDLE, limits=replace(LIMITS, least=1)),
    "held jobs are work": Case(crew((READY, 1)), waiting(0, 0, held=1), 1, state=SURPLUS),
    "more than needed: one that holds nothing goes": Case(
        crew((READY, 1), READY, (READY, 2)), waiting(0, 0, held=3), 2, ("b",), state=SURPLUS
    ),
    "more than needed, but not for long": Case(
        crew((READY, 1), READY), waiting(0, 0, held=1), 2, state=ScaleState(surplus_since=NOW - 59)
    ),
    "one that crashes goes first": Case(
        crew((READY, 1), READY, CRASHING), waiting(0, 0, held=1), 2, ("c",), state=SURPLUS
    ),
    "then one that starts": Case(crew((READY, 1), READY, STARTING), waiting(0, 0, held=1), 2, ("c",), state=SURPLUS),
    "more than there may be: the one that gives back the fewest": Case(
        crew((READY, 3), (READY, 2)), waiting(0, 0, held=5), 1, ("b",), limits=replace(LIMITS, most=1)
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_table(case: Case) -> None:
    decision = decide(Signals(case.workers, case.load), case.state, case.limits, NOW)
    assert (decision.wanted, decision.drain) == (case.wanted, case.drain), decision.reason


def test_clocks_start_when_something_begins_and_end_with_it() -> None:
    begun = decide(Signals(crew(READY), NOTHING), ScaleState(), LIMITS, NOW).state
    assert begun == ScaleState(idle_since=NOW, surplus_since=NOW)
    kept = decide(Signals(crew(READY), replace(NOTHING, at=NOW + 9)), begun, LIMITS, NOW + 9).state
    assert kept == begun
    busy = Signals(crew((READY, 1)), replace(waiting(2, 300, held=1), at=NOW + 9))
    assert decide(busy, kept, LIMITS, NOW + 9).state == ScaleState(backlog_since=NOW + 9)


def test_what_was_read_once_does_not_last_by_itself() -> None:
    """A backlog that a worker takes a moment after the reading is none, however late the next reading is."""
    seen = decide(Signals(crew((READY, 1)), waiting(30, 9000, held=1)), ScaleState(), LIMITS, NOW)
    later = decide(Signals(crew((READY, 1)), waiting(30, 9000, held=1)), seen.state, LIMITS, NOW + 3)
    assert (seen.wanted, later.wanted) == (1, 1)
    again = replace(waiting(30, 9000, held=1), at=NOW + 1)
    assert decide(Signals(crew((READY, 1)), again), later.state, LIMITS, NOW + 3).wanted == 4


def test_an_outage_is_no_idle_minute() -> None:
    away = decide(Signals(crew(READY), None), IDLE, LIMITS, NOW)
    assert (away.reason, away.state) == (NO_SIGNAL, ScaleState())
    back = decide(Signals(crew(READY), NOTHING), away.state, LIMITS, NOW)
    assert (back.wanted, back.drain) == (1, ())


def test_one_that_left_for_want_of_need_gives_the_others_their_full_time() -> None:
    load = waiting(0, 0, held=1)
    first = decide(Signals(crew((READY, 1), READY, READY), load), SURPLUS, LIMITS, NOW)
    assert first.drain == ("b",)
    second = decide(Signals((Worker("a", READY, 1), Worker("c", READY)), load), first.state, LIMITS, NOW)
    assert second.drain == ()


class Lane:
    """A lane whose workers start in `start_s`, hold up to 32 jobs of 256 tokens and do 100 tokens a second."""

    def __init__(self, start_s: float, limits: Limits) -> None:
        self.start_s, self.limits, self.state = start_s, limits, ScaleState()
        self.now, self.queued, self.starts, self.drains = NOW, 0, 0, 0
        self.born: dict[str, float] = {}
        self.held: dict[str, float] = {}

    def tick(self, arrivals: int) -> ScaleDecision:
        self.queued += arrivals
        for name in [name for name, born in self.born.items() if self.now - born >= self.start_s]:
            taken = min(self.queued, int(32 - self.held.get(name, 0.0)))
            self.queued -= taken
            self.held[name] = max(0.0, self.held.get(name, 0.0) + taken - 100 / 256)
        workers = tuple(
            Worker(name, READY if name in self.held else STARTING, -int(-self.held.get(name, 0) // 1))
            for name in self.born
        )
        held = sum(worker.held for worker in workers)
        load = Load(self.now, self.queued, self.queued * 256.0, held, held * 256.0, 100.0)
        decision = decide(Signals(workers, load), self.state, self.limits, self.now)
        self.state = decision.state
        for name in decision.drain:
            assert not self.held.get(name) or all(self.held.get(other) for other in self.born)
            del self.born[name]
            self.held.pop(name, None)
            self.drains += 1
        while len(self.born) < decision.wanted:
            self.starts += 1
            self.born[f"w{self.starts:03}"] = self.now
        self.now += 1.0
        return decision


def test_a_steady_trickle_does_not_flap() -> None:
    """A job every 30 s with 60 s of patience: one worker, started once, and never stopped."""
    lane = Lane(start_s=5, limits=LIMITS)
    for second in range(1800):
        lane.tick(1 if second % 30 == 0 else 0)
    assert (lane.starts, lane.drains) == (1, 0)


def test_waves_are_met_and_left_again() -> None:
    lane = Lane(start_s=5, limits=LIMITS)
    for second in range(4000):
        lane.tick(40 if second % 1000 < 10 else 0)
        assert len(lane.born) <= 4
    assert lane.queued == 0
    assert not lane.born
    assert lane.starts == lane.drains
    assert lane.starts <= 4 * 4


@given(
    phases=st.lists(st.tuples(st.sampled_from(Phase), st.integers(0, 3)), max_size=6),
    load=st.none()
    | st.builds(
        Load,
        at=st.sampled_from((NOW, NOW - 10)),
        queued_jobs=st.integers(0, 50),
        queued_tokens=st.floats(0, 1e6),
        held_jobs=st.integers(0, 50),
        tokens_per_s=st.none() | st.floats(1, 1e4),
        others=st.integers(0, 2),
    ),
    since=st.tuples(*[st.none() | st.floats(NOW - 100, NOW)] * 3),
    least=st.integers(0, 3),
    more=st.integers(0, 3),
)
def test_whatever_the_signals(
    phases: list[tuple[Phase, int]],
    load: Load | None,
    since: tuple[float | None, float | None, float | None],
    least: int,
    more: int,
) -> None:
    limits = replace(LIMITS, least=least, most=max(1, least + more))
    workers = crew(*phases)
    present = [worker for worker in workers if worker.phase is not Phase.LEAVING]
    decision = decide(Signals(workers, load), ScaleState(*since), limits, NOW)
    names = {worker.name: worker for worker in present}
    if decision.wanted > len(present):
        assert decision.wanted + len(workers) - len(present) <= limits.most
        assert not decision.drain
    if decision.wanted < len(present):
        assert (decision.wanted, len(decision.drain)) == (len(present) - 1, 1)
        assert decision.wanted >= limits.least
    for name in decision.drain:
        assert names[name].held == 0 or all(worker.held for worker in present)
    if load is None or load.at < NOW - limits.stale_s:
        assert (decision.wanted, decision.drain) == (len(present), ())
