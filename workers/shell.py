"""Celery's shell around one inference worker: starts both, ends both. Knows who is told of what, not what is told."""

import sys
import warnings
from collections.abc import Callable

import structlog
from celery.platforms import SecurityWarning

from headrace.contract.errors import SetupError, StoreUnavailable
from headrace.queue.base import Queue
from headrace.queue.redis import RedisQueue
from headrace.settings import Settings
from headrace.telemetry.tracing import OFF, Tracing, open_tracing
from workers.bootstep import step_for
from workers.celery_app import leave_logging_alone, make_app
from workers.console.board import Board
from workers.console.commands import keep_only_safe_commands, offer_commands
from workers.console.console import Console
from workers.console.event_sender import EventSender
from workers.inference.drain import THREAD_S, Watchdog
from workers.inference.facts import Watcher
from workers.inference.served_model import CANNOT_START
from workers.inference.spawning import EngineChild
from workers.inference.tracing_watcher import TracingWatcher
from workers.inference.worker import InferenceWorker


def run(settings: Settings, first: EngineChild, open_queue: Callable[..., Queue] = RedisQueue) -> int:
    """Run until asked to stop. 0 after a drain, 3 when it could not start. `first` is the engine that loads already;
    `open_queue` is called as `RedisQueue`."""
    try:
        board, events = Board(), EventSender()
        traces = open_tracing(settings.telemetry, "headrace-worker")
        inference = InferenceWorker(settings, watchers(settings, board, events, traces), first, open_queue)
        structlog.contextvars.bind_contextvars(worker=inference.id)
    except (SetupError, StoreUnavailable) as error:
        first.process.kill()
        return _refuse(error.explain())
    exit_code = _run_shell(settings, inference, Console(inference, board), events)
    inference.request_stop()
    inference.join()
    events.stop(THREAD_S)
    traces.close(THREAD_S)
    if inference.failure:
        return _refuse(inference.failure)
    return inference.exit_code or exit_code


def _refuse(reason: str) -> int:
    sys.stderr.write(f"headrace worker: {reason}\n")
    return CANNOT_START


def watchers(settings: Settings, board: Board, events: EventSender, traces: Tracing) -> tuple[Watcher, ...]:
    """Who is told what becomes of each job, in this order; each returns at once."""
    told: list[Watcher] = [board.tell]
    if settings.worker.events:
        told.append(events.tell)
    if traces is not OFF:
        told.append(TracingWatcher(traces))
    return tuple(told)


def _run_shell(settings: Settings, inference: InferenceWorker, console: Console, events: EventSender) -> int:
    leave_logging_alone()
    # Celery warns root of pickled messages; this worker takes no messages at all.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    offer_commands(console.answers())
    keep_only_safe_commands()
    app = make_app(settings.redis)
    node = f"headrace@{inference.id}"
    app.steps["worker"].add(step_for(inference, Watchdog(settings.worker.drain_s)))
    worker = app.Worker(
        hostname=node,
        pool="solo",
        concurrency=1,
        exclude_queues=list(app.amqp.queues),
        without_mingle=True,
        without_gossip=True,
        quiet=True,
        loglevel=settings.log.level.upper(),
    )
    if settings.worker.events:
        events.start(app, node)
    worker.start()
    return int(worker.exitcode or 0)
