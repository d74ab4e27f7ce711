"""The parts of one inference worker, made from its settings and tied to each other. Starts none, and knows no end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.contract.job import Job
from headrace.queue.base import Queue, ReapRequest
from headrace.settings import Settings
from headrace.store import keys
from headrace.store.journal import Journal, Journaled
from headrace.store.payloads import Payloads, open_payloads
from headrace.store.records import result_size
from headrace.telemetry.metrics import Recorder
from workers.inference.doorbell import Doorbell
from workers.inference.emitter import Emitter, EmitterParts
from workers.inference.engine_process import EngineProcess, EngineProcessParts
from workers.inference.facts import Watcher, everyone
from workers.inference.heartbeat import Heartbeat, HeartbeatParts
from workers.inference.holdings import Holdings
from workers.inference.inbox import Inbox, NewStream
from workers.inference.intake import Intake, IntakeParts, Pauser
from workers.inference.leases import Control, LeaseParts, Leases
from workers.inference.messages import ChildOptions, Ready
from workers.inference.metrics import record_reap
from workers.inference.metrics_watcher import MetricsWatcher
from workers.inference.notice_watch import watch_for_notices
from workers.inference.served_model import ServedModel
from workers.inference.spawning import EngineChild
from workers.inference.ticker import OnCrash, Ticker, WorkerThread
from workers.notices.watcher import NoticeWatcher


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker is made from: `client` is the store's, `first` an engine process that was started before, and
    `open_queue` is called as `RedisQueue`."""

    worker: str
    lane: str
    model: ServedModel
    settings: Settings
    client: Any
    watchers: tuple[Watcher, ...]
    first: EngineChild | None
    open_queue: Callable[..., Queue]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the parts have to say to the worker, each on a thread of its own. `stop` takes the seconds that its end may
    take at most; `on_ready` is called for each engine, and answers with what makes the text side of a choice."""

    on_ready: Callable[[Ready], NewStream]
    on_failure: Callable[[str], None]
    on_crash: OnCrash
    stop: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Shared:
    """What most parts work with."""

    queue: Queue
    payloads: Payloads
    holdings: Holdings
    metrics: Recorder
    inbox: Inbox
    tell: Watcher


@dataclass(frozen=True, slots=True)
class Assembly:
    """Every part that is started, asked or ended."""

    queue: Queue
    holdings: Holdings
    metrics: Recorder
    inbox: Inbox
    intake: Intake
    engine: EngineProcess
    emitter: Emitter
    heartbeat: Heartbeat
    doorbell: Doorbell
    notices: NoticeWatcher | None
    intake_thread: WorkerThread
    emitter_thread: WorkerThread
    tickers: tuple[Ticker, ...]


def assemble(given: Given, callbacks: Callbacks) -> Assembly:
    """Waits for nothing. Raises SetupError for settings that no part can be made from."""
    shared = _share(given, on_room=lambda: intake.wake())
    intake = _make_intake(given, shared)
    engine = _make_engine(given, shared, callbacks)
    emitter = _make_emitter(given, shared, engine, intake)
    leases = _make_leases(given, shared, engine, intake)
    heartbeat = _make_heartbeat(given, shared, emitter, intake)
    return Assembly(
        queue=shared.queue,
        holdings=shared.holdings,
        metrics=shared.metrics,
        inbox=shared.inbox,
        intake=intake,
        engine=engine,
        emitter=emitter,
        heartbeat=heartbeat,
        doorbell=_make_doorbell(given, shared, intake, callbacks),
        tickers=_make_tickers(given, shared, heartbeat, leases, callbacks),
        notices=watch_for_notices(
            given.settings.worker,
            stop=callbacks.stop,
            pause=lambda standing: intake.pause(standing, Pauser.NOTICE),
            at_work=lambda: shared.holdings.load().jobs > 0,
        ),
        intake_thread=WorkerThread("intake", intake.run, callbacks.on_crash),
        emitter_thread=WorkerThread("emitter", emitter.run, callbacks.on_crash),
    )


def earlier_attempts(journal: Journal, job: Job) -> tuple[Journaled, ...]:
    """What was journaled of each choice of a claimed job; a first attempt has nothing to read."""
    return journal.ids(job.id, job.request.n) if job.attempt > 1 else (Journaled(),) * job.request.n


def _share(given: Given, on_room: Callable[[], None]) -> Shared:
    payloads, metrics = open_payloads(given.settings), Recorder()
    return Shared(
        queue=given.open_queue(given.client, given.settings.queue.timing(), payloads=payloads),
        payloads=payloads,
        holdings=Holdings(on_room),
        metrics=metrics,
        inbox=Inbox(),
        tell=everyone((MetricsWatcher(metrics), *given.watchers)),
    )


def _make_intake(given: Given, shared: Shared) -> Intake:
    journal = Journal(given.client, shared.payloads)
    return Intake(
        IntakeParts(
            worker=given.worker,
            lane=given.lane,
            max_jobs=given.settings.worker.max_jobs,
            queue=shared.queue,
            read_journal=lambda job: earlier_attempts(journal, job),
            holdings=shared.holdings,
            metrics=shared.metrics,
            inbox=shared.inbox,
            fetch_prompt=shared.payloads.fetch_prompt,
            tell=shared.tell,
        )
    )


def _make_engine(given: Given, shared: Shared, callbacks: Callbacks) -> EngineProcess:
    return EngineProcess(
        EngineProcessParts(
            options=ChildOptions(given.model.source, given.settings.engine),
            start_timeout_s=given.settings.worker.start_timeout_s,
            inbox=shared.inbox,
            on_ready=callbacks.on_ready,
            on_failure=callbacks.on_failure,
            on_crash=callbacks.on_crash,
            first=given.first,
        )
    )


def _make_emitter(given: Given, shared: Shared, engine: EngineProcess, intake: Intake) -> Emitter:
    payloads = shared.payloads
    parts = EmitterParts(
        worker=given.worker,
        queue=shared.queue,
        engine=engine,
        gate=intake,
        holdings=shared.holdings,
        metrics=shared.metrics,
        progress_timeout_s=given.settings.worker.progress_timeout_s,
        tell=shared.tell,
        is_large=lambda ending: payloads.is_large(result_size(ending.choices)),
    )
    return Emitter(parts, shared.inbox)


def _make_leases(given: Given, shared: Shared, engine: EngineProcess, intake: Intake) -> Leases:
    return Leases(
        LeaseParts(
            worker=given.worker,
            lease_s=given.settings.queue.lease_ms / 1000,
            queue=shared.queue,
            holdings=shared.holdings,
            metrics=shared.metrics,
            inbox=shared.inbox,
            stop_engine=engine.abort_all,
            trust=intake.trust,
            clock=time.monotonic,
        )
    )


def _make_heartbeat(given: Given, shared: Shared, emitter: Emitter, intake: Intake) -> Heartbeat:
    return Heartbeat(
        HeartbeatParts(
            worker=given.worker,
            lane=given.lane,
            model_id=given.model.id,
            release=given.settings.worker.release,
            client=given.client,
            holdings=shared.holdings,
            metrics=shared.metrics,
            step_age_s=emitter.step_age_s,
            paused=lambda: intake.paused,
        )
    )


def _make_doorbell(given: Given, shared: Shared, intake: Intake, callbacks: Callbacks) -> Doorbell:
    control = Control(shared.holdings, shared.inbox, lambda: callbacks.stop(math.inf))
    handlers: dict[str, Callable[[bytes], None]] = {
        keys.wake(given.lane): lambda _: intake.wake(),
        keys.control(given.worker): control.handle,
    }
    return Doorbell(given.client, handlers, callbacks.on_crash)


def _make_tickers(
    given: Given, shared: Shared, heartbeat: Heartbeat, leases: Leases, callbacks: Callbacks
) -> tuple[Ticker, ...]:
    timing, on_crash = given.settings.queue, callbacks.on_crash

    def reap() -> None:
        record_reap(shared.metrics, shared.queue.reap(ReapRequest()))

    return (
        Ticker("beat", timing.beat_ms / 1000, heartbeat.beat, on_crash),
        Ticker("renew", timing.renew_ms / 1000, leases.renew, on_crash),
        Ticker("lease-watch", timing.lease_ms / 20_000, leases.watch, on_crash),
        Ticker("reap", timing.reap_ms / 1000, reap, on_crash),
    )
