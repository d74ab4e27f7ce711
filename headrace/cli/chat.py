"""`headrace chat`: a conversation in the terminal, or one prompt a line from a pipe. Knows keys and lines.

Each answer is a job: Ctrl-C cancels it and what came of it stays in the conversation.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from headrace.cli import output
from headrace.cli.conversation import COMMANDS, Command, Conversation, read_line
from headrace.cli.options import ApiKey, Model, Url, connect, only_model
from headrace.client import Client, JobHandle, ModelView
from headrace.client.result import first_text
from headrace.contract.errors import ContextLengthExceeded, HeadraceError, InvalidRequest
from headrace.contract.events import Completed, Delta
from headrace.contract.generation import Usage

_NEARLY_FULL = 0.8


def chat(
    model: Model = None,
    system: Annotated[str, typer.Option(help="A system message in front.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of one answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answers.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Talk with a model: it remembers the turns. From a pipe, one prompt a line."""
    asked = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    with connect(url, api_key) as client:
        session = _Session(client, client.model(model or only_model(client)), system, asked)
        terminal = sys.stdin.isatty()
        if terminal:
            output.aside(f"{session.model} answers. /help says more, Ctrl-C stops an answer, Ctrl-D ends.")
        for line in _typed() if terminal else _piped():
            if not session.take(line):
                break
    return 0 if terminal or not session.failures else 1


class _Session:
    """One conversation and the gateway it is held over."""

    def __init__(self, client: Client, model: ModelView, system: str, asked: dict[str, Any]) -> None:
        self._client = client
        self._card = model
        self._talk = Conversation(model.id, system)
        self._asked = asked
        self.failures = 0

    @property
    def model(self) -> str:
        return self._card.id

    def take(self, line: str) -> bool:
        """One line, to the model or to us; False ends. What goes wrong is said, and the conversation goes on."""
        try:
            said = read_line(line.strip())
            if isinstance(said, Command):
                return self._obey(said)
            if said:
                self._ask(said)
        except ContextLengthExceeded as error:
            self.failures += 1
            output.say(f"{error.explain()}\n{self._full_advice()}")
        except HeadraceError as error:
            self.failures += 1
            output.say(error.explain())
        return True

    def _obey(self, command: Command) -> bool:
        argument = command.argument
        match command.name:
            case "/exit":
                return False
            case "/help":
                output.say("\n".join(f"{name:<8} {meaning}" for name, meaning in COMMANDS.items()))
            case "/reset":
                self._talk.reset()
                output.aside("Forgotten.")
            case "/model":
                if argument:
                    self._card = self._client.model(argument)
                    self._talk.model = self._card.id
                output.aside(f"{self.model} answers; there are: {', '.join(self._client.models())}")
            case "/system":
                if argument:
                    self._talk.system = "" if argument == "-" else argument
                output.aside(self._talk.system or "There is no system message.")
            case "/save":
                if not argument:
                    raise InvalidRequest("Save it where?", next_step="Say /save and a file.")
                self._talk.save(Path(argument))
                output.aside(f"Saved as {argument}.")
        return True

    def _ask(self, question: str) -> None:
        handle: JobHandle | None = None
        answer, finish, usage = "", "", None
        try:
            with interrupt_held():  # a job that was accepted must be known here before it can be stopped
                handle = self._client.submit(
                    model=self.model,
                    messages=self._talk.messages(question),
                    job_class="interactive",
                    **self._asked,
                )
            for event in handle.stream():
                if text := first_text(event, handle.id):
                    print(text, end="", flush=True)
                    answer += text
                if isinstance(event, Delta):
                    finish = event.finish_reason or finish
                elif isinstance(event, Completed):
                    usage = event.usage
        except KeyboardInterrupt:
            if handle:
                handle.cancel()
            finish = "stopped"
        finally:
            print(flush=True)
            if answer:
                self._talk.keep(question, answer)
        self._remark(finish, usage)

    def _remark(self, finish: str, usage: Usage | None) -> None:
        """What the text itself does not tell."""
        limit = self._card.max_tokens_in_all
        used = usage.prompt_tokens + usage.completion_tokens if usage else 0
        if finish == "stopped":
            output.aside("(stopped)")
        elif used >= limit:
            output.say(f"The context of {limit:,} tokens is full: the answer ends here. {self._full_advice()}")
        elif finish == "length":
            output.aside(f"(cut after {usage.completion_tokens if usage else 0} tokens)")
        if _NEARLY_FULL * limit <= used < limit:
            output.say(f"{used:,} of {limit:,} tokens of context are used.")

    def _full_advice(self) -> str:
        if not self._talk.turns:
            return "Nothing was sent."
        return "Nothing was forgotten: /save FILE keeps the conversation, /reset begins anew."


def _typed() -> Iterator[str]:
    """Lines of a terminal. Ctrl-C drops what was typed, Ctrl-D ends."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and editing
    while True:
        try:
            yield input("> ")
        except KeyboardInterrupt:
            print()
        except EOFError:
            print()
            return


def _piped() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Standard input is not UTF-8 (byte {error.start}).") from error


@contextmanager
def interrupt_held() -> Iterator[None]:
    """A Ctrl-C in here counts at the end of the block; a second one at once."""
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            raise KeyboardInterrupt
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt
