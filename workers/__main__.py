"""`python -m workers`: one worker process. Reads the settings, starts Celery's shell and the inference worker in it."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from celery.platforms import SecurityWarning

from headrace.contract.errors import SetupError, StoreUnavailable
from headrace.settings import Settings, load
from headrace.telemetry import logs
from headrace.telemetry.tracing import OFF, Tracing, open_tracing
from workers.bootstep import step_for
from workers.celery_app import leave_logging_alone, make_app
from workers.console.board import Board
from workers.console.commands import keep_only_safe_commands, offer_commands
from workers.console.console import Console
from workers.console.event_sender import EventSender
from workers.inference.drain import THREAD_S, Watchdog
from workers.inference.facts import Watcher
from workers.inference.tracing_watcher import TracingWatcher
from workers.inference.worker import CANNOT_START, InferenceWorker

SUBCOMMANDS: Mapping[str, str] = {"describe": "workers.describe", "register": "workers.register"}
"""First word of the command line → the module whose `main(arguments)` answers for the rest of it."""


def main(arguments: list[str] | None = None) -> int:
    """Run until asked to stop. 0 after a drain, 3 when it could not start."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in SUBCOMMANDS:
        return int(importlib.import_module(SUBCOMMANDS[arguments[0]]).main(arguments[1:]))
    try:
        settings = _settings(arguments)
        logs.configure(settings.log, role="worker")
        board, events = Board(), EventSender()
        traces = open_tracing(settings.telemetry, "headrace-worker")
        inference = InferenceWorker(settings, watchers(settings, board, events, traces))
        structlog.contextvars.bind_contextvars(worker=inference.id)
    except (SetupError, StoreUnavailable) as error:
        return _refuse(error.explain())
    exit_code = _run_shell(settings, inference, Console(inference, board), events)
    inference.request_stop()
    inference.join()
    events.stop(THREAD_S)
    traces.close(THREAD_S)
    if inference.failure:
        return _refuse(inference.failure)
    return inference.exit_code or exit_code


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
    if settings.worker.events:
        events.start(app, node)
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
    worker.start()
    return int(worker.exitcode or 0)


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m workers", description="One Headrace worker.")
    parser.add_argument("--model", help="a name from `headrace models list`, or file:<path>")
    parser.add_argument("--release", help="the release whose lane it serves (default: stable)")
    parser.add_argument("--redis-url", help="the fleet's Redis")
    parser.add_argument("--tag", help="last part of the worker's id, given by a supervisor")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    given = parser.parse_args(arguments)
    worker = {name: getattr(given, name) for name in ("model", "release", "tag") if getattr(given, name) is not None}
    flags: dict[str, dict[str, Any]] = {"worker": worker} if worker else {}
    if given.redis_url is not None:
        flags["redis"] = {"url": given.redis_url}
    return load(flags, given.config)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"headrace worker: {reason}\n")
    return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
