"""Whether the store can be relied on right now: asked with a real write. Knows the server's answers, no jobs."""

import redis.asyncio

from headrace.contract.errors import HeadraceError, SetupError, StoreUnavailable
from headrace.store import keys
from headrace.store.connection import check_info, store_errors

_TTL_MS = 10_000


class StoreProbe:
    """Asked by whoever must say whether it is ready."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def check(self) -> None:
        """One small write that ends by itself, and a look at the server's policy.

        Raises StoreUnavailable when it cannot be reached or takes no writes, SetupError when it is too old or would
        drop keys.
        """
        with store_errors():
            await self._client.set(keys.PROBE, b"1", px=_TTL_MS)
            info = await self._client.info()
        check_info(info)

    async def trouble(self) -> HeadraceError | None:
        """The same as a value: None when all is well."""
        try:
            await self.check()
        except (StoreUnavailable, SetupError) as error:
            return error
        return None
