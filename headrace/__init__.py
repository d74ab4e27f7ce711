"""Headrace: work put on a queue comes back as tokens. Knows the public names of the client side and nothing else."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.client import Client as Client

__all__ = ["Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late, so that a worker or a gateway that imports the contract does not load an HTTP client with it.
    if name == "Client":
        from headrace.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
