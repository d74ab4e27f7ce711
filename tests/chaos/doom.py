"""When a process is to die: the n-th time that a named moment comes. Knows no queue, no engine and no fleet.

A sentence lies in a file, so that a process that runs already can be sentenced, and a parent and its child alike.
"""

import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Sentence:
    """Die at the `nth` moment of this name (`append.after`). `serial` tells one sentence from the next."""

    serial: int
    point: str
    nth: int

    def write(self, file: Path) -> None:
        """In one step, since somebody may be reading."""
        draft = file.with_name(f"{file.name}.draft")
        draft.write_bytes(orjson.dumps(asdict(self)))
        draft.replace(file)


def read_sentence(file: Path) -> Sentence | None:
    """None where there is none."""
    try:
        return Sentence(**orjson.loads(file.read_bytes()))
    except FileNotFoundError:
        return None


def struck_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.struck")


def has_struck(file: Path, serial: int) -> bool:
    """Whether this sentence was carried out."""
    try:
        return int(struck_file(file).read_text() or 0) == serial
    except FileNotFoundError:
        return False


class Doom:
    """Counts moments and strikes. Any thread may tell it of a moment."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._serial = 0
        self._count = 0

    def at(self, moment: str) -> None:
        """Does not return when this was the one."""
        if self.due(moment):
            self.strike()

    def due(self, moment: str) -> bool:
        """Counts the moment; whether it is the one to die at. Asked by those who have something to do first."""
        with self._lock:
            sentence = read_sentence(self._file)
            if sentence is None or sentence.point != moment or has_struck(self._file, sentence.serial):
                return False  # whoever comes after somebody who died of it is free
            if sentence.serial != self._serial:
                self._serial, self._count = sentence.serial, 0
            self._count += 1
            return self._count == sentence.nth

    def awaits(self, moment: str) -> bool:
        """Whether the sentence is for such a moment, without counting one."""
        sentence = read_sentence(self._file)
        return sentence is not None and sentence.point == moment

    def note(self) -> None:
        """Says in the file that it has come to the point: what is to happen there need not be a death."""
        struck_file(self._file).write_text(str(self._serial))

    def strike(self) -> None:
        """SIGKILL to this very process, noted first."""
        self.note()
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # other threads die with the process; this one must not get on meanwhile

    def strike_in(self, seconds: float) -> None:
        """The same a little later, while this thread works on."""
        timer = threading.Timer(seconds, self.strike)
        timer.daemon = True
        timer.start()
