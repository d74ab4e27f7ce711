"""What starts and stops the workers of a lane, as the autoscaler sees it. Knows no decisions and no process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Member:
    """One worker as whoever started it sees it. `worker_id` is the one it beats under, empty while it does not run."""

    name: str
    worker_id: str
    crashing: bool = False
    leaving: bool = False


class Scaler(Protocol):
    """The workers of every lane, and how to have more or fewer of them. A worker is only ever stopped by drain."""

    def members(self, lane: str) -> Sequence[Member]:
        """All that were started and have not left."""
        ...

    def start(self, lane: str, count: int) -> None:
        """One that cannot be started is a member that crashes; nothing is raised."""
        ...

    def drain(self, lane: str, names: Sequence[str]) -> None:
        """Let these give their jobs back and end; they are not started again."""
        ...
