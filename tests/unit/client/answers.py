"""What a gateway answers about one job, as scripts have it. Knows the wire, not the client."""

import json

from headrace.client import Patience
from headrace.contract.events import Accepted, Completed, Delta, Event, to_json
from headrace.contract.generation import Usage
from tests.unit.client.scripted import Answer

JOB = "job_01hzzzzzzzzzzzzzzzzzzzzzzz"
OTHER = "job_01hzzzzzzzzzzzzzzzzzzzzzzy"
EVENTS: list[Event] = [
    Accepted(1, JOB, 0),
    Delta(2, 0, 0, (1, 2), "a sea"),
    Delta(3, 0, 2, (3,), " of"),
    Delta(4, 0, 3, (4,), " mills", "stop"),
    Completed(5, Usage(3, 4)),
]
BUSY = Answer(503, json.dumps({"error": {"code": "queue_full", "message": "full"}}).encode(), {"retry-after": "0"})


def patient(silence_s: float = 5.0) -> Patience:
    return Patience(silence_s=silence_s, first_delay_s=0.001, longest_delay_s=0.01)


def sse(events: list[Event], *, cut: bool = False) -> Answer:
    text = "".join(f"id: c{e.seq}\nevent: {e.type}\ndata: {json.dumps(to_json(e))}\n\n: ping\n" for e in events)
    return Answer(200, text.encode(), {"content-type": "text/event-stream"}, cut)


def job(state: str, job_id: str = JOB, **fields: object) -> Answer:
    shown = {"id": job_id, "model": "m", "state": state, "usage": None, "error": None, "result": None} | fields
    return Answer(200, json.dumps(shown).encode())


def succeeded(job_id: str = JOB) -> Answer:
    choices = [{"index": 0, "text": "a sea of mills", "finish_reason": "stop"}]
    return job("succeeded", job_id, usage={"prompt_tokens": 3, "completion_tokens": 4}, result={"choices": choices})
