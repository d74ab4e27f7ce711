"""`headrace gateway` and `headrace worker`: one server in the foreground. Knows its module, not what it does."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from headrace import settings
from headrace.cli.config import Config
from headrace.contract.errors import SetupError
from headrace.supervisor.fleet import need_server

RedisUrl = Annotated[str | None, typer.Option("--redis-url", help="redis://host:port/db")]


def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    redis_url: RedisUrl = None,
    config: Config = None,
) -> None:
    """Serve the HTTP API on a Redis of your own."""
    _become("gateway", {"gateway": {"host": host, "port": port}, "redis": {"url": redis_url}}, config)


def worker(
    model: Annotated[
        str | None, typer.Option(help="A name of `headrace models list`, or file:, hf:, s3: or <id>=….")
    ] = None,
    release: Annotated[str | None, typer.Option(help="The lane to serve: stable or canary.")] = None,
    redis_url: RedisUrl = None,
    config: Config = None,
) -> None:
    """Run jobs of one model from a Redis of your own."""
    _become("workers", {"worker": {"model": model, "release": release}, "redis": {"url": redis_url}}, config)


def _become(module: str, flags: dict[str, dict[str, Any]], config: Path | None) -> NoReturn:
    """Replace this process, so that signals and the exit code are the server's own."""
    need_server(module)
    loaded = settings.load(flags, config)
    if not loaded.redis.url:
        raise SetupError(
            "There is no Redis to work on.",
            next_step="Give --redis-url (or HEADRACE_REDIS__URL), or run the whole stack with `headrace up`.",
        )
    os.execve(sys.executable, [sys.executable, "-m", module], {**os.environ, **settings.as_variables(loaded)})
