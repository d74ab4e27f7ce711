"""A TCP proxy that spoils a line on demand: late, slow, deaf, cut, garbled. Knows bytes, no protocol.

It runs on an event loop in a thread of its own and is told what to do from any other. The server behind it may be a TCP
port or a unix socket, and may be exchanged for another while connections are open.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from random import Random
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tests.chaos.faults.conditions import HALF_OPEN, WELL, Conditions, mangle

T = TypeVar("T")
_CHUNK = 65_536
_MOST_QUEUED = 64
"""Chunks of one way that may be late at a time; then the sender has to wait."""

_CALL_S = 10.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way(Enum):
    UP = "up"
    DOWN = "down"


class _Connection:
    """One client's connection and the one that was opened for it. Lives on the proxy's loop."""

    def __init__(self, proxy: "FaultProxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._ends = [writer]
        self._deaf: set[Way] = set()
        self._answered = 0
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until either side is closed. A line that is half-open from the start needs no server."""
        tasks: list[asyncio.Task[Any]] = []
        try:
            if self._proxy.conditions == HALF_OPEN:
                tasks = [asyncio.create_task(self._swallow_all())]
            else:
                server_reader, server_writer = await self._proxy.open_upstream()
                self._ends.append(server_writer)
                client_reader, client_writer = self._client
                tasks = [
                    asyncio.create_task(self._carry(Way.UP, client_reader, server_writer)),
                    asyncio.create_task(self._carry(Way.DOWN, server_reader, client_writer)),
                ]
            tasks.append(asyncio.create_task(self._over.wait()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            self.cut(reset=True)  # nobody is behind the proxy
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in self._ends:
                end.close()

    def cut(self, *, reset: bool) -> None:
        """End both sides: with a RST, in which what was not read is lost, or with a FIN."""
        for end in self._ends:
            if reset:
                with suppress(OSError, ValueError):
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.transport.abort()
            else:
                end.close()
        self._over.set()

    async def _swallow_all(self) -> None:
        reader, _ = self._client
        with suppress(OSError):
            while await reader.read(_CHUNK):
                pass

    async def _carry(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Reading and writing are two tasks, so that what is late does not make the next late twice."""
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_QUEUED)
        reading = asyncio.create_task(self._read(way, source, late))
        try:
            await self._write(way, late, sink)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, way: Way, source: asyncio.StreamReader, late: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        data = b"?"
        while data:
            try:
                data = await source.read(_CHUNK)
            except OSError:
                data = b""
            line = self._proxy.conditions
            delay_s = line.delay_up_s if way is Way.UP else line.delay_down_s
            await late.put((loop.time() + delay_s, data))

    async def _write(self, way: Way, late: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._proxy.moving.wait()
            if not data:
                return
            line = self._proxy.conditions
            if line.deaf_up if way is Way.UP else line.deaf_down:
                self._deaf.add(way)
            if way in self._deaf:
                continue
            ends = False
            if way is Way.DOWN:
                data, ends = self._spoilt(data, line)
            await self._send(sink, data, line)
            if ends:
                return

    def _spoilt(self, answer: bytes, line: Conditions) -> tuple[bytes, bool]:
        """What is left of an answer, and whether the connection ends behind it."""
        mangled = mangle(answer, line, self._proxy.dice)
        data, ends = mangled.data, mangled.ends
        if line.cut_after is not None and self._answered + len(data) >= line.cut_after:
            data, ends = data[: max(0, line.cut_after - self._answered)], True
        self._answered += len(data)
        self._proxy.cuts += ends
        return data, ends

    async def _send(self, sink: asyncio.StreamWriter, data: bytes, line: Conditions) -> None:
        at_once = len(data) if line.bytes_per_s is None else max(1, int(line.bytes_per_s / 20))
        for at in range(0, len(data), at_once):
            piece = data[at : at + at_once]
            sink.write(piece)
            await sink.drain()
            if line.bytes_per_s is not None:
                await asyncio.sleep(len(piece) / line.bytes_per_s)


class FaultProxy:
    """Use `proxying`. `upstream` is `unix:///path`, or any URL with a host and a port.

    `cuts` counts the connections that the conditions have ended, `opened` all there ever were.
    """

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self.dice = Random(seed)
        self.conditions = WELL
        self.cuts = 0
        self.opened = 0
        self.port = 0
        self._upstream = upstream
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections of clients at this moment."""
        return len(self._connections)

    # -- from any thread

    def start(self) -> None:
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()

    def set(self, conditions: Conditions) -> None:
        """From now on, for every connection, those that are open too."""
        self._do(lambda: self._become(conditions))

    def cut(self, *, reset: bool = False) -> int:
        """End all connections that are open; how many they were."""
        return self._do(lambda: self._cut(reset))

    def switch(self, upstream: str) -> None:
        """New connections go there. Those that are open stay where they are until they are cut."""

        def become() -> None:
            self._upstream = upstream

        self._do(become)

    def _do(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._call(act())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    # -- on the loop

    async def open_upstream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError when nobody is there."""
        parts = urlsplit(self._upstream)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path)
        return await asyncio.open_connection(parts.hostname, parts.port)

    async def _listen(self) -> None:
        self.moving = asyncio.Event()
        self.moving.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        self._cut(reset=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        connection = _Connection(self, reader, writer)
        if self.conditions.refusing:
            connection.cut(reset=True)
            return
        self._connections.add(connection)
        try:
            with suppress(asyncio.CancelledError):  # said by `_end` alone
                await connection.run()
        finally:
            self._connections.discard(connection)

    def _become(self, conditions: Conditions) -> None:
        self.conditions = conditions
        if conditions.stalled:
            self.moving.clear()
        else:
            self.moving.set()

    def _cut(self, reset: bool) -> int:
        connections = list(self._connections)
        for connection in connections:
            connection.cut(reset=reset)
        return len(connections)


@contextmanager
def proxying(upstream: str, seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy on a free port, gone at the end of the block with all its connections."""
    proxy = FaultProxy(upstream, seed)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
