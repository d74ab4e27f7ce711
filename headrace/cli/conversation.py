"""A conversation with a model: its turns, and the words that steer it. Knows no gateway and no terminal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headrace.contract.errors import InvalidRequest

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "/help": "what can be said here",
        "/reset": "forget all turns; the system message stays",
        "/model": "[NAME]  which model answers, or let another one answer",
        "/system": "[TEXT]  the system message, or another one; - is none",
        "/save": "FILE  the conversation as JSON",
        "/exit": "end; so does Ctrl-D",
    }
)


@dataclass(frozen=True, slots=True)
class Command:
    """A line that steers; `argument` is empty where none was given."""

    name: str
    argument: str


def read_line(line: str) -> Command | str:
    """A command, or what is to be said to the model. A line that is to begin with a slash begins with two.

    Raises InvalidRequest for a command there is not.
    """
    if not line.startswith("/") or line.startswith("//"):
        return line[1:] if line.startswith("//") else line
    name, _, argument = line.partition(" ")
    if name not in COMMANDS:
        raise InvalidRequest(f"There is no command {name}.", next_step=f"There are: {' '.join(COMMANDS)}.")
    return Command(name, argument.strip())


@dataclass(slots=True)
class Conversation:
    """What has been said. Nothing is ever dropped from it but by `reset`."""

    model: str
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)

    def messages(self, question: str) -> list[dict[str, str]]:
        """All of it and one more question, as the gateway takes it."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        return [*opening, *self.turns, {"role": "user", "content": question}]

    def keep(self, question: str, answer: str) -> None:
        """A question counts once it has an answer, be it a part of one."""
        self.turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        self.turns.clear()

    def save(self, path: Path) -> None:
        """As JSON that `POST /v1/jobs` takes. Raises InvalidRequest when there is such a file or it cannot be made."""
        *messages, _ = self.messages("")
        document: dict[str, Any] = {"model": self.model, "messages": messages}
        try:
            with path.expanduser().open("x", encoding="utf-8") as file:
                json.dump(document, file, ensure_ascii=False, indent=2)
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}.", next_step="Name another.") from error
