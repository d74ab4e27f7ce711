"""The errors of a client that has tried for long enough. Knows what to say of it, not when that is."""

from headrace.client.core import Broken
from headrace.contract.errors import HeadraceError, NoProgress, SetupError


def unreachable(urls: str, broken: Broken) -> SetupError:
    return SetupError(
        f"No gateway answers at {urls}: {broken.reason.rstrip('.')}.",
        next_step="Start one with `headrace up`, or give its address (--url or HEADRACE_URL).",
    )


def unreadable(job_id: str, urls: str, broken: Broken) -> HeadraceError:
    """For a stream of which every gateway makes something that is no event."""
    return HeadraceError(
        f"The events of {job_id} cannot be read at {urls}: {broken.reason.rstrip('.')}.", next_step=_goes_on(job_id)
    )


def silent(job_id: str, seconds: float) -> NoProgress:
    return NoProgress(f"Nothing was heard of {job_id} for {seconds:.0f} s.", next_step=_goes_on(job_id))


def _goes_on(job_id: str) -> str:
    return f"The job itself goes on; read it later: headrace events {job_id}"
