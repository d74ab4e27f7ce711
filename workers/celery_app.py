"""Celery's side of the fleet: how an application is made, and the one that `celery -A workers.celery_app` finds.

Knows the broker, not the work. Importing this module reads no settings; only asking it for `app` does.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from celery.signals import setup_logging

from headrace.contract.errors import HeadraceError
from headrace.settings import RedisSettings, load


def broker_url(redis_url: str) -> str:
    """kombu's spelling of a Redis URL: for a unix socket it wants another scheme and another name for the database."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db")
    return f"redis+socket://{parts.netloc}{parts.path}" + (f"?virtual_host={database[0]}" if database else "")


def make_app(redis: RedisSettings) -> Celery:
    """An application for one process, without tasks. Its broker is the fleet's Redis, over connections of its own."""
    app = Celery("headrace", broker=broker_url(redis.url), set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A replica that is about to be the server refuses writes: no reason for a worker to end.
        broker_channel_error_retry=True,
        broker_connection_timeout=redis.connect_timeout_s,
        # A broker that hangs must not keep a stopping worker from its end.
        broker_transport_options={
            "socket_timeout": redis.socket_timeout_s,
            "socket_connect_timeout": redis.connect_timeout_s,
        },
        task_ignore_result=True,
        # Whoever can write to the broker could otherwise run code here, through a pickle.
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
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


def _configured_already(**_: Any) -> None:
    """Nothing to do: being connected is what counts."""


def __getattr__(name: str) -> Celery:
    """`app`, made of the settings in the environment when Celery's command line first asks for it (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workers.task_role import task_app  # only those who run or ask for tasks need it

    try:
        app = task_app(load())
    except HeadraceError as error:
        # Any other kind of exception Celery would show as a traceback.
        raise SystemExit(f"headrace: {error.explain()}") from None
    globals()["app"] = app
    return app
