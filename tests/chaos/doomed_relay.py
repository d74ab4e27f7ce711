"""A road out whose gateway dies with an event in its hands. Knows neither what is in it nor who was to have it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.chaos.doom import Doom


class DoomedRelay:
    """Opens roads as the real one does."""

    def __init__(self, relay: Any, doom: Doom) -> None:
        self._relay = relay
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relay, name)

    @asynccontextmanager
    async def follow(self, *arguments: Any, **options: Any) -> AsyncIterator["DoomedRoad"]:
        async with self._relay.follow(*arguments, **options) as road:
            yield DoomedRoad(road, self._doom)


class DoomedRoad:
    def __init__(self, road: Any, doom: Doom) -> None:
        self._road = road
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._road, name)

    async def next(self, timeout_s: float) -> Any:
        event = await self._road.next(timeout_s)
        if event is not None:
            self._doom.at("relay")
        return event
