"""The child: owns the engine, hears commands, says what each step brought. Knows no jobs, no text and no Redis."""

import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from workers.inference import fake_engine
from workers.inference.messages import (
    AbortAll,
    AbortRequests,
    AddRequest,
    CannotStart,
    ChildOptions,
    Command,
    Output,
    Ready,
    StartFailed,
    Stepped,
    StepStats,
    Stop,
)

PR_SET_PDEATHSIG = 1
ORPHANED = 4
UNSAYABLE = 5
_UNSAID = 8
"""Steps that may wait to be said."""

_QUIET_S = 1.0  # without a command or a request, after which there is time to look


class Runner(Protocol):
    """An engine in the words of the pipe: the real one (`translate`) or the fake one."""

    def ready(self) -> Ready: ...
    def add(self, request: AddRequest) -> Output | None:
        """Take a request; an output with an error when it is refused."""
        ...

    def abort(self, request_ids: tuple[str, ...] | None) -> None:
        """These, or all of them."""
        ...

    def busy(self) -> bool: ...
    def idle(self) -> StepStats | None:
        """What is held while nothing is to be done; None before the first step."""
        ...

    def check_integrity(self) -> None:
        """Asked while nothing is to be done; AssertionError when something was lost."""
        ...

    def step(self) -> Stepped: ...


def load_runner(options: ChildOptions) -> Runner:
    """torch is imported here and not before, so that the parent's death is noticed while it loads."""
    if options.model_path.startswith(fake_engine.SCHEME):
        return fake_engine.FakeEngine(fake_engine.parse_knobs(options.model_path))
    from workers.inference.translate import load_engine

    return load_engine(options.model_path, options.engine)


def main(pipe: Connection, options: ChildOptions, load: Callable[[ChildOptions], Runner] = load_runner) -> None:
    """The whole life of the child. `load` makes its engine, or raises CannotStart."""
    _belong_to_parent()
    began = time.monotonic()
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, commands), name="commands", daemon=True).start()
    try:
        runner = load(options)
    except CannotStart as error:
        pipe.send(StartFailed(str(error)))
        return
    ready = runner.ready()
    pipe.send(Ready(ready.facts, ready.kv_tokens, ready.digest, time.monotonic() - began))
    serve(runner, pipe, commands)
    # Everything is said. Taking torch apart in order would cost a drain the better part of a second.
    pipe.close()
    os._exit(0)


class Reports:
    """Says what steps brought from a thread of its own: it packs them while the next one computes."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._queue: queue.Queue[Stepped | None] = queue.Queue(_UNSAID)
        self._thread = threading.Thread(target=self._say, name="reports", daemon=True)
        self._thread.start()

    def put(self, report: Stepped) -> None:
        """Waits where the parent does not read: memory stays bounded."""
        self._queue.put(report)

    def end(self) -> None:
        """Returns when all is said."""
        self._queue.put(None)
        self._thread.join()

    def _say(self) -> None:
        try:
            while (report := self._queue.get()) is not None:
                self._pipe.send(report)
        except OSError:
            os._exit(ORPHANED)  # nobody listens any more
        except BaseException:  # noqa: BLE001 - whatever it is, the thread would end and the engine wait for it for ever
            traceback.print_exc()
            os._exit(UNSAYABLE)


def serve(runner: Runner, pipe: Connection, commands: "queue.SimpleQueue[Command]") -> None:
    """Obey what has been said, step, report; wait when there is nothing to do. Returns on Stop, when all is said."""
    reports = Reports(pipe)
    try:
        _serve(runner, reports, commands)
    finally:
        reports.end()


def _serve(runner: Runner, reports: Reports, commands: "queue.SimpleQueue[Command]") -> None:
    while True:
        refused: list[Output] = []
        freed = False
        while not commands.empty() or not runner.busy():
            if (refused or freed) and commands.empty():
                break
            command = _next(commands, runner)
            if isinstance(command, Stop):
                return
            freed = freed or isinstance(command, AbortRequests | AbortAll)
            refusal = _obey(runner, command)
            if refusal is not None:
                refused.append(refusal)
        # Without a next step nobody would hear that what was aborted holds nothing any more.
        idle = runner.idle() if freed and not runner.busy() else None
        if refused or idle is not None:
            reports.put(Stepped(tuple(refused), idle))
        if runner.busy():
            reports.put(runner.step())


def _next(commands: "queue.SimpleQueue[Command]", runner: Runner) -> Command:
    """What is said next. An engine that has lost pages dies of the look that it gets meanwhile, and a new one takes its
    place before anybody waits for what is not there."""
    try:
        return commands.get(timeout=_QUIET_S)
    except queue.Empty:
        runner.check_integrity()
        return commands.get()


def _obey(runner: Runner, command: Command) -> Output | None:
    match command:
        case AddRequest():
            return runner.add(command)
        case AbortRequests(request_ids):
            runner.abort(request_ids)
        case AbortAll():
            runner.abort(None)
    return None


def _listen(pipe: Connection, commands: "queue.SimpleQueue[Command]") -> None:
    """Always reads, so that the parent never waits for a step. The end of the pipe is the end of the parent."""
    while True:
        try:
            commands.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(ORPHANED)


def _belong_to_parent() -> None:
    """Signals are for the parent to decide; its death is ours, on Linux even in the middle of a step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
