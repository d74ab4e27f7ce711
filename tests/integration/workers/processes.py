"""Processes of a fleet as people start them, from a folder of their own and with settings in the environment."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.workers.fleet import Fleet

LIMIT_S = 30.0


@dataclass
class Processes:
    """`folder` is their working directory and holds their logs in `logs`."""

    fleet: Fleet
    folder: Path

    def __post_init__(self) -> None:
        self.here = self.folder / "here"
        self.here.mkdir()
        self.data = self.folder / "data"
        ours = {
            "HEADRACE_REDIS__URL": self.fleet.server.url,
            "HEADRACE_PATHS__DATA_DIR": str(self.data),
            "HEADRACE_MAINTENANCE__INDEX_S": "1",
            "HEADRACE_MAINTENANCE__BLOBS_S": "1",
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self._variables = others | ours

    @contextmanager
    def running(self, name: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """`python -m <arguments>`, killed with the block's end if it is still there."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self._variables | variables,
                cwd=self.here,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait(LIMIT_S)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def celery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One run of Celery's command line."""
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "workers.celery_app", *arguments],
            env=self._variables,
            cwd=self.here,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
