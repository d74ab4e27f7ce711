"""What a notice is, and what every source of them can be asked. Knows no cloud and no worker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class NoAnswer(Exception):
    """The source cannot be asked now, or its answer makes no sense. Never a reason to stop."""


@dataclass(frozen=True, slots=True)
class Notice:
    """This machine is to go. `seconds_left` is None where the cloud does not say how soon."""

    source: str
    reason: str
    seconds_left: float | None = None


class NoticeSource(Protocol):
    """One cloud's metadata server as this machine sees it. Both calls wait for seconds at most; raise NoAnswer."""

    pause_s: float
    """Between two polls."""

    def is_here(self) -> bool:
        """Whether this machine is one of that cloud's."""
        ...

    def poll(self) -> Notice | None:
        """What stands now. A source that can wait for a change does so here."""
        ...


def first_notice(*questions: Callable[[], Notice | None]) -> Notice | None:
    """The first notice that any of them is answered with: one that has no answer hides no other's. Raises its NoAnswer
    only when there is no notice."""
    trouble: NoAnswer | None = None
    for ask in questions:
        try:
            notice = ask()
        except NoAnswer as error:
            trouble = trouble or error
            continue
        if notice is not None:
            return notice
    if trouble is not None:
        raise trouble
    return None
