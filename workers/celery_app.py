"""The Celery application of a worker: process control, no tasks, no queues. Knows the broker, not the work.

`celery -b <redis url> inspect ping` finds every worker through it.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from celery.signals import setup_logging
from celery.worker.control import Panel

from headrace.settings import RedisSettings

KEPT_COMMANDS = frozenset({"ping", "stats", "report", "hello", "clock"})
"""What anybody with access to the broker may ask. The rest would stop a worker or make it consume."""


def broker_url(redis_url: str) -> str:
    """kombu's spelling of a Redis URL: for a unix socket it wants another scheme and another name for the database."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db")
    return f"redis+socket://{parts.netloc}{parts.path}" + (f"?virtual_host={database[0]}" if database else "")


def make_app(redis: RedisSettings) -> Celery:
    """An application for one worker process. Its broker is the fleet's Redis, over connections of its own."""
    app = Celery("headrace", broker=broker_url(redis.url), set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=redis.connect_timeout_s,
        # A broker that hangs must not keep a stopping worker from its end.
        broker_transport_options={
            "socket_timeout": redis.socket_timeout_s,
            "socket_connect_timeout": redis.connect_timeout_s,
        },
        task_ignore_result=True,
        worker_enable_remote_control=True,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return app


def leave_logging_alone() -> None:
    """Celery configures no logging while a receiver listens: structlog has it."""
    setup_logging.connect(_configured_already, weak=False, dispatch_uid="headrace")


def forget_unused_commands() -> None:
    """Remove remote commands that would let a stranger stop this worker or make it consume."""
    for name in set(Panel.data) - KEPT_COMMANDS:
        del Panel.data[name]
        Panel.meta.pop(name, None)


def _configured_already(**_: Any) -> None:
    """Nothing to do: being connected is what counts."""
