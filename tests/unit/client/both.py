"""Both clients behind the sync client's methods, so that one suite asks both. Knows loops, not what is asked."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any, Self, cast

from headrace.client import AsyncClient, AsyncJobHandle, Client, Patience
from headrace.client.endpoint import Urls


def sync_client(url: Urls | None, api_key: str | None = None, patience: Patience | None = None) -> Client:
    return Client(url, api_key, patience=patience)


def async_client(url: Urls | None, api_key: str | None = None, patience: Patience | None = None) -> Client:
    runner = asyncio.Runner()
    return cast(Client, _Face(AsyncClient(url, api_key, patience=patience), runner))


MakeClient = Callable[..., Client]


class _Face:
    """Runs what the async object answers, to its end or step by step."""

    def __init__(self, target: AsyncClient | AsyncJobHandle, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert isinstance(self._target, AsyncClient)
        self._runner.run(self._target.aclose())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return self._blocking(found) if callable(found) else found

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            return self._plain(method(*map(_unwrapped, args), **named))

        return call

    def _plain(self, answer: Any) -> Any:
        if inspect.iscoroutine(answer):
            answer = self._runner.run(answer)
        if isinstance(answer, AsyncGenerator):
            return self._steps(answer)
        return _Face(answer, self._runner) if isinstance(answer, AsyncJobHandle) else answer

    def _steps(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        async def step() -> Any:
            return await anext(items)

        try:
            while True:
                try:
                    item = self._runner.run(step())
                except StopAsyncIteration:
                    return
                yield self._plain(item)
        finally:
            self._runner.run(items.aclose())


def _unwrapped(argument: Any) -> Any:
    if isinstance(argument, Iterable) and not isinstance(argument, str):
        return [one._target if isinstance(one, _Face) else one for one in argument]
    return argument
