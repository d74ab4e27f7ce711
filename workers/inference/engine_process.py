"""The parent's side of the engine process: starts it, hears it, sees it die, starts another. Knows no jobs.

One thread starts and hears every child, for the whole life of the worker: on Linux a child is killed when the thread
that started it ends, whatever ended it. Another one speaks.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import structlog

from headrace.contract.errors import SetupError
from workers.inference.inbox import EngineDown, EngineStepped, EngineUp, Inbox, NewStream
from workers.inference.messages import AbortAll, ChildOptions, Command, Ready, Report, StartFailed, Stepped, Stop
from workers.inference.spawning import EngineChild, spawn
from workers.inference.ticker import OnCrash, WorkerThread

MAX_FAILED_STARTS = 3
STEADY_S = 30.0
"""An engine that ran this long was not ended by how it was started."""

MAX_PAUSE_S = 30.0
POLL_S = 0.1
EXIT_S = 1.0

log = structlog.get_logger(__name__)


def restart_pause(quick_deaths: int) -> float:
    """Seconds before the next start: none after a first death, then 1/4, 1/2, 1 ... while they follow each other fast.

    Short at first, since three deaths end a poisonous job, and everybody else's jobs wait for that.
    """
    return 0.0 if quick_deaths <= 1 else min(MAX_PAUSE_S, 2.0 ** (quick_deaths - 4))


@dataclass(frozen=True, slots=True)
class EngineProcessParts:
    """`on_ready` makes the text side of what the model file says; `on_failure` ends the worker. `first` was started
    earlier with the same options."""

    options: ChildOptions
    start_timeout_s: float
    inbox: Inbox
    on_ready: Callable[[Ready], NewStream]
    on_failure: Callable[[str], None]
    on_crash: OnCrash
    first: EngineChild | None = None


class EngineProcess:
    """Generations count the children, so that nothing meant for a dead one reaches its successor."""

    def __init__(self, parts: EngineProcessParts) -> None:
        self._parts = parts
        self._first = parts.first
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self._process: SpawnProcess | None = None
        self._generation = 0
        self._stopping = threading.Event()
        self._thread = WorkerThread("engine-process", self._run, parts.on_crash)
        self._outbox: queue.SimpleQueue[tuple[int, Command]] = queue.SimpleQueue()
        self._speaker = WorkerThread("engine-speaker", self._speak, parts.on_crash)

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        process = self._process
        return process.pid if process is not None else None

    def start(self) -> None:
        self._thread.start()
        self._speaker.start()

    def send(self, generation: int, command: Command) -> None:
        """Never waits and never raises: a child that hangs must not keep anybody from noticing that it does."""
        self._outbox.put((generation, command))

    def abort_all(self) -> None:
        self.send(self._generation, AbortAll())

    def kill(self, generation: int, why: str) -> None:
        """For an engine that hangs. Its death is then seen like any other."""
        process = self._process
        if generation == self._generation and process is not None:
            log.error("killing the engine process", reason=why, pid=process.pid)
            process.kill()

    def ask_to_stop(self) -> None:
        """End after the step in hand; no other child is started."""
        self._stopping.set()
        self.send(self._generation, Stop())

    def stop(self, timeout_s: float) -> None:
        """As `ask_to_stop`, and kill what has not ended in time."""
        self.ask_to_stop()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.kill(self._generation, f"did not stop within {timeout_s:g} s")
            self._thread.join(EXIT_S)

    # -- the threads

    def _speak(self) -> None:
        """Pass on what is said to the child, one command after the other."""
        while True:
            generation, command = self._outbox.get()
            with self._lock:
                pipe = self._pipe if generation == self._generation else None
            if pipe is None:
                continue
            try:
                pipe.send(command)
            except OSError as error:
                # Whoever spoke hears of the death in the inbox.
                log.debug("engine process does not hear", reason=str(error))

    def _run(self) -> None:
        quick_deaths = failed_starts = 0
        while not self._stopping.wait(restart_pause(quick_deaths)):
            began = time.monotonic()
            try:
                ready = self._start_child()
            except SetupError as error:
                self._parts.on_failure(error.explain())
                break
            if ready is None and self._stopping.is_set():
                break
            if ready is None:
                failed_starts += 1
                if failed_starts >= MAX_FAILED_STARTS:
                    self._parts.on_failure(f"The engine process ended {failed_starts} times before it was ready.")
                    break
            else:
                failed_starts = 0
                self._hear()
            self._end_child()
            quick_deaths = quick_deaths + 1 if time.monotonic() - began < STEADY_S else 1
        self._end_child()
        self._parts.inbox.put(EngineDown(self._generation, died=False))

    def _start_child(self) -> Ready | None:
        """Start a child and wait until it is ready; None when it ended or hung before, or was asked to stop.

        Raises SetupError when it says that starting it again is of no use.
        """
        child, self._first = self._first or spawn(self._parts.options), None
        here = child.pipe
        with self._lock:
            self._generation += 1
            self._pipe, self._process = here, child.process
        if self._stopping.is_set():
            return None
        deadline = time.monotonic() + self._parts.start_timeout_s
        while not here.poll(POLL_S):
            if self._stopping.is_set():
                return None
            if time.monotonic() > deadline:
                log.error("engine process is not ready in time", timeout_s=self._parts.start_timeout_s)
                return None
        report = self._receive(here)
        if isinstance(report, StartFailed):
            raise SetupError(report.message)
        if not isinstance(report, Ready):
            return None
        new_stream = self._parts.on_ready(report)
        self._parts.inbox.put(EngineUp(self._generation, report, new_stream))
        return report

    def _hear(self) -> None:
        """Pass on what the child says, until it is gone."""
        pipe, process = self._pipe, self._process
        assert pipe is not None
        assert process is not None
        while pipe in wait([pipe, process.sentinel]):
            report = self._receive(pipe)
            if report is None:
                break
            if isinstance(report, Stepped):
                message = EngineStepped(self._generation, report)
                while not self._parts.inbox.put_step(message, POLL_S):
                    if self._stopping.is_set() or not process.is_alive():
                        break
        died = not self._stopping.is_set()
        if died:
            process.join(EXIT_S)
            log.error("engine process died", pid=process.pid, exit_code=process.exitcode)
        self._parts.inbox.put(EngineDown(self._generation, died))

    def _end_child(self) -> None:
        """Whatever is left of it: one that was ready has said its last word, one that was not has none."""
        with self._lock:
            pipe, process = self._pipe, self._process
            self._pipe = self._process = None
        if process is not None and process.is_alive():
            process.kill()
            process.join(EXIT_S)
        # Not before: a command on its way to a child that hangs fails by the child's death.
        if pipe is not None:
            pipe.close()

    @staticmethod
    def _receive(pipe: Connection) -> Report | None:
        """The next report; None when the child is gone, or died in the middle of one."""
        try:
            report: Report = pipe.recv()
        except (EOFError, OSError):
            return None
        return report
