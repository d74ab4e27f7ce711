"""One inference worker: its parts put together, started in order and ended in order. Knows no Celery."""

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from headrace.contract.errors import SetupError
from headrace.contract.ids import worker_id
from headrace.contract.job import Job, lane_of
from headrace.queue.base import FinishReply, Queue, ReapRequest
from headrace.queue.redis import RedisQueue
from headrace.settings import Settings
from headrace.store import keys
from headrace.store.connection import check_server, connect
from headrace.store.journal import Journal, Journaled
from headrace.store.payloads import open_payloads
from headrace.store.records import result_size
from headrace.telemetry.metrics import Recorder
from headrace.text.detokenizer import TextStream
from headrace.text.tokenizer import Tokenizer
from workers.inference.doorbell import Doorbell
from workers.inference.drain import THREAD_S, DrainSteps, drain
from workers.inference.emitter import Emitter, EmitterParts
from workers.inference.engine_process import EngineProcess, EngineProcessParts
from workers.inference.facts import Watcher, everyone
from workers.inference.heartbeat import Heartbeat, HeartbeatParts
from workers.inference.holdings import Holdings, Load
from workers.inference.inbox import Close, Drain, Inbox, NewStream
from workers.inference.intake import Intake, IntakeParts
from workers.inference.leases import Control, LeaseParts, Leases
from workers.inference.messages import ChildOptions, Ready
from workers.inference.metrics import record_reap
from workers.inference.metrics_watcher import MetricsWatcher
from workers.inference.served_model import CANNOT_START, find_model
from workers.inference.spawning import EngineChild
from workers.inference.ticker import Ticker, WorkerThread
from workers.notices.base import Notice
from workers.notices.metadata import MetadataServer
from workers.notices.sources import NONE, find_source
from workers.notices.watcher import NoticeWatcher

