"""A road out whose gateway dies with an event in its hands. Knows neither what is in it nor who was to have it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.chaos.doomed import Doomed


class DoomedRelay(Doomed):
    """Opens roads as the real one does."""

    @asynccontextmanager
    async def follow(self, *arguments: Any, **options: Any) -> AsyncIterator["DoomedRoad"]:
        async with self._real.follow(*arguments, **options) as road:
            yield DoomedRoad(road, self._doom)


class DoomedRoad(Doomed):
    async def next(self, timeout_s: float) -> Any:
        event = await self._real.next(timeout_s)
        if event is not None:
            self._doom.at("relay")
        return event
