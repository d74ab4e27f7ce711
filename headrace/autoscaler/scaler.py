"""What starts and stops the workers of a lane: the protocol, and the one that does it here. Knows no decisions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.contract.ids import worker_id
from headrace.supervisor.process import Spec
from headrace.supervisor.supervisor import Supervisor

_CRASHES = 2


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

    def start(self, lane: str, count: int) -> None: ...

    def drain(self, lane: str, names: Sequence[str]) -> None:
        """Let these give their jobs back and end; they are not started again."""
        ...


class LocalScaler:
    """Child processes of one supervisor. `names` are the places that each lane has, `spec` makes what runs in one."""

    def __init__(
        self,
        supervisor: Supervisor,
        names: Mapping[str, Sequence[str]],
        spec: Callable[[str, str], Spec],
        tag: str,
    ) -> None:
        self._supervisor = supervisor
        self._names = names
        self._spec = spec
        self._tag = tag

    def members(self, lane: str) -> tuple[Member, ...]:
        children = self._supervisor.children()
        found = (children[name] for name in self._names[lane] if name in children)
        return tuple(
            Member(
                child.name,
                "" if child.pid is None else worker_id(self._tag, child.pid),
                crashing=child.deaths >= _CRASHES,
                leaving=child.leaving,
            )
            for child in found
        )

    def start(self, lane: str, count: int) -> None:
        """Raises SetupError when no process can be started."""
        taken = self._supervisor.children().keys()
        for name in [name for name in self._names[lane] if name not in taken][:count]:
            self._supervisor.start(self._spec(lane, name))

    def drain(self, lane: str, names: Sequence[str]) -> None:
        for name in names:
            self._supervisor.retire(name)
