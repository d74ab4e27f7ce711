"""The autoscaler's workers as child processes of one supervisor. Knows their places, no decisions."""

from collections.abc import Callable, Mapping, Sequence

from headrace.autoscaler.scaler import Member
from headrace.contract.ids import worker_id
from headrace.supervisor.process import Spec
from headrace.supervisor.supervisor import Supervisor

_CRASHES = 2


class LocalScaler:
    """A Scaler. `names` are the places that each lane has, `spec` makes what runs in one."""

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
        taken = self._supervisor.children().keys()
        for name in [name for name in self._names[lane] if name not in taken][:count]:
            self._supervisor.keep(self._spec(lane, name))

    def drain(self, lane: str, names: Sequence[str]) -> None:
        for name in names:
            self._supervisor.retire(name)
