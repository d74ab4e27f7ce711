"""Headrace: work put on a queue comes back as tokens. Knows the public names of the client side and nothing else."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.client import AsyncClient as AsyncClient
    from headrace.client import Client as Client
    from headrace.client import Patience as Patience

__all__ = ["AsyncClient", "Client", "Patience", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late, so that a worker or a gateway that imports the contract does not load an HTTP client with it.
    if name in ("AsyncClient", "Client", "Patience"):
        from headrace import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
