"""One inference worker: its parts started in order, asked, and ended in order. Knows not their making, no Celery."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from headrace.contract.errors import SetupError
from headrace.contract.ids import worker_id
from headrace.contract.job import lane_of
from headrace.queue.base import FinishReply, Queue
from headrace.queue.redis import RedisQueue
from headrace.settings import Settings
from headrace.store.connection import check_server, connect
from headrace.telemetry.metrics import Recorder
from headrace.text.detokenizer import TextStream
from headrace.text.tokenizer import Tokenizer
from workers.inference.assembly import Callbacks, Given, assemble
from workers.inference.drain import THREAD_S, DrainSteps, drain
from workers.inference.facts import Watcher
from workers.inference.holdings import Load
from workers.inference.inbox import Close, Drain, NewStream
from workers.inference.intake import Pauser
from workers.inference.messages import Ready
from workers.inference.process_age import process_age_s
from workers.inference.served_model import CANNOT_START, find_model
from workers.inference.spawning import EngineChild
from workers.inference.ticker import WorkerThread

CRASHED = 1

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
        self._model = find_model(settings)
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
        self._parts = assemble(
            Given(self.id, self.lane, self._model, settings, self._client, watchers, first, open_queue),
            Callbacks(self._on_ready, self._on_failure, self._on_crash, self.request_stop),
        )
        self._life = WorkerThread("inference", self._live, self._on_crash)
        self._within_s = settings.worker.drain_s
        self._on_stop: Callable[[float], None] = lambda _: None
        self._on_end: Callable[[int], None] = lambda _: None

    @property
    def ready(self) -> Ready | None:
        """What the engine said when it was last ready; None before."""
        return self._ready

    @property
    def metrics(self) -> Recorder:
        return self._parts.metrics

    @property
    def held(self) -> int:
        """Jobs it holds a lease on."""
        return self._parts.holdings.load().jobs

    @property
    def exit_code(self) -> int:
        return CANNOT_START if self.failure else CRASHED if self._crashed else 0

    @property
    def engine_pid(self) -> int | None:
        return self._parts.engine.pid

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
            state=self._parts.heartbeat.state,
            kv_tokens=self._ready.kv_tokens if self._ready else 0,
            load=self._parts.holdings.load(),
            max_jobs=self._settings.worker.max_jobs,
            step_age_s=self._parts.emitter.step_age_s(),
        )

    def pause(self, paused: bool) -> bool:
        """A person's word: claim nothing new, or go on; what runs goes on. Whether it is paused then: a notice that
        stands keeps it so."""
        self._parts.intake.pause(paused, Pauser.PERSON)
        still = self._parts.intake.paused
        log.info("paused" if paused else "resumed, but a notice stands" if still else "resumed")
        return still

    def cancel(self, job_id: str) -> FinishReply:
        """End a job, held here or not. One call to the store; raises StoreUnavailable."""
        return self._parts.queue.cancel(job_id)

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended. A worker that was never started has."""
        if self._life.ident is not None:
            self._life.join(timeout_s)
        return not self._life.is_alive()

    # -- what the parts say

    def _on_ready(self, ready: Ready) -> NewStream:
        """On the engine-process thread, for each child: the card is written with the next beat."""
        tokenizer = Tokenizer(ready.facts.tokenizer_json)
        self._ready = ready
        self._parts.heartbeat.ready(ready)
        log.info(
            "ready",
            lane=self.lane,
            engine_pid=self._parts.engine.pid,
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
        self._start_parts()
        self._stop.wait()
        parts = self._parts
        self._on_stop(self._within_s)
        parts.heartbeat.draining()
        drain(
            DrainSteps(
                stop_claiming=parts.intake.stop,
                hand_back=lambda: parts.inbox.put(Drain()),
                ask_engine_to_stop=parts.engine.ask_to_stop,
                await_intake=parts.intake_thread.join,
                await_emitter=self._await_emitter,
                stop_engine=parts.engine.stop,
                stop_threads=self._stop_tickers,
                say_goodbye=self._say_goodbye,
            ),
            self._within_s,
        )
        self._on_end(self.exit_code)

    def _start_parts(self) -> None:
        parts = self._parts
        parts.engine.start()
        parts.intake_thread.start()
        parts.emitter_thread.start()
        for ticker in parts.tickers:
            ticker.start()
        parts.doorbell.start()
        if parts.notices is not None:
            parts.notices.start()

    def _await_emitter(self, timeout_s: float) -> None:
        inbox, thread = self._parts.inbox, self._parts.emitter_thread
        inbox.put(Close())
        thread.join(timeout_s)
        if thread.is_alive():
            inbox.put(Close(at_once=True))
            thread.join(THREAD_S)

    def _stop_tickers(self, timeout_s: float) -> None:
        if self._parts.notices is not None:
            self._parts.notices.stop()
        self._parts.doorbell.stop(timeout_s)
        for ticker in self._parts.tickers:
            ticker.stop(timeout_s)

    def _say_goodbye(self) -> None:
        self._parts.heartbeat.goodbye()
        self._client.close()
