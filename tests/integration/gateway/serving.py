"""A gateway in a thread of this process, on a free port. Real server, real Redis; knows no job."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.app import build_app
from gateway.server import Server, bind
from gateway.services import Services, open_services
from headrace.settings import GatewaySettings, QueueSettings, RedisSettings, Settings


def settings_for(redis_url: str, *, ping_s: float = 0.1, first_event_timeout_s: float = 0.6) -> Settings:
    """Times short enough for a test to see them pass."""
    return Settings.model_construct(
        redis=RedisSettings(url=redis_url, connect_timeout_s=1, socket_timeout_s=2),
        queue=QueueSettings(reap_ms=100),
        gateway=GatewaySettings(port=0, ping_s=ping_s, first_event_timeout_s=first_event_timeout_s),
    )


@dataclass(frozen=True, slots=True)
class Gateway:
    url: str
    services: Services
    stop: Callable[[], None]
    """Ask it to stop, as a signal does; leaving `serving` waits for it."""


@contextmanager
def serving(settings: Settings) -> Iterator[Gateway]:
    """Serve until the block is left."""
    listener = bind("127.0.0.1", 0)
    up = threading.Event()
    running: list[tuple[Server, Services]] = []

    async def serve() -> None:
        closing = asyncio.Event()
        async with open_services(settings, closing) as services:
            server = Server(build_app(services), closing)
            running.append((server, services))
            up.set()
            await server.serve([listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert up.wait(10), "the gateway did not start"
    server, services = running[0]

    def stop() -> None:
        server.should_exit = True

    try:
        yield Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", services, stop)
    finally:
        stop()
        thread.join(10)
        assert not thread.is_alive(), "the gateway did not stop"
