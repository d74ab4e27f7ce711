"""The client side of Headrace: submit, wait, stream, cancel. Knows HTTP, not how a gateway does what it is asked."""

from headrace.client.client import Client
from headrace.client.handle import JobHandle
from headrace.client.result import JobResult, JobView
from headrace.client.retry import Patience

__all__ = ["Client", "JobHandle", "JobResult", "JobView", "Patience"]
