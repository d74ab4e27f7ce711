"""The client side of Headrace: submit, wait, stream, cancel. Knows HTTP, not how a gateway does what it is asked."""

from headrace.client.async_client import AsyncClient
from headrace.client.async_handle import AsyncJobHandle
from headrace.client.client import Client
from headrace.client.handle import JobHandle
from headrace.client.letters import DeadLetter, LetterOutcome
from headrace.client.result import JobResult, JobView, ModelView
from headrace.client.retry import Patience

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "DeadLetter",
    "JobHandle",
    "JobResult",
    "JobView",
    "LetterOutcome",
    "ModelView",
    "Patience",
]
