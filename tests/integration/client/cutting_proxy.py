"""A TCP proxy that cuts connections after so many bytes and counts those that are open. Knows no HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class CuttingProxy:
    """Between a client and the gateway at `url`. Use `cutting`."""

    def __init__(self, url: str, cut_after: int | None) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname, parts.port
        self._cut_after = cut_after
        self.url = ""
        self.open = 0
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
            try:
                there = asyncio.create_task(_copy(reader, upstream_writer, None))
                back = asyncio.create_task(_copy(upstream_reader, writer, self._cut_after))
                done, pending = await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
                self.cuts += back in done and back.result()
            finally:
                upstream_writer.close()
        finally:
            writer.close()
            self.open -= 1


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, limit: int | None) -> bool:
    """Until the source ends, or `limit` bytes have passed; whether it was cut."""
    passed = 0
    with suppress(ConnectionError):
        while chunk := await source.read(4096):
            sink.write(chunk if limit is None else chunk[: limit - passed])
            await sink.drain()
            passed += len(chunk)
            if limit is not None and passed >= limit:
                return True
    return False


@asynccontextmanager
async def cutting(url: str, cut_after: int | None = None) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(url, cut_after)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
