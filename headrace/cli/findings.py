"""What a check found: a word, a sentence, and what to do. Knows no check."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from headrace.contract.errors import HeadraceError


class State(StrEnum):
    OK = "OK"
    WARN = "WARN"
    """It works, but not as well as it could, or not yet."""
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `headrace doctor`. One that is not OK has a `next_step`."""

    name: str
    state: State
    message: str
    next_step: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state.value}


def failed(name: str, error: HeadraceError, state: State = State.FAIL) -> Finding:
    """An error of ours as a finding."""
    return Finding(name, state, error.message, error.next_step or "")
