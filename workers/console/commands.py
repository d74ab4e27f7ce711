"""Our commands among Celery's remote ones: names, arguments and help, and which of Celery's own are kept.

Knows Celery's table of commands, one for each process; who answers is handed in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from celery.worker.control import Panel

KEPT_COMMANDS = frozenset(
    {"ping", "stats", "report", "hello", "clock", "heartbeat", "enable_events", "disable_events", "conf"}
    | {"active", "active_queues", "query_task", "registered", "reserved", "revoked", "scheduled"}
)
"""What anybody with access to the broker may ask, and what Flower asks. The rest of Celery's would stop a process, make
it consume something else, or signal and kill what runs in it."""

ELSEWHERE = "this node runs tasks and serves no model"

log = structlog.get_logger(__name__)

Reply = dict[str, Any]
Answers = Mapping[str, Callable[..., Reply]]
"""Who answers, by the name of the command; called on Celery's loop with its arguments as keywords."""


@dataclass(frozen=True, slots=True)
class Command:
    """`args` names the texts that it takes, in order."""

    type: Literal["inspect", "control"]
    help: str
    args: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "capacity": Command("inspect", "KV tokens and jobs: what it can hold, what it holds."),
    "leases": Command("inspect", "Its jobs: attempt, epoch, age, tokens journaled."),
    "step_age": Command("inspect", "Milliseconds since the engine stepped; null while it is idle."),
    "drain": Command("control", "Give all jobs back and end, as SIGTERM does."),
    "cancel": Command("control", "Cancel one job, wherever in the fleet it is.", ("job",)),
    "pause": Command("control", "Claim nothing new; running jobs go on."),
    "resume": Command("control", "Claim again after a pause."),
}


def ok(said: str) -> Reply:
    return {"ok": said}


def refused(said: str) -> Reply:
    return {"error": said}


def keep_only_safe_commands() -> None:
    """Remove what would let a stranger harm this process; ours stay."""
    for name in set(Panel.data) - KEPT_COMMANDS - set(COMMANDS):
        del Panel.data[name]
        Panel.meta.pop(name, None)


def offer_commands(answers: Answers | None = None) -> None:
    """Put our commands into Celery's table. Without answers they can be sent from here, and are refused here."""
    for name, command in COMMANDS.items():
        Panel.register(
            name=name,
            type=command.type,
            help=command.help,
            args=[(arg, str) for arg in command.args],
            signature=" ".join(f"<{arg}>" for arg in command.args) or None,
        )(_handler(name, answers[name] if answers else _NOT_HERE[command.type]))


def _handler(name: str, answer: Callable[..., Reply]) -> Callable[..., Reply]:
    """Never raises: anybody may send anything."""
    takes = COMMANDS[name].args

    def handle(state: Any, **arguments: Any) -> Reply:
        if set(arguments) != set(takes) or not all(isinstance(value, str) for value in arguments.values()):
            return refused(f"{name} takes {' '.join(takes) or 'no arguments'}")
        try:
            return answer(**arguments)
        except Exception as error:
            # Whoever asked is told; Celery's loop goes on.
            log.exception("console command failed", command=name)
            return refused(repr(error))

    return handle


_NOT_HERE: Mapping[str, Callable[..., Reply]] = {
    "inspect": lambda **_: ok(ELSEWHERE),  # a question to all is no fault
    "control": lambda **_: refused(ELSEWHERE),
}