CRASHED = 1
NOTICE_MARGIN_S = 2.0
"""How long before its machine goes a worker is to be gone; and what its end may take when there is no time left."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """A worker at one moment: `kv_tokens` is its whole budget, `step_age_s` None while the engine has no work."""

    lane: str
    state: str
    kv_tokens: int
    load: Load
    max_jobs: int
    step_age_s: float | None


def process_age_s() -> float:
    """Seconds since this process was started, interpreter and imports included."""
    stat = Path("/proc/self/stat")
    if stat.exists():  # psutil adds whole seconds of boot time, and would be up to a second off
        started_ticks = int(stat.read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - float(psutil.Process().create_time())


def earlier_attempts(journal: Journal, job: Job) -> tuple[Journaled, ...]:
    """What was journaled of each choice of a claimed job; a first attempt has nothing to read."""
    return journal.ids(job.id, job.request.n) if job.attempt > 1 else (Journaled(),) * job.request.n


class InferenceWorker:
    """`start` returns at once; `request_stop` may be called from a signal handler; `join` waits for the end.

    `failure` says why it could not start, empty otherwise. Raises SetupError for a model that is not here, a Redis
    that is not given or not fit, StoreUnavailable for one that does not answer. `first` is an engine process that was
    started before, by a thread that stays, with the options of these settings. `open_queue` is called as `RedisQueue`.
    """

    def __init__(
        self,
        settings: Settings,
        watchers: tuple[Watcher, ...] = (),
        first: EngineChild | None = None,
        open_queue: Callable[..., Queue] = RedisQueue,
    ) -> None:
        self._settings = settings
        self._watchers = watchers
        self._model = find_model(settings)
        self._first = first
        self._open_queue = open_queue
        if not settings.redis.url:
            raise SetupError("No Redis is given.", next_step="Give --redis-url, or start everything with: headrace up")
        self.id = worker_id(settings.worker.tag)
        self.lane = lane_of(self._model.id, settings.worker.release)
        self.failure = ""
        self._client = connect(
            settings.redis.url,
            connect_timeout_s=settings.redis.connect_timeout_s,
            socket_timeout_s=settings.redis.socket_timeout_s,
        )
        check_server(self._client)
        self._ready: Ready | None = None
        self._crashed = False
        self._stop = threading.Event()
        self._build()
        self._life = WorkerThread("inference", self._live, self._on_crash)
        self._within_s = settings.worker.drain_s
        self._on_stop: Callable[[float], None] = lambda _: None
        self._on_end: Callable[[int], None] = lambda _: None

    @property
    def ready(self) -> Ready | None:
        """What the engine said when it was last ready; None before."""
        return self._ready

    @property
    def held(self) -> int:
        """Jobs it holds a lease on."""
        return self._holdings.load().jobs

    @property
    def exit_code(self) -> int:
        return CANNOT_START if self.failure else CRASHED if self._crashed else 0

    @property
    def engine_pid(self) -> int | None:
        return self._engine.pid

    def start(
        self, on_stop: Callable[[float], None] = lambda _: None, on_end: Callable[[int], None] = lambda _: None
    ) -> None:
        """`on_stop` is called with the seconds that the end may take when it begins, `on_end` with an exit code when
        all is done."""
        self._on_stop, self._on_end = on_stop, on_end
        self._life.start()

    def request_stop(self, within_s: float = math.inf) -> None:
        """Drain and end, within `worker.drain_s` or the seconds given, whichever is sooner. The first word counts."""
        if not self._stop.is_set():
            self._within_s = min(self._within_s, within_s)
            self._stop.set()

    def status(self) -> Status:
        """From any thread, without a wait."""
        return Status(
            lane=self.lane,
            state=self._heartbeat.state,
            kv_tokens=self._ready.kv_tokens if self._ready else 0,
            load=self._holdings.load(),
            max_jobs=self._settings.worker.max_jobs,
            step_age_s=self._emitter.step_age_s(),
        )

    def pause(self, paused: bool) -> None:
        """Whether to claim nothing new; what runs goes on."""
        log.info("paused" if paused else "resumed")
        self._intake.pause(paused)

    def cancel(self, job_id: str) -> FinishReply:
        """End a job, held here or not. One call to the store; raises StoreUnavailable."""
        return self._queue.cancel(job_id)

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended. A worker that was never started has."""
        if self._life.ident is not None:
            self._life.join(timeout_s)
        return not self._life.is_alive()

    # -- parts

    def _build(self) -> None:
        settings, timing = self._settings, self._settings.queue
        payloads = open_payloads(settings)
        queue = self._queue = self._open_queue(self._client, timing.timing(), payloads=payloads)
        self.metrics = Recorder()
        self._inbox = Inbox()
        tell = everyone((MetricsWatcher(self.metrics), *self._watchers))
        self._holdings = Holdings(on_room=lambda: self._intake.wake())
        journal = Journal(self._client, payloads)
        self._intake = Intake(
            IntakeParts(
                worker=self.id,
                lane=self.lane,
                max_jobs=settings.worker.max_jobs,
                queue=queue,
                read_journal=lambda job: earlier_attempts(journal, job),
                holdings=self._holdings,
                metrics=self.metrics,
                inbox=self._inbox,
                fetch_prompt=payloads.fetch_prompt,
                tell=tell,
            )
        )
        self._engine = EngineProcess(
            EngineProcessParts(
                options=ChildOptions(self._model.source, settings.engine),
                start_timeout_s=settings.worker.start_timeout_s,
                inbox=self._inbox,
                on_ready=self._on_ready,
                on_failure=self._on_failure,
                on_crash=self._on_crash,
                first=self._first,
            )
        )
        self._emitter = Emitter(
            EmitterParts(
                worker=self.id,
                queue=queue,
                engine=self._engine,
                gate=self._intake,
                holdings=self._holdings,
                metrics=self.metrics,
                progress_timeout_s=settings.worker.progress_timeout_s,
                tell=tell,
                is_large=lambda ending: payloads.is_large(result_size(ending.choices)),
            ),
            self._inbox,
        )
        leases = Leases(
            LeaseParts(
                worker=self.id,
                lease_s=timing.lease_ms / 1000,
                queue=queue,
                holdings=self._holdings,
                metrics=self.metrics,
                inbox=self._inbox,
                stop_engine=self._engine.abort_all,
                trust=self._intake.trust,
                clock=time.monotonic,
            )
        )
        self._heartbeat = Heartbeat(
            HeartbeatParts(
                worker=self.id,
                lane=self.lane,
                model_id=self._model.id,
                release=settings.worker.release,
                client=self._client,
                holdings=self._holdings,
                metrics=self.metrics,
                step_age_s=self._emitter.step_age_s,
                paused=lambda: self._intake.paused,
            )
        )
        control = Control(self._holdings, self._inbox, self.request_stop)
        self._doorbell = Doorbell(
            self._client,
            {
                keys.wake(self.lane): lambda _: self._intake.wake(),
                keys.control(self.id): lambda data: control.handle(data),
            },
            self._on_crash,
        )
        self._tickers = [
            Ticker("beat", timing.beat_ms / 1000, self._heartbeat.beat, self._on_crash),
            Ticker("renew", timing.renew_ms / 1000, leases.renew, self._on_crash),
            Ticker("lease-watch", timing.lease_ms / 20_000, leases.watch, self._on_crash),
            Ticker(
                "reap",
                timing.reap_ms / 1000,
                lambda: record_reap(self.metrics, queue.reap(ReapRequest())),
                self._on_crash,
            ),
        ]
        self._notices = self._watch_for_notices()
        self._threads = [
            WorkerThread("intake", self._intake.run, self._on_crash),
            WorkerThread("emitter", self._emitter.run, self._on_crash),
        ]

    def _watch_for_notices(self) -> NoticeWatcher | None:
        """Raises SetupError for an address that is none."""
        worker = self._settings.worker
        if worker.notices == NONE:
            return None
        server = MetadataServer(worker.notices_url)
        return NoticeWatcher(
            find=lambda: find_source(worker.notices, server),
            on_notice=self._on_notice,
            on_standing=self.pause,
            at_work=lambda: self.held > 0,
        )

    def _on_notice(self, notice: Notice) -> None:
        left_s = math.inf if notice.seconds_left is None else notice.seconds_left
        self.request_stop(max(NOTICE_MARGIN_S, left_s - NOTICE_MARGIN_S))

    def _on_ready(self, ready: Ready) -> NewStream:
        """On the engine-process thread, for each child: the card is written with the next beat."""
        tokenizer = Tokenizer(ready.facts.tokenizer_json)
        self._ready = ready
        self._heartbeat.ready(ready)
        log.info(
            "ready",
            lane=self.lane,
            engine_pid=self._engine.pid,
            kv_tokens=ready.kv_tokens,
            engine_seconds=round(ready.started_s, 2),
            process_seconds=round(process_age_s(), 2),
        )
        return lambda stop: TextStream(tokenizer, stop)

    def _on_failure(self, reason: str) -> None:
        log.error("cannot run the engine", reason=reason)
        self.failure = reason
        self.request_stop()

    def _on_crash(self, thread: str) -> None:
        self._crashed = True
        self.request_stop()

    # -- life

    def _live(self) -> None:
        log.info("worker starts", lane=self.lane, model=self._model.source)
        self._engine.start()
        for thread in self._threads:
            thread.start()
        for ticker in self._tickers:
            ticker.start()
        self._doorbell.start()
        if self._notices is not None:
            self._notices.start()
        self._stop.wait()
        self._on_stop(self._within_s)
        self._heartbeat.draining()
        intake, emitter = self._threads
        drain(
            DrainSteps(
                stop_claiming=self._intake.stop,
                hand_back=lambda: self._inbox.put(Drain()),
                ask_engine_to_stop=self._engine.ask_to_stop,
                await_intake=intake.join,
                await_emitter=lambda timeout_s: self._await_emitter(emitter, timeout_s),
                stop_engine=self._engine.stop,
                stop_threads=self._stop_tickers,
                say_goodbye=self._say_goodbye,
            ),
            self._within_s,
        )
        self._on_end(self.exit_code)

    def _await_emitter(self, emitter: threading.Thread, timeout_s: float) -> None:
        self._inbox.put(Close())
        emitter.join(timeout_s)
        if emitter.is_alive():
            self._inbox.put(Close(at_once=True))
            emitter.join(THREAD_S)

    def _stop_tickers(self, timeout_s: float) -> None:
        if self._notices is not None:
            self._notices.stop()
        self._doorbell.stop(timeout_s)
        for ticker in self._tickers:
            ticker.stop(timeout_s)

    def _say_goodbye(self) -> None:
        self._heartbeat.goodbye()
        self._client.close()
