"""The client side of Headrace: submit, wait, stream, cancel. Knows HTTP, not how a gateway does what it is asked."""

from headrace.client.async_client import AsyncClient
from headrace.client.async_handle import AsyncJobHandle
from headrace.client.client import Client
from headrace.client.handle import JobHandle
from headrace.client.result import JobResult, JobView, ModelView
from headrace.client.retry import Patience

__all__ = ["AsyncClient", "AsyncJobHandle", "Client", "JobHandle", "JobResult", "JobView", "ModelView", "Patience"]
