"""The role that runs tasks: its queues, its limits, its logging. Knows Celery's settings, not what a task does.

celery -A workers.celery_app worker -B -Q documents,batches,maintenance

A message of Celery is only a doorbell: whatever it announces is also found by a later look at the store, so a message
that is lost, late or rung twice costs time and nothing else.
"""

import logging

from billiard import pool
from celery import Celery
from celery.signals import beat_embedded_init, setup_logging, worker_init

from headrace.contract.errors import SetupError
from headrace.settings import Settings
from headrace.store.connection import connect
from headrace.telemetry import logs
from workers.celery_app import make_app
from workers.console.commands import keep_only_safe_commands, offer_commands
from workers.maintenance.clock import end_with_parent
from workers.maintenance.tasks import LONGEST_S, MAINTENANCE, add_sweeps

QUEUES = ("documents", "batches", MAINTENANCE)

PROCESSES = 2
VISIBILITY_S = 2 * LONGEST_S
"""After this time kombu takes an unacknowledged message for lost and delivers it again. Longer than any task may run,
so that none is rung anew while it runs. It need not be shorter: what matters is found by a sweep before that."""

LAST_LOOKS = 20
"""Tenths of a second for which a process of the pool waits at its end until its parent has read its last word. A parent
that ends has stopped reading, now and then before that word: billiard's 300 are half a minute in which nothing happens.
A word that is lost is an acknowledgement: the task is rung again."""

CHATTY = ("celery.app.trace", "celery.worker.strategy", "celery.beat")
"""They say each task's coming and going; one that fails is said louder."""


def task_app(settings: Settings) -> Celery:
    """The application with its tasks and our remote commands. Raises SetupError without the URL of a Redis."""
    if not settings.redis.url:
        raise SetupError(
            "No Redis is given, so there is no broker.",
            next_step="Set HEADRACE_REDIS__URL; `headrace up` prints the URL of its own.",
        )
    connect(settings.redis.url).close()  # asks nobody, but knows what is no URL; kombu would say it with a traceback
    app = make_app(settings.redis)
    app.conf.update(
        task_queues={name: {"exchange": name, "routing_key": name} for name in QUEUES},
        task_default_queue=MAINTENANCE,
        task_create_missing_queues=False,
        # Acknowledged when done: a process killed in the middle leaves its message to the next one.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=LONGEST_S,
        worker_concurrency=PROCESSES,
        # Nobody hoards messages that another process could work on.
        worker_prefetch_multiplier=1,
        broker_transport_options={**app.conf.broker_transport_options, "visibility_timeout": VISIBILITY_S},
        beat_schedule_filename=str(settings.paths.data_dir / "celery" / "schedule"),
        beat_scheduler="workers.maintenance.clock:Clock",
    )
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_LOOKS
    add_sweeps(app, settings)
    offer_commands()
    worker_init.connect(lambda **_: keep_only_safe_commands(), weak=False, dispatch_uid="headrace")
    beat_embedded_init.connect(end_with_parent, weak=False, dispatch_uid="headrace")
    setup_logging.connect(lambda **_: _configure_logs(settings), weak=False, dispatch_uid="headrace")
    return app


def _configure_logs(settings: Settings) -> None:
    logs.configure(settings.log, role="tasks")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log.level == "debug" else logging.WARNING)
