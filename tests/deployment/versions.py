"""Two versions of the servers in two folders: this one, and the next, which differs by one more field in the record."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deployment.dockerfile import ROOT

NOTE = "written by the next version"

_PATCHES = (
    ("headrace/contract/job.py", r"^SCHEMA = (\d+)$", lambda found: f"SCHEMA = {int(found[1]) + 1}"),
    ("headrace/contract/job.py", r'^    traceparent: str = ""$', lambda found: f'{found[0]}\n    note: str = ""'),
    ("headrace/store/records.py", r'^    "traceparent",$', lambda found: f'{found[0]}\n    "note",'),
    ("headrace/submission/submit.py", r"metadata=intent\.metadata,", lambda found: f'{found[0]} note="{NOTE}",'),
)
"""File, what must stand in it exactly once, and what the next version has in its place."""


@dataclass(slots=True)
class Version:
    """The code in a folder, and the servers that were started from it."""

    folder: Path
    redis_url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def schema(self) -> int:
        """The version's own word on its record schema."""
        command = [sys.executable, "-c", "from headrace.contract.job import SCHEMA; print(SCHEMA)"]
        return int(subprocess.check_output(command, cwd=self.folder, timeout=30))

    def gateway(self, port: int) -> str:
        """Start a gateway; its URL."""
        self._start("gateway", "--port", str(port))
        return f"http://127.0.0.1:{port}"

    def worker(self, tag: str, *, speed: int) -> "Worker":
        """Start a worker that decodes so many tokens a second for each of three jobs at most."""
        return Worker(tag, self._start("workers", "--model", f"fake:speed={speed}", "--tag", tag))

    def _start(self, module: str, *flags: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "PYTHONPATH"))}
        environment = {**kept, "HEADRACE_REDIS__URL": self.redis_url, "HEADRACE_WORKER__MAX_JOBS": "3"}
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", module, *flags]
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=log, process_group=0)
        self.processes.append(process)
        return process


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process; its id ends in the tag."""

    tag: str
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """The end of its id."""
        return f"_{self.process.pid}_{self.tag}"

    def drain(self) -> None:
        """SIGTERM, and until it is gone. It must leave in order."""
        self.process.terminate()
        assert self.process.wait(15) == 0


@contextmanager
def two_versions(folder: Path, redis_url: str) -> Iterator[tuple[Version, Version]]:
    """This version and the next; whatever they started is gone when the block ends."""
    this, following = (Version(folder / name, redis_url) for name in ("this", "next"))
    for version in (this, following):
        for package in ("headrace", "gateway", "workers"):
            shutil.copytree(ROOT / package, version.folder / package)
    for name, pattern, replacement in _PATCHES:
        path = following.folder / name
        text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        assert count == 1, f"{name} has {pattern} {count} times: the code has moved, so write the patch anew"
        path.write_text(text)
    try:
        yield this, following
    finally:
        for process in (*this.processes, *following.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
