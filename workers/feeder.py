"""`python -m workers feeder`: one process between the outer ledger and the fleet. Knows settings and signals only.

Any number may run, on any machine; each holds its own messages. Nothing waits for a broker or a Redis that is away.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import structlog

from headrace.contract.errors import SetupError
from headrace.ledger.base import open_ledger
from headrace.ledger.feeder import Feeder
from headrace.ledger.fleet_jobs import FleetJobs
from headrace.ledger.publishing import scheme_of
from headrace.settings import Settings, load
from headrace.store.blobs import open_blobs
from headrace.store.connection import connect
from headrace.store.payloads import Payloads
from headrace.telemetry import logs
from workers.inference.served_model import CANNOT_START

THREADS = 8

log = structlog.get_logger(__name__)


def main(arguments: list[str]) -> int:
    """Run until asked to stop. 0 once every message was given back, 3 when the ledger is not fit for jobs."""
    try:
        settings = _settings(arguments)
        logs.configure(settings.log, role="feeder")
        feeder = make_feeder(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            # In a thread: this one may be waiting for the same event, and hold its lock.
            signal.signal(number, lambda _number, _frame: threading.Thread(target=feeder.stop.set).start())
        feeder.check()
        log.info("feeding", scheme=scheme_of(settings.ledger.url), window=settings.ledger.window)
        feeder.run()
    except SetupError as error:
        sys.stderr.write(f"headrace feeder: {error.explain()}\n")
        return CANNOT_START
    log.info("feeder stopped")
    return 0


def make_feeder(settings: Settings) -> Feeder:
    """All its parts; nothing is asked yet. Raises SetupError."""
    ledger = open_ledger(settings)
    if ledger is None:
        raise SetupError("There is no ledger to feed from.", next_step="Set HEADRACE_LEDGER__URL.", param="ledger.url")
    if not settings.redis.url:
        raise SetupError("No Redis is given.", next_step="Give --redis-url, or set HEADRACE_REDIS__URL.")
    client = connect(
        settings.redis.url,
        connect_timeout_s=settings.redis.connect_timeout_s,
        socket_timeout_s=settings.redis.socket_timeout_s,
    )
    blobs = open_blobs(settings)
    payloads = Payloads(blobs, settings.blobs.threshold_bytes)
    jobs = FleetJobs(client, settings.queue.timing(), payloads)
    return Feeder(ledger, jobs, blobs, settings.ledger, threads=THREADS)


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m workers feeder", description="Feed the fleet from a ledger.")
    parser.add_argument("--redis-url", help="the fleet's Redis")
    parser.add_argument("--ledger-url", help="sqs://<queue> or amqp://…/<vhost>?queue=<queue>")
    parser.add_argument("--config", type=Path, help="a YAML file of settings")
    given = parser.parse_args(arguments)
    flags: dict[str, dict[str, Any]] = {"redis": {"url": given.redis_url}, "ledger": {"url": given.ledger_url}}
    return load(flags, given.config)
