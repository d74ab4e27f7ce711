"""Environments of the peers' own, in an ignored folder: each is made once, and again when its steps change."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.machine import ROOT
from benchmarks.peers.process import PeerError

FOLDER: Final = ROOT / "benchmarks" / ".peers"
_NICE: Final = ("nice", "-n", "19")
_TAIL: Final = 1_500
_STAMP: Final = "made.txt"

Step: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment and what is done in its folder once it is there. In a step, {python} is its interpreter and
    {folder} its folder."""

    name: str
    steps: tuple[Step, ...]

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


def pip(*arguments: str) -> Step:
    return ("{python}", "-m", "pip", "install", "--quiet", *arguments)


def made(environment: Environment, say: Callable[[str], None]) -> Path:
    """The environment's interpreter, after whatever was left to do. Raises PeerError with the failed step's words."""
    folder = environment.folder
    wanted = "\n".join(" ".join(step) for step in environment.steps)
    stamp = folder / _STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return environment.python
    say(f"making the environment of {environment.name}")
    run_step((sys.executable, "-m", "venv", str(folder)), ROOT)
    for step in environment.steps:
        filled = tuple(word.format(python=environment.python, folder=folder) for word in step)
        say(f"  {' '.join(filled)}")
        run_step(filled, folder)
    stamp.write_text(wanted, encoding="utf-8")
    return environment.python


def run_step(command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """Run one command to its end, politely. Raises PeerError."""
    try:
        done = subprocess.run(
            [*_NICE, *command], cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise PeerError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        words = (done.stdout + done.stderr).decode(errors="replace").strip()[-_TAIL:]
        raise PeerError(f"`{' '.join(command)}` ended with {done.returncode}:\n{words}")
