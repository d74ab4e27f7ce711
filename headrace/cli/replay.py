"""`headrace replay`: run an ended job again and hold the two against each other. Knows arguments and waiting.

The gateway makes the new job, `headrace.client.comparison` says what differs, and `replay_report` tells it.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from headrace.cli import output
from headrace.cli.options import ApiKey, AsJson, JobId, Url, connect, finite
from headrace.cli.replay_report import INCOMPARABLE, NAMES, Report
from headrace.client import Client, JobHandle, JobView
from headrace.client.comparison import Said, compare, from_events, from_result
from headrace.client.waiting import Polling
from headrace.contract.errors import HeadraceError, InvalidRequest, JournalExpired
from headrace.contract.events import Delta, Event
from headrace.contract.job import State

_WAITING = (State.ACCEPTED, State.QUEUED)


def replay(
    job: JobId,
    any_digest: Annotated[
        bool, typer.Option("--any-digest", help="Let any worker of the model's revision run it; it may then differ.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a worker of the right digest.", callback=finite)
    ] = 10,
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds after which the replay is given up.", callback=finite)
    ] = 3600,
    json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Run an ended job again with its frozen request, on the same numerics, and compare token by token.

    Exit codes: 0 the same, 1 it differs, 3 it cannot be compared. A job that killed its workers may do so again.
    """
    try:
        with connect(url, api_key) as client:
            report = _replay(client, client.fetch(job), any_digest, wait, deadline)
    except HeadraceError as error:  # elsewhere this is 1, which here means that it differs
        if json:
            output.json_data({"verdict": NAMES[INCOMPARABLE], "job": job, "reason": error.explain()})
        else:
            output.say(f"headrace: {' '.join(error.explain().split())}")
        return INCOMPARABLE
    if json:
        output.json_data(report.to_json())
        return report.code
    for line in report.lines():
        output.data(line)
    for note in report.notes():
        output.say(note)
    return report.code


def _replay(client: Client, first: JobView, any_digest: bool, wait_s: float, deadline_s: float) -> Report:
    """Raises HeadraceError where there is nothing to compare with, or no new job. The new job has ended after it."""
    if not first.ended:
        raise InvalidRequest(f"{first.id} has not ended.", next_step=f"Follow it: headrace events {first.id}")
    before = _said_by(client, first)
    handle = client.replay(first.id, any_digest=any_digest, deadline_seconds=deadline_s)
    output.aside(f"{first.id} runs again as {handle.id}.")
    try:
        missing = _missing(client, handle, wait_s)
        events = [] if missing else _followed(handle, before)
    finally:
        with suppress(HeadraceError):
            handle.cancel()  # nobody will look at what it may yet say
    if missing:
        return Report(first, handle.refresh(), reason=missing)
    second, compared = handle.refresh(), compare(before, from_events(events))
    return Report(first, second, compared, _why_short(second) if compared.short else "")


def _said_by(client: Client, view: JobView) -> tuple[Said, ...]:
    """What an ended job said, as long as anything has it. Raises HeadraceError."""
    state = view.state.value.lower()
    try:
        said = from_events(client.job(view.id).stream())
    except JournalExpired:
        result = view.raw.get("result")
        if not result:
            raise HeadraceError(
                f"What {view.id} said is past its retention; it ended as {state}.",
                next_step="Events are kept for 15 minutes, the result of a job that succeeded for a day.",
            ) from None
        said = from_result(result["choices"])
    if not any(each.token_ids or each.finish_reason for each in said):
        raise HeadraceError(f"{view.id} ended as {state} before its first token: there is nothing to compare.")
    return said


def _missing(client: Client, handle: JobHandle, wait_s: float) -> str:
    """Wait until somebody has taken it; or why nobody will, once no worker that may was seen for so long."""
    give_up_at, polling = time.monotonic() + wait_s, Polling(handle.id, None, time.monotonic())
    while (view := handle.refresh()).state in _WAITING:
        wanted, workers = view.raw.get("digest_wanted"), _workers_for(client, view)
        if any(wanted in (None, each["digest"]) for each in workers):
            give_up_at = time.monotonic() + wait_s  # it is there, and has much to do
        elif time.monotonic() >= give_up_at:
            return _nobody(wanted, workers)
        time.sleep(polling.pause(time.monotonic()))
    return ""


def _workers_for(client: Client, view: JobView) -> list[dict[str, Any]]:
    return [each for each in client.workers() if each["lane"].startswith(f"{view.model}@") and each["state"] == "ready"]


def _nobody(wanted: str | None, workers: Sequence[dict[str, Any]]) -> str:
    if wanted is None or not workers:
        return "No worker serves this model now. Start one, or give --wait more seconds."
    counted = Counter(str(each["digest"]) for each in workers).most_common()
    have = ", ".join(f"{digest} ({count} worker{'s' * (count > 1)})" for digest, count in counted)
    return (
        f"No worker has the digest {wanted}; there are {have}. Start one on a machine like that of the first run, or "
        "compare all the same with --any-digest."
    )


def _followed(handle: JobHandle, first: Sequence[Said]) -> list[Event]:
    """Its events, no further than the first run came: one that was cancelled, or killed its workers, is not outdone."""
    events: list[Event] = []
    tokens: Counter[int] = Counter()
    finished: set[int] = set()
    partial = any(each.finish_reason is None for each in first)
    for event in handle.stream():
        events.append(event)
        if isinstance(event, Delta):
            tokens[event.choice] += len(event.token_ids)
            finished |= {event.choice} if event.finish_reason else set()
        if partial and all(
            tokens[choice] >= len(said.token_ids) and (said.finish_reason is None or choice in finished)
            for choice, said in enumerate(first)
        ):
            break
    return events


def _why_short(view: JobView) -> str:
    error = f" ({view.error.code}: {view.error.message})" if view.error else ""
    return f"The replay ended as {view.state.value.lower()} before it got as far as the first run{error}."
