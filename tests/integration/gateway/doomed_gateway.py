"""One more gateway of a fleet, as a process that a test kills, and a wire to it that can lose an answer."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2

START_S = 30.0


class DoomedGateway:
    """`python -m gateway` on the fleet's Redis. Use `doomed`."""

    def __init__(self, redis_url: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "--port", str(port)],
            env={**kept, "HEADRACE_REDIS__URL": redis_url},
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.process.kill()
        self.process.wait()

    async def answers(self) -> None:
        """Until it does."""
        async with asyncio.timeout(START_S), httpx2.AsyncClient() as http:
            while True:
                try:
                    await http.get(f"{self.url}/health/live")
                    return
                except httpx2.TransportError:
                    assert self.process.poll() is None, "the gateway did not start"
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def doomed(redis_url: str) -> AsyncIterator[DoomedGateway]:
    gateway = DoomedGateway(redis_url)
    try:
        await gateway.answers()
        yield gateway
    finally:
        gateway.kill()


@asynccontextmanager
async def killed_by_its_answer(gateway: DoomedGateway) -> AsyncIterator[str]:
    """The URL of a wire to it. At the first byte that it answers it is killed, and the byte goes nowhere."""
    target = urlsplit(gateway.url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer, request = await asyncio.open_connection(target.hostname, target.port)
        request.write(await reader.read(65_536))
        await answer.read(1)
        gateway.kill()
        request.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
