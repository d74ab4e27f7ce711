"""What the store says of a fleet's lanes: work, beats, speed. Knows how to ask, not what follows from it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from headrace.autoscaler.decision import Load, Phase, Signals, Worker
from headrace.autoscaler.rate import MovingRate
from headrace.autoscaler.scaler import Member
from headrace.store.beats import Beat, read_beats
from headrace.store.depth import read_depth

_PHASES = {
    "starting": Phase.STARTING,
    "ready": Phase.READY,
    "paused": Phase.PAUSED,
    "draining": Phase.STARTING,
}
"""By the word of a beat. Whoever drains without being asked by us is started again, so it is capacity to come."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One lane at `at` (seconds of the asker's clock). `beats` and `held_by` are by worker id."""

    at: float
    load: Load
    beats: Mapping[str, Beat]
    held_by: Mapping[str, int]


def signals_of(reading: Reading | None, members: Sequence[Member], seen: Set[str]) -> Signals:
    """One lane's reading, seen from those who started the `members`. `seen` are workers whose beat was there before."""
    if reading is None:
        return Signals(tuple(Worker(member.name, _phase(member, None, seen)) for member in members), None)
    ours = {member.worker_id for member in members}
    others = sum(beat.state == Phase.READY for worker, beat in reading.beats.items() if worker not in ours)
    workers = tuple(
        Worker(
            member.name,
            _phase(member, reading.beats.get(member.worker_id), seen),
            reading.held_by.get(member.worker_id, 0),
        )
        for member in members
    )
    return Signals(workers, replace(reading.load, others=others))


def _phase(member: Member, beat: Beat | None, seen: Set[str]) -> Phase:
    """A word that is not known here says nothing."""
    if member.leaving:
        return Phase.LEAVING
    said = None if beat is None else _PHASES.get(beat.state, Phase.SILENT)
    if said is None and member.worker_id in seen:
        return Phase.SILENT
    if said in (None, Phase.STARTING):
        return Phase.CRASHING if member.crashing else Phase.STARTING
    return said


class SignalReader:
    """Asks for all lanes at once. For one thread, since what it has measured so far is its own."""

    def __init__(self, client: Any, lanes: Sequence[str]) -> None:
        self._client = client
        self._rates = {lane: MovingRate() for lane in lanes}

    def read(self, now: float) -> dict[str, Reading]:
        """Every lane. Raises StoreUnavailable."""
        beats = read_beats(self._client)
        return {lane: self._lane(lane, [beat for beat in beats if beat.lane == lane], now) for lane in self._rates}

    def _lane(self, lane: str, beats: Sequence[Beat], now: float) -> Reading:
        rate = self._rates[lane]
        rate.add({beat.worker: beat.metrics for beat in beats})
        depth = read_depth(self._client, lane, [beat.worker for beat in beats])
        load = Load(
            at=now,
            queued_jobs=depth.queued.jobs,
            queued_tokens=depth.queued.tokens,
            held_jobs=depth.held.jobs,
            held_tokens=depth.held.tokens,
            tokens_per_s=rate.per_second,
        )
        return Reading(now, load, {beat.worker: beat for beat in beats}, depth.held_by)
